"""The Job that tells where files are, the Pod that signs links to them, and the links that it may give."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelexport.cli.documents import BadInput
from modelexport.cli.download import file_name
from modelexport.cli.links import Signer, is_job_of, signing_pod
from unit.operator.objects import build_all, make_class, make_export

ENDPOINT = "http://minio.storage.svc:9000"
URI = "s3://exports/team/shapes/a b.onnx"
LINK = f"{ENDPOINT}/exports/team/shapes/a%20b.onnx?X-Amz-Signature=secret"


def build_job(**converter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    export = make_export("ONNX/FP16")
    job = build_all(export, make_class(converter={"image": "c:1", **converter}))["ONNX/FP16"]
    export["status"] = {"targets": [{"jobName": job["metadata"]["name"]}, {"state": "Pending"}]}
    return export, job


def build_signing_pod(**converter: Any) -> dict[str, Any]:
    return signing_pod(*build_job(**converter), [URI], ENDPOINT)


@dataclass
class FakeKubectl:
    """Has Jobs and runs Pods that say what a test wants."""

    jobs: list[dict[str, Any]]
    log: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def read(self, *arguments: str) -> dict[str, Any]:
        return {"items": self.jobs} if arguments[0] == "jobs.batch" else {"status": {"phase": "Succeeded"}}

    def run(self, *arguments: str, text: str = "") -> str:
        if arguments[0] == "create":
            self.made.append(json.loads(text))
        if arguments[0] == "delete":
            self.deleted.append(arguments[2])
        return self.log if arguments[0] == "logs" else ""


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


def sign(log: str, *jobs: dict[str, Any]) -> tuple[Any, FakeKubectl]:
    export, job = build_job()
    kubectl = FakeKubectl(list(jobs) or [job], log)
    return Signer(kubectl, export, None).sign([URI]), kubectl  # type: ignore[arg-type]


def event(uri: str, url: str) -> str:
    return json.dumps({"event": "signed", "uri": uri, "url": url}) + "\n"


def test_the_pod_that_signs_pulls_its_image_with_the_secrets_of_the_class() -> None:
    pod = build_signing_pod(imagePullSecrets=[{"name": "registry"}])
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_the_pod_that_signs_takes_no_right_from_the_job() -> None:
    export, job = build_job()
    template = job["spec"]["template"]["spec"]
    safe = signing_pod(export, job, [URI], ENDPOINT)["spec"]
    template |= {
        "serviceAccountName": "admin",
        "automountServiceAccountToken": True,
        "hostNetwork": True,
        "hostPID": True,
        "securityContext": {"runAsUser": 0},
        "initContainers": [{"name": "evil", "image": "evil"}],
    }
    template["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    container = template["containers"][0]
    container |= {"command": ["sh"], "securityContext": {"privileged": True}, "lifecycle": {"preStop": {}}}
    container["volumeMounts"].append({"name": "host", "mountPath": "/host"})
    container["env"].append({"name": "LD_PRELOAD", "value": "/host/evil.so"})
    template["containers"].append({"name": "beside", "image": "evil"})
    assert signing_pod(export, job, [URI], ENDPOINT)["spec"] == safe
    assert safe["automountServiceAccountToken"] is False
    assert safe["securityContext"]["runAsNonRoot"] is True


def test_a_link_of_the_pod_is_used_and_the_pod_goes() -> None:
    links, kubectl = sign("a library prints\n" + event(URI, LINK))
    assert links == {URI: LINK}
    assert kubectl.deleted == [kubectl.made[0]["metadata"]["name"]]


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example/exports/team/shapes/a%20b.onnx?X-Amz-Signature=a",
        "http://minio.storage.svc:9000@evil.example/exports/team/shapes/a%20b.onnx?a",
        "http://minio.storage.svc:9000.evil.example/exports/team/shapes/a%20b.onnx?a",
        "https://minio.storage.svc:9000/exports/team/shapes/a%20b.onnx?a",
        f"{ENDPOINT}/exports/team/other/a%20b.onnx?a",
        f"{ENDPOINT}/exports/team/shapes/../other/a%20b.onnx?a",
        f"{ENDPOINT}/?a",
        "file:///etc/passwd",
        "-o/etc/cron.d/evil",
        "",
    ],
)
def test_a_link_to_another_place_is_not_used(url: str) -> None:
    with pytest.raises(BadInput, match=r"signed no link for s3://exports/team/shapes/a b\.onnx"):
        sign(event(URI, url))


@pytest.mark.parametrize(
    "log", ["", "{}\n", '{"event": "signed"}\n', "[" * 100_000, '{"event": "signed", "uri": {}}\n']
)
def test_a_log_without_links_is_told(log: str) -> None:
    with pytest.raises(BadInput, match="signed no link for"):
        sign(log)


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no owner": lambda job: job["metadata"].pop("ownerReferences"),
    "another export": lambda job: job["metadata"]["ownerReferences"][0].update(uid="uid-2"),
    "an owner that does not control it": lambda job: job["metadata"]["ownerReferences"][0].update(controller=False),
    "an owner that says nothing of control": lambda job: job["metadata"]["ownerReferences"][0].pop("controller"),
    "an owner of another kind": lambda job: job["metadata"]["ownerReferences"][0].update(kind="CronJob"),
    "a name that the status does not have": lambda job: job["metadata"].update(name="shapes-evil"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_job_is_not_believed(forgery: str) -> None:
    export, job = build_job()
    assert is_job_of(job, export)
    FORGERIES[forgery](job)
    assert not is_job_of(job, export)
    with pytest.raises(BadInput, match="no Job of the export is left to tell where its store is"):
        sign(event(URI, LINK), job)


def test_a_job_of_an_export_without_a_status_is_not_believed() -> None:
    export, job = build_job()
    del export["status"]
    assert not is_job_of(job, export)


@pytest.mark.parametrize(
    "endpoint", ["file:///etc", "http://user:pw@minio", "http://minio/path", "http://a b", "minio"]
)
def test_an_endpoint_that_is_none_is_not_used(endpoint: str) -> None:
    export, job = build_job()
    for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        if entry["name"] == "MODELEXPORT_STORE":
            entry["value"] = endpoint
    with pytest.raises(BadInput, match=r"is no URL of a store, .*; give it by --endpoint"):
        Signer(FakeKubectl([job]), export, None).sign([URI])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "..", "a\\b", "a\0", "a\x1b[2J", "\u202etp.a", "a\nb", "a\u200b"])
def test_a_file_gets_no_name_that_harms(name: str) -> None:
    with pytest.raises(BadInput, match="names no file"):
        file_name(f"s3://exports/{name}")
