"""The Job that names the files, the Pod that signs links to them, and the links that are accepted from it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelexport.client.downloads import file_name
from modelexport.client.links import Signer, is_job_of, signing_pod
from modelexport.errors import BadInput
from testplane.objects import build_all, make_class, make_export

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
class FakeCluster:
    """Holds Jobs, and runs Pods with the output that a test wants."""

    jobs: list[dict[str, Any]]
    log: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def read_export(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        return self.jobs

    def create_pod(self, pod: dict[str, Any]) -> None:
        self.made.append(pod)

    def read_pod(self, name: str) -> dict[str, Any]:
        return {"status": {"phase": "Succeeded"}}

    def read_log(self, name: str, limit: int) -> str:
        return self.log

    def delete_pod(self, name: str) -> None:
        self.deleted.append(name)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


def sign(log: str, *jobs: dict[str, Any]) -> tuple[Any, FakeCluster]:
    export, job = build_job()
    cluster = FakeCluster(list(jobs) or [job], log)
    return Signer(cluster, export, None).sign([URI]), cluster


def event(uri: str, url: str) -> str:
    return json.dumps({"event": "signed", "uri": uri, "url": url}) + "\n"


def test_signing_pod_uses_image_pull_secrets_of_class() -> None:
    pod = build_signing_pod(imagePullSecrets=[{"name": "registry"}])
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_signing_pod_does_not_inherit_job_rights() -> None:
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


def test_link_from_pod_is_used_and_pod_deleted() -> None:
    links, cluster = sign("a library prints\n" + event(URI, LINK))
    assert links == {URI: LINK}
    assert cluster.deleted == [cluster.made[0]["metadata"]["name"]]


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
def test_link_to_other_host_is_rejected(url: str) -> None:
    with pytest.raises(BadInput, match=r"signed no link for s3://exports/team/shapes/a b\.onnx"):
        sign(event(URI, url))


@pytest.mark.parametrize(
    "log", ["", "{}\n", '{"event": "signed"}\n', "[" * 100_000, '{"event": "signed", "uri": {}}\n']
)
def test_log_without_links_is_reported(log: str) -> None:
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
def test_forged_job_is_ignored(forgery: str) -> None:
    export, job = build_job()
    assert is_job_of(job, export)
    FORGERIES[forgery](job)
    assert not is_job_of(job, export)
    with pytest.raises(BadInput, match="the export has no Job left from which to read the URL of the store"):
        sign(event(URI, LINK), job)


def test_job_of_export_without_status_is_ignored() -> None:
    export, job = build_job()
    del export["status"]
    assert not is_job_of(job, export)


@pytest.mark.parametrize(
    "endpoint", ["file:///etc", "http://user:pw@minio", "http://minio/path", "http://a b", "minio"]
)
def test_invalid_endpoint_is_ignored(endpoint: str) -> None:
    export, job = build_job()
    for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        if entry["name"] == "MODELEXPORT_STORE":
            entry["value"] = endpoint
    with pytest.raises(BadInput, match=r"is not the URL of a store; set --endpoint"):
        Signer(FakeCluster([job]), export, None).sign([URI])


@pytest.mark.parametrize("name", ["", ".", "..", "a\\b", "a\0", "a\x1b[2J", "\u202etp.a", "a\nb", "a\u200b"])
def test_file_name_is_sanitised(name: str) -> None:
    with pytest.raises(BadInput, match="does not end with a valid file name"):
        file_name(f"s3://exports/{name}")
