"""``modelexport get`` and ``download`` as a user runs them: a real MinIO server and the converter's own links.

kubectl and the kubelet are played by a script that keeps its objects in a file and runs Pods as processes.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import SOURCES, CommandLine
from minio_server import ACCESS_KEY, SECRET_KEY, MinioServer, serve
from modelexport_converter.stores import open_store
from unit.operator.objects import make_class, make_export, make_job

CONTENT = os.urandom(3 << 20)
KEY = "team-a/team/shapes/onnx-fp16-1/shapes-fp16.onnx"

KUBECTL = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--")]
world_file = pathlib.Path(os.environ["WORLD"])
world = json.loads(world_file.read_text())
world["calls"].append(sys.argv[1:])
if words[0] == "get" and words[1].startswith("modelexports"):
    if words[2] not in world["exports"]:
        sys.exit(f'Error from server (NotFound): modelexports.modelexport.dev "{{words[2]}}" not found')
    print(json.dumps(world["exports"][words[2]]))
elif words[0] == "get" and words[1] == "jobs.batch":
    print(json.dumps({{"items": world["jobs"]}}))
elif words[0] == "create":
    pod = json.load(sys.stdin)
    container = pod["spec"]["containers"][0]
    environment = {{e["name"]: e["value"] if "value" in e else world["secret"][e["valueFrom"]["secretKeyRef"]["key"]]
                   for e in container["env"]}}
    environment |= {{"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"], "HOME": "/", "TMPDIR": "/tmp"}}
    environment["MODELEXPORT_TERMINATION_LOG"] = os.environ["WORLD"] + ".message"
    done = subprocess.run([sys.executable, "-m", "modelexport_converter", *container["args"]], env=environment,
                          capture_output=True, text=True)
    message = pathlib.Path(environment["MODELEXPORT_TERMINATION_LOG"]).read_text()
    ended = {{"name": "converter", "state": {{"terminated": {{"exitCode": done.returncode, "message": message}}}}}}
    pod["status"] = {{"phase": "Failed" if done.returncode else "Succeeded", "containerStatuses": [ended]}}
    world["pods"][pod["metadata"]["name"]] = pod
    world["log"] = done.stdout
elif words[0] == "get" and words[1] == "pod":
    print(json.dumps(world["pods"][words[2]]))
elif words[0] == "logs":
    print(world["log"])
elif words[0] == "delete":
    world["deleted"] = [*world.get("deleted", []), words[2]]
world_file.write_text(json.dumps(world))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with serve(tmp_path_factory.mktemp("minio") / "data") as server:
        server.client.make_bucket("exports")
        yield server


class World:
    """A cluster in a file, beside a real store."""

    def __init__(self, folder: Path, server: MinioServer) -> None:
        self.file = folder / "world.json"
        export = make_export("ONNX/FP16", "ONNX/INT8")
        uri = f"s3://exports/{KEY}"
        (folder / "content").write_bytes(CONTENT)
        open_store(server.environ).upload(folder / "content", uri, {})
        artifact = {"uri": uri, "sha256": hashlib.sha256(CONTENT).hexdigest(), "sizeBytes": len(CONTENT)}
        fp16 = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded", "scheme": "fp16"}
        fp16 |= {"artifact": artifact, "verification": {"metric": "cosine", "value": "0.9999", "threshold": "0.999"}}
        int8 = {"format": "ONNX", "precision": "INT8", "state": "Failed", "reason": "VerificationFailed"}
        export["status"] = {"targets": [fp16, {**int8, "message": "cosine 0.91 is below 0.95"}]}
        fp16["jobName"] = make_job(export, "ONNX/FP16")["metadata"]["name"]
        storage = {"endpoint": f"http://{server.address}", "bucket": "exports", "credentialsSecretName": "s3"}
        job = make_job(export, "ONNX/FP16", make_class(storage=storage))
        secret = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        self.write({"exports": {"shapes": export}, "jobs": [job], "pods": {}, "secret": secret, "calls": []})

    def read(self) -> dict[str, Any]:
        world: dict[str, Any] = json.loads(self.file.read_text())
        return world

    def write(self, world: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(world))


@pytest.fixture
def world(server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "kubectl").write_text(KUBECTL)
    (tools / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, SOURCES)))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    world = World(tmp_path, server)
    monkeypatch.setenv("WORLD", str(world.file))
    return world


@pytest.fixture
def command(tmp_path: Path, world: World) -> CommandLine:
    return CommandLine(tmp_path)


def test_every_target_is_listed_with_its_file(command: CommandLine, world: World) -> None:
    done = command("get", "shapes", "-n", "team", "--context", "ctx", "--kubeconfig", "k")
    digest = hashlib.sha256(CONTENT).hexdigest()[:12]
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.splitlines()[1].split() == f"ONNX/FP16 Succeeded fp16 3.00 {digest} cosine 0.9999 >= 0.999".split()
    )
    assert "ONNX/INT8  Failed (VerificationFailed)" in done.stdout
    assert f"s3://exports/{KEY}" in done.stdout
    assert world.read()["calls"][0][:3] == ["--kubeconfig=k", "--context=ctx", "--namespace=team"]
    listed = json.loads(command("get", "shapes", "-o", "json").stdout)
    assert listed[0]["artifact"]["size_bytes"] == len(CONTENT)
    assert listed[1]["message"] == "cosine 0.91 is below 0.95"


@pytest.mark.parametrize("target", ["ONNX/FP16", "fp16/onnx"])
def test_without_credentials_a_pod_of_the_namespace_signs_and_goes(
    command: CommandLine, world: World, tmp_path: Path, target: str
) -> None:
    done = command("download", "shapes", "--target", target, "--output", "models")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/shapes-fp16.onnx").read_bytes() == CONTENT
    after = world.read()
    (pod,) = after["pods"].values()
    assert after["deleted"] == [pod["metadata"]["name"]]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "MODELEXPORT_REQUEST" not in json.dumps(pod)
    assert SECRET_KEY not in json.dumps(pod) + after["log"] + done.stdout + done.stderr
    again = command("download", "shapes", "--output", "models")
    assert "is there already" in again.stdout


def test_with_credentials_no_pod_is_made_and_another_endpoint_can_be_named(
    command: CommandLine, world: World, tmp_path: Path, server: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)):
        monkeypatch.setenv(name, value)
    before = world.read()
    world.write({**before, "jobs": []})
    unknown = command("download", "shapes")
    assert unknown.returncode == 2
    assert "give its URL by --endpoint" in unknown.stderr
    done = command("download", "shapes", "--endpoint", f"http://{server.address}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shapes-fp16.onnx").read_bytes() == CONTENT
    assert world.read()["pods"] == {}


def test_a_download_goes_on_and_a_replaced_object_is_refused(
    command: CommandLine, tmp_path: Path, server: MinioServer
) -> None:
    part = tmp_path / "shapes-fp16.onnx.part"
    part.write_bytes(CONTENT[: 1 << 20])
    assert command("download", "shapes").returncode == 0
    assert (tmp_path / "shapes-fp16.onnx").read_bytes() == CONTENT
    other = command("download", "shapes", "--output", str(tmp_path))
    assert other.returncode == 0
    (tmp_path / "shapes-fp16.onnx").write_bytes(b"mine")
    kept = command("download", "shapes")
    assert kept.returncode == 1
    assert "is there and is another file; move it away" in kept.stderr
    assert (tmp_path / "shapes-fp16.onnx").read_bytes() == b"mine"
    (tmp_path / "content").write_bytes(CONTENT[::-1])
    open_store(server.environ).upload(tmp_path / "content", f"s3://exports/{KEY}", {})
    replaced = command("download", "shapes", "--output", "fresh")
    assert replaced.returncode == 1
    assert "it was replaced or damaged" in replaced.stderr
    assert list((tmp_path / "fresh").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], '"nothing" not found'),
        (["shapes", "--target", "ONNX/INT8"], "ONNX/INT8 is not published: Failed (VerificationFailed): cosine 0.91"),
        (["shapes", "--target", "CoreML/FP16"], "no target of this export; it has ONNX/FP16, ONNX/INT8"),
        (["shapes", "--endpoint", "minio:9000"], "--endpoint: 'minio:9000' is no URL"),
        (["shapes", "--ca-file", "nothing.crt"], "--ca-file: nothing.crt cannot be read as certificates"),
        (["shapes", "--store", "nowhere"], "holds no report of an export"),
    ],
)
def test_bad_input_is_told_with_the_way_out(command: CommandLine, arguments: list[str], words: str) -> None:
    done = command("download", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_the_pod_says_is_told_and_the_pod_goes(command: CommandLine, world: World) -> None:
    before = world.read()
    job = before["jobs"][0]["spec"]["template"]["spec"]["containers"][0]
    job["env"] = [entry for entry in job["env"] if "valueFrom" not in entry]
    world.write(before)
    done = command("download", "shapes")
    assert done.returncode == 2
    assert "could not sign links: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set" in done.stderr
    assert len(world.read()["deleted"]) == 1


def test_what_a_local_run_published_is_listed_and_copied(command: CommandLine, tmp_path: Path) -> None:
    for age, scheme in enumerate(("old", "fp16")):
        folder = tmp_path / f"store/exports/default/shapes/onnx-fp16-{age}"
        folder.mkdir(parents=True)
        (folder / "shapes-fp16.onnx").write_bytes(CONTENT)
        uri = f"s3://exports/default/shapes/onnx-fp16-{age}/shapes-fp16.onnx"
        artifact = {"uri": uri, "sha256": hashlib.sha256(CONTENT).hexdigest(), "sizeBytes": len(CONTENT)}
        verification = {"metric": "agreement", "value": "0.99", "threshold": "0.9", "reference": "Rebuilt"}
        verification |= {"assumptions": ["activation SiLU"], "warnings": ["it looks wrong"]}
        request = {"target": {"format": "ONNX", "precision": "FP16"}}
        report = {"request": request, "scheme": scheme, "artifact": artifact, "verification": verification}
        (folder / "report.json").write_text(json.dumps(report))
        os.utime(folder / "report.json", (age, age))
    listed = command("get", "shapes", "--store", "store")
    assert "ONNX/FP16  Succeeded  fp16    3.00" in listed.stdout
    assert "agreement 0.99 >= 0.9  Rebuilt" in listed.stdout
    assert "ONNX/FP16: compared with a rebuilt network; assumed: activation SiLU\n" in listed.stdout
    assert "ONNX/FP16: warning: it looks wrong\n" in listed.stdout
    done = command("download", "shapes", "--store", "store", "--output", "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here/shapes-fp16.onnx").read_bytes() == CONTENT


def test_a_job_that_only_looks_like_the_exports_is_not_believed(command: CommandLine, world: World) -> None:
    before = world.read()
    job = before["jobs"][0]
    forged = {**job, "metadata": {**job["metadata"], "ownerReferences": []}}
    world.write({**before, "jobs": [forged]})
    done = command("download", "shapes")
    assert done.returncode == 2
    assert "no Job of the export is left to tell where its store is; give its URL by --endpoint" in done.stderr
    assert world.read()["pods"] == {}
    container = forged["spec"]["template"]["spec"]["containers"][0]
    evil = json.loads(json.dumps(forged))
    evil["spec"]["template"]["spec"]["containers"] = [{**container, "image": "evil"}]
    world.write({**before, "jobs": [evil, job]})
    assert command("download", "shapes").returncode == 0
    (pod,) = world.read()["pods"].values()
    assert pod["spec"]["containers"][0]["image"] == container["image"]
