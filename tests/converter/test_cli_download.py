"""``modelexport get`` and ``download`` as a user runs them: real S3 servers and the converter's own links.

kubectl and the kubelet are played by a script that keeps its objects in a file and runs Pods as processes.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import SOURCES, CommandLine
from modelexport_converter.stores.opening import open_store
from report_pages import detections, make_report
from s3_servers import ACCESS_KEY, SECRET_KEY, S3Server
from testplane.objects import make_class, make_export, make_job

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


class World:
    """A cluster in a file, beside a real store."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.file, self.server, self.folder = folder / "world.json", server, folder
        export = make_export("ONNX/FP16", "ONNX/INT8")
        uri = f"s3://exports/{KEY}"
        (folder / "content").write_bytes(CONTENT)
        open_store(server.environ).upload(folder / "content", uri, {})
        artifact = {"uri": uri, "sha256": hashlib.sha256(CONTENT).hexdigest(), "sizeBytes": len(CONTENT)}
        fp16: dict[str, Any] = {
            "format": "ONNX",
            "precision": "FP16",
            "state": "Succeeded",
            "reason": "Succeeded",
            "scheme": "fp16",
        }
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

    def publish_report(self, report: dict[str, Any]) -> None:
        """Upload the report of the published target, and name it in the status."""
        uri = f"s3://exports/{KEY.rpartition('/')[0]}/report.json"
        (self.folder / "report").write_text(json.dumps(report), encoding="utf-8")
        open_store(self.server.environ).upload(self.folder / "report", uri, {})
        world = self.read()
        world["exports"]["shapes"]["status"]["targets"][0]["reportURI"] = uri
        self.write(world)


@pytest.fixture
def world(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
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
        done.stdout.splitlines()[1].split()
        == f"ONNX/FP16 Succeeded fp16 3.00 {digest} cosine 0.9999 >= 0.999 -".split()
    )
    assert "ONNX/INT8  Failed (VerificationFailed)" in done.stdout
    assert f"s3://exports/{KEY}" in done.stdout
    assert world.read()["calls"][0][:3] == ["--kubeconfig=k", "--context=ctx", "--namespace=team"]
    listed = json.loads(command("get", "shapes", "-o", "json").stdout)
    assert listed[0]["artifact"]["size_bytes"] == len(CONTENT)
    assert listed[1]["message"] == "cosine 0.91 is below 0.95"


@pytest.mark.parametrize("target", ["ONNX/FP16", "fp16/onnx"])
def test_pod_signs_links_when_user_has_no_credentials(
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
    assert "already downloaded" in again.stdout


def test_user_credentials_need_no_pod_and_allow_other_endpoint(
    command: CommandLine, world: World, tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)):
        monkeypatch.setenv(name, value)
    before = world.read()
    world.write({**before, "jobs": []})
    unknown = command("download", "shapes")
    assert unknown.returncode == 2
    assert "set --endpoint" in unknown.stderr
    done = command("download", "shapes", "--endpoint", f"http://{server.address}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shapes-fp16.onnx").read_bytes() == CONTENT
    assert world.read()["pods"] == {}


