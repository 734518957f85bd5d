"""The main job on the test cluster: install the operator, upload a checkpoint, export it, look at what came of it.

Every command is printed before its output; what is printed as ``kubectl`` is what a user would type.
"""

import json
import shlex
import subprocess
import time
from typing import Any

import yaml
from minio import Minio

from cluster import installation
from cluster.bootstrap import kubectl, store_credentials
from cluster.installation import RESULTS
from cluster.layout import KUBECONFIG, MINIO_HOST, REPOSITORY, tool
from cluster.shell import ClusterError

EXAMPLE = "examples/yolov8.yaml"
UPLOADS = {
    "tests/models/weights/yolov8n.pt": ("checkpoints", "shapes/yolov8n.pt"),
    "tests/models/data/calibration.zip": ("datasets", "shapes/calibration.zip"),
}
MINUTES = 30
LOOK_SECONDS = 1.0


def run_demo() -> None:
    """Run the whole of it; a second run finds everything done.

    Raises:
        ClusterError: a step fails, or the export does.
    """
    images = installation.provide_images()
    store = connect_store()
    install(images)
    upload(store)
    name = yaml.safe_load((REPOSITORY / EXAMPLE).read_text())["metadata"]["name"]
    show("apply", "-f", EXAMPLE)
    wait_for(name)
    show("get", "mx", name)
    show("get", "jobs", "--selector", f"modelexport.dev/export={name}")
    list_objects(store, f"default/{name}/")


def connect_store() -> Minio:
    """Return a client of the cluster's MinIO."""
    access_key, secret_key = store_credentials()
    return Minio(endpoint=MINIO_HOST, access_key=access_key, secret_key=secret_key, secure=False)


def install(images: tuple[str, str]) -> None:
    """Install the chart and the Secret with MinIO's real keys, and wait for the operator."""
    values = yaml.safe_dump(installation.build_values(*images), sort_keys=False)
    print(f"\n$ cat values.yaml\n{values}", end="", flush=True)
    chart = "helm/modelexport-operator --namespace modelexport-system --create-namespace"
    print(f"\n$ helm upgrade --install modelexport-operator {chart} --values values.yaml --wait", flush=True)
    installation.install_operator(*images)
    keys = "--from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=..."
    create = f"kubectl create secret generic {installation.STORE_SECRET} {keys} --dry-run=client -o yaml"
    pipe(create, installation.build_secret("default"))


def upload(store: Minio) -> None:
    """Make the buckets and upload checkpoint and pictures."""
    for bucket in sorted({bucket for bucket, _ in UPLOADS.values()} | {RESULTS}):
        if not store.bucket_exists(bucket_name=bucket):
            store.make_bucket(bucket_name=bucket)
    for path, (bucket, key) in UPLOADS.items():
        print(f"\n$ upload {path} to s3://{bucket}/{key}")
        store.fput_object(bucket_name=bucket, object_name=key, file_path=str(REPOSITORY / path))


def wait_for(name: str) -> None:
    """Wait as a user would, and tell meanwhile what the status says.

    Raises:
        ClusterError: the export failed, or took too long.
    """
    command = ["wait", "--for=condition=Ready", f"mx/{name}", f"--timeout={MINUTES}m"]
    announce(["kubectl", *command])
    begin, told = time.monotonic(), ""
    with subprocess.Popen([tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *command]) as waiting:
        while waiting.poll() is None:
            status = json.loads(kubectl("get", "mx", name, "--output=json")).get("status", {})
            if (line := describe(status)) != told:
                print(f"  {time.monotonic() - begin:4.0f} s  {line}", flush=True)
                told = line
            if is_stalled(status):
                waiting.terminate()
            time.sleep(LOOK_SECONDS)
    if waiting.returncode:
        raise ClusterError(kubectl("describe", "mx", name))


def describe(status: dict[str, Any]) -> str:
    """Return on one line how far an export is."""
    busy = [f"{target['format']}/{target['precision']}" for target in status.get("targets", ()) if is_busy(target)]
    return f"{status.get('ready', '-'):5}{', '.join(busy)}".rstrip()


def is_busy(target: dict[str, Any]) -> bool:
    """Tell whether the converter of a target runs."""
    return bool(target["state"] == "Running")


def is_stalled(status: dict[str, Any]) -> bool:
    """Tell whether an export goes no further by itself."""
    return any(c["type"] == "Stalled" and c["status"] == "True" for c in status.get("conditions", ()))


def list_objects(store: Minio, folder: str) -> None:
    """Print what is published in a folder, with its size in bytes."""
    print(f"\n$ list s3://{RESULTS}/{folder}")
    for item in store.list_objects(bucket_name=RESULTS, prefix=folder, recursive=True):
        print(f"{item.size or 0:>10,}  {item.object_name}")


def show(*arguments: str) -> None:
    """Print a kubectl command and what it prints."""
    announce(["kubectl", *arguments])
    print(call(arguments), flush=True)


def pipe(source: str, text: str) -> None:
    """Print how a manifest is applied, and apply it."""
    print(f"\n$ {source} | kubectl apply -f -", flush=True)
    print(call(["apply", "-f", "-"], input=text), flush=True)


def announce(command: list[str]) -> None:
    """Print a command as a shell would show it."""
    print(f"\n$ {shlex.join(command)}", flush=True)


def call(arguments: Any, **options: str) -> str:
    """Run kubectl in the root of the repository.

    Raises:
        ClusterError: it failed; the message holds what it said.
    """
    command = [tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise ClusterError(done.stderr.strip())
    return done.stdout.strip()
