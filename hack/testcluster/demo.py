"""The main job on the test cluster: install the operator, upload a checkpoint, export it and list the files.

Every command is printed before its output; the printed ``kubectl`` commands work for users as they are.
"""

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import yaml
from minio import Minio

from testcluster import installation
from testcluster.bootstrap import kubectl, store_credentials
from testcluster.installation import RESULTS
from testcluster.layout import EXAMPLE, KUBECONFIG, MINIO_HOST, REPOSITORY, UPLOADS, tool
from testcluster.shell import ClusterError

MINUTES = 30
LOOK_SECONDS = 1.0


def run_demo() -> None:
    """Run the demo; a second run has nothing left to do.

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
    """Make the buckets and upload checkpoint and images."""
    for bucket in sorted({bucket for bucket, _ in UPLOADS.values()} | {RESULTS}):
        if not store.bucket_exists(bucket_name=bucket):
            store.make_bucket(bucket_name=bucket)
    for path, (bucket, key) in UPLOADS.items():
        print(f"\n$ upload {path} to s3://{bucket}/{key}")
        store.fput_object(bucket_name=bucket, object_name=key, file_path=str(REPOSITORY / path))


def wait_for(name: str) -> None:
    """Wait for the export and print its status.

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
    """Return the progress of an export as one line."""
    busy = [f"{target['format']}/{target['precision']}" for target in status.get("targets", ()) if is_busy(target)]
    return f"{status.get('ready', '-'):5}{', '.join(busy)}".rstrip()


def is_busy(target: dict[str, Any]) -> bool:
    """Return whether the converter of a target runs."""
    return bool(target["state"] == "Running")


def is_stalled(status: dict[str, Any]) -> bool:
    """Return whether an export has finished."""
    return any(c["type"] == "Stalled" and c["status"] == "True" for c in status.get("conditions", ()))


def list_objects(store: Minio, folder: str) -> None:
    """Print the files in a folder with their sizes in bytes."""
    print(f"\n$ list s3://{RESULTS}/{folder}")
    for item in store.list_objects(bucket_name=RESULTS, prefix=folder, recursive=True):
        print(f"{item.size or 0:>10,}  {item.object_name}")


def show(*arguments: str) -> None:
    """Print a kubectl command and its output."""
    announce(["kubectl", *arguments])
    print(call(arguments), flush=True)


def pipe(source: str, text: str) -> None:
    """Print the command that applies a manifest, and run it."""
    print(f"\n$ {source} | kubectl apply -f -", flush=True)
    print(call(["apply", "-f", "-"], text), flush=True)


def announce(command: list[str]) -> None:
    """Print a command as a shell would show it."""
    print(f"\n$ {shlex.join(command)}", flush=True)


def call(arguments: Sequence[str], text: str | None = None) -> str:
    """Run kubectl in the root of the repository.

    Raises:
        ClusterError: it failed; the message holds its output.
    """
    command = [tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(done.stderr.strip())
    return done.stdout.strip()