def test_download_resumes_and_refuses_replaced_object(command: CommandLine, tmp_path: Path, server: S3Server) -> None:
    part = tmp_path / "shapes-fp16.onnx.part"
    part.write_bytes(CONTENT[: 1 << 20])
    assert command("download", "shapes").returncode == 0
    assert (tmp_path / "shapes-fp16.onnx").read_bytes() == CONTENT
    other = command("download", "shapes", "--output", str(tmp_path))
    assert other.returncode == 0
    (tmp_path / "shapes-fp16.onnx").write_bytes(b"mine")
    kept = command("download", "shapes")
    assert kept.returncode == 1
    assert "exists and is another file; move it, or" in kept.stderr
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
        (["shapes", "--target", "CoreML/FP16"], "is not a target of this export; use one of ONNX/FP16, ONNX/INT8"),
        (["shapes", "--endpoint", "minio:9000"], "--endpoint: 'minio:9000' is not a URL"),
        (["shapes", "--ca-file", "nothing.crt"], "--ca-file: nothing.crt is not a file of certificates"),
        (["shapes", "--store", "nowhere"], "has no reports of this export"),
    ],
)
def test_bad_input_is_reported_with_remedy(command: CommandLine, arguments: list[str], words: str) -> None:
    done = command("download", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_pod_error_is_reported_and_pod_deleted(command: CommandLine, world: World) -> None:
    before = world.read()
    job = before["jobs"][0]["spec"]["template"]["spec"]["containers"][0]
    job["env"] = [entry for entry in job["env"] if "valueFrom" not in entry]
    world.write(before)
    done = command("download", "shapes")
    assert done.returncode == 2
    assert "could not sign links: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set" in done.stderr
    assert len(world.read()["deleted"]) == 1


def test_local_run_files_are_listed_and_copied(command: CommandLine, tmp_path: Path) -> None:
    for age, recipe in enumerate(("old", "fp16")):
        folder = tmp_path / f"store/exports/default/shapes/onnx-fp16-{age}"
        folder.mkdir(parents=True)
        (folder / "shapes-fp16.onnx").write_bytes(CONTENT)
        uri = f"s3://exports/default/shapes/onnx-fp16-{age}/shapes-fp16.onnx"
        artifact = {"uri": uri, "sha256": hashlib.sha256(CONTENT).hexdigest(), "sizeBytes": len(CONTENT)}
        verification: dict[str, Any] = {
            "metric": "agreement",
            "value": "0.99",
            "threshold": "0.9",
            "reference": "Rebuilt",
        }
        verification |= {"assumptions": ["activation SiLU"], "warnings": ["it looks wrong"]}
        request = {"target": {"format": "ONNX", "precision": "FP16"}}
        report = {"request": request, "scheme": recipe, "artifact": artifact, "verification": verification}
        (folder / "report.json").write_text(json.dumps(report))
        os.utime(folder / "report.json", (age, age))
    listed = command("get", "shapes", "--store", "store")
    assert "ONNX/FP16  Succeeded  fp16    3.00" in listed.stdout
    assert "agreement 0.99 >= 0.9  -         Rebuilt" in listed.stdout
    assert "ONNX/FP16: compared with a rebuilt network; assumed: activation SiLU\n" in listed.stdout
    assert "ONNX/FP16: warning: it looks wrong\n" in listed.stdout
    done = command("download", "shapes", "--store", "store", "--output", "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here/shapes-fp16.onnx").read_bytes() == CONTENT


def test_page_is_made_of_reports_in_the_store(command: CommandLine, world: World, tmp_path: Path) -> None:
    report = make_report(detections())
    report["artifact"]["sha256"] = hashlib.sha256(CONTENT).hexdigest()
    world.publish_report(report)
    done = command("report", "shapes", "--output", "page.html")
    assert (done.returncode, done.stdout) == (0, "page.html\n"), done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "Failed (VerificationFailed) cosine 0.91 is below 0.95" in page
    world.publish_report(report | {"samples": 1})
    done = command("report", "shapes", "--output", "page.html")
    assert done.returncode == 2
    assert "samples is not a list of at most 6 items; run the export again" in done.stderr
    world.publish_report(make_report())
    done = command("report", "shapes", "--output", "page.html")
    assert done.returncode == 1
    assert "report.json is the report of another file than ONNX/FP16; export again" in done.stderr


def test_job_not_owned_by_export_is_ignored(command: CommandLine, world: World) -> None:
    before = world.read()
    job = before["jobs"][0]
    forged = {**job, "metadata": {**job["metadata"], "ownerReferences": []}}
    world.write({**before, "jobs": [forged]})
    done = command("download", "shapes")
    assert done.returncode == 2
    assert "the export has no Job left from which to read the URL of the store; set --endpoint" in done.stderr
    assert world.read()["pods"] == {}
    container = forged["spec"]["template"]["spec"]["containers"][0]
    evil = json.loads(json.dumps(forged))
    evil["spec"]["template"]["spec"]["containers"] = [{**container, "image": "evil"}]
    world.write({**before, "jobs": [evil, job]})
    assert command("download", "shapes").returncode == 0
    (pod,) = world.read()["pods"].values()
    assert pod["spec"]["containers"][0]["image"] == container["image"]
