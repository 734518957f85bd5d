import json
import re
from typing import Any

import pytest

from modelexport import names
from modelexport.api.node_pools import NodePool
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import Storage
from modelexport.environment import escape, unescape
from modelexport.matrix.measured import FullSize, Measured, Numbers
from modelexport.matrix.support import ARCHITECTURES, TARGETS
from modelexport_operator.jobs.conversion_job import request_of, storage_of
from testplane.objects import Body, build_all, make_class, make_export

STEPS = ("fetch", "convert", "publish")
TOKEN = "X-Amz-Signature=0123456789abcdef"
ALL = [str(target) for target in TARGETS if not ARCHITECTURES["YOLOv8"].is_extended(target)]
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def names_of(**changes: str) -> list[str]:
    return [job["metadata"]["name"] for job in build_all(make_export(*ALL, **changes), make_class()).values()]


@pytest.mark.parametrize("name", ["a", "shapes", "x" * 63, "with.dots.in.it", "x" * 39 + "-" + "y" * 20])
def test_job_name_is_valid_label_for_any_export_name(name: str) -> None:
    assert all(LABEL.fullmatch(job) for job in names_of(name=name))


def test_names_are_stable_per_object_and_unique_between_objects() -> None:
    assert names_of() == names_of()
    assert not set(names_of()) & set(names_of(uid="uid-2"))
    assert len(set(names_of())) == len(ALL)


def test_names_do_not_depend_on_class() -> None:
    moved = make_class(storage={"endpoint": "http://other:9000", "bucket": "other"})
    export = make_export(*ALL)
    assert [j["metadata"]["name"] for j in build_all(export, moved).values()] == names_of()


def test_names_do_not_depend_on_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = names_of()
    monkeypatch.setattr("modelexport.planning.plan.spec_hash", lambda *_: "another00")
    assert names_of() == before


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        *[(f"{fmt}/FP32", ["amd64"]) for fmt in ("LiteRT", "CoreML")],
        *[(f"{fmt}/FP32", ["amd64", "arm64"]) for fmt in ("ONNX", "PyTorch", "TensorFlow", "ExecuTorch")],
    ],
)
def test_job_is_scheduled_only_where_converter_can_run(target: str, expected: list[str]) -> None:
    pod = build_all(make_export(target, supportLevel="Extended"), make_class())[target]["spec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == expected


def test_store_and_request_are_read_back_from_job() -> None:
    storage = {
        "endpoint": "https://old",
        "bucket": "old",
        "caSecretName": "ca",
        "region": "eu",
        "credentialsSecretName": "key",
    }
    job = build_all(make_export("CoreML/INT8"), make_class(storage=storage))["CoreML/INT8"]
    moved = Storage("https://new", "c", region="us", credentials_secret="other")
    assert storage_of(job, moved) == Storage("https://old", "c", region="eu", credentials_secret="key", ca_secret="ca")
    request = request_of(job)
    assert request is not None
    assert request.output.startswith("s3://old/team/shapes/coreml-int8-")


def test_foreign_job_has_no_store_and_no_request() -> None:
    moved = Storage("https://new", "c")
    for spec in ({}, {"template": {"spec": {"containers": [{"name": "converter"}, {"name": "proxy", "env": [{}]}]}}}):
        job: Body = {"spec": spec}
        assert storage_of(job, moved) == moved
        assert request_of(job) is None


def test_only_publish_learns_of_reports_of_all_targets() -> None:
    jobs = build_all(make_export("ONNX/FP16", "ONNX/INT8"), make_class())
    outputs = {target: request.output for target, job in jobs.items() if (request := request_of(job))}
    job = jobs["ONNX/INT8"]
    expected = {target: f"{output}report.json" for target, output in outputs.items()}
    assert json.loads(environment_of(job, "publish")[names.REPORTS_ENV]) == expected
    assert all(names.REPORTS_ENV not in environment_of(job, step) for step in ("fetch", "convert"))


def test_converter_parses_request_from_environment() -> None:
    job = build_all(make_export("CoreML/INT8"), make_class())["CoreML/INT8"]
    for name in STEPS:
        request = ConversionRequest.from_json(environment_of(job, name)[names.REQUEST_ENV])
        assert str(request.target) == "CoreML/INT8"
        assert request.output.startswith("s3://exports/team-a/team/shapes/coreml-int8-")
    assert environment_of(job, "fetch")[names.STORE_ENV] == "http://minio.storage.svc:9000"


def test_job_contains_no_secret_value_and_no_token() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    entries = [entry for container in all_containers(job) for entry in container["env"]]
    secrets = [entry for entry in entries if entry["name"].startswith("AWS_") and "value" in entry]
    assert {entry["name"] for entry in secrets} == {names.REGION_ENV}


def test_convert_container_knows_only_its_request() -> None:
    storage = {"endpoint": "https://minio:9000", "bucket": "old", "credentialsSecretName": "key", "caSecretName": "ca"}
    images = {"uri": f"https://data.example/a.zip?{TOKEN}", "sha256": "0" * 64}
    export = make_export("ONNX/INT8", calibration={"dataset": images})
    checkpoint = {"uri": f"https://models.example/a.pt?{TOKEN}", "sha256": "0" * 64}
    export["spec"]["model"]["checkpoint"] = checkpoint
    sources = ["https://models.example/", "https://data.example/"]
    job = build_all(export, make_class(storage=storage, sources=sources))["ONNX/INT8"]
    convert = container_of(job, "convert")
    text = json.dumps(convert)
    assert set(environment_of(job, "convert")) == {
        names.REQUEST_ENV,
        names.JOB_ENV,
        names.DEADLINE_ENV,
        names.INPUTS_ENV,
        names.OUTPUTS_ENV,
        names.WORK_DIR_ENV,
        "HOME",
    }
    for secret in ("secretKeyRef", "valueFrom", "minio:9000", TOKEN, "AWS_", "envFrom"):
        assert secret not in text
    assert {(mount["name"], mount["subPath"], mount.get("readOnly", False)) for mount in convert["volumeMounts"]} == {
        ("work", "inputs", True),
        ("work", "outputs", False),
        ("work", "scratch-convert", False),
    }


@pytest.mark.parametrize(
    ("deadline", "fetch", "publish"), [(7200, "120", "900"), (1200, "120", "300"), (100, "25", "25")]
)
def test_containers_wait_for_store_within_deadline(deadline: int, fetch: str, publish: str) -> None:
    export_class = make_class(jobs={"deadlineSeconds": deadline})
    job = build_all(make_export("ONNX/FP32"), export_class)["ONNX/FP32"]
    found = {step: environment_of(job, step).get(names.STORE_TIMEOUT_ENV) for step in STEPS}
    assert found == {names.FETCH: fetch, names.CONVERT: None, names.PUBLISH: publish}


def test_no_container_writes_input_of_trusted_one() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]
    writers: dict[str, list[str]] = {}
    for container in all_containers(job):
        for mount in container["volumeMounts"]:
            if not mount.get("readOnly"):
                writers.setdefault(mount["subPath"], []).append(container["name"])
    assert writers == {
        "inputs": ["fetch"],
        "outputs": ["convert"],
        **{f"scratch-{step}": [step] for step in STEPS},
    }
    assert {environment_of(job, step)["HOME"] for step in STEPS} == {"/work/scratch"}


def test_only_convert_container_requests_large_resources() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class(), make_pool(memory="6Gi", **{"a.b/gpu": 2}))["ONNX/FP16"]
    for step in ("fetch", "publish"):
        resources = container_of(job, step)["resources"]
        assert resources["requests"] == {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "64Mi"}
        assert resources["limits"] == {"memory": "256Mi", "ephemeral-storage": "64Mi"}


def test_permanent_exit_of_each_container_fails_job() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]
    *fatal, disrupted = job["spec"]["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule["onExitCodes"]["containerName"]) for rule in fatal] == [
        ("FailJob", step) for step in STEPS
    ]
    assert (disrupted["action"], [container["name"] for container in all_containers(job)]) == ("Ignore", list(STEPS))


DOLLARS = "https://a.example/$(AWS_SECRET_ACCESS_KEY)/$$(HOME)/$HOME/$$/a$.pt"


def test_dollar_is_escaped_and_read_back() -> None:
    export = make_export("ONNX/FP16")
    export["spec"]["model"]["checkpoint"] = {"uri": DOLLARS, "sha256": "0" * 64}
    storage = {"endpoint": "http://$(HOME):9000", "bucket": "old", "region": "$$", "credentialsSecretName": "key"}
    job = build_all(export, make_class(storage=storage))["ONNX/FP16"]
    for step in STEPS:
        uri = ConversionRequest.from_json(environment_of(job, step)[names.REQUEST_ENV]).model.checkpoint.uri
        assert expand_as_kubernetes(uri) == DOLLARS
    assert "$(" not in json.dumps(job).replace("$$", "")
    read = storage_of(job, Storage("http://new", "b"))
    assert (read.endpoint, read.region) == ("http://$(HOME):9000", "$$")
    request = request_of(job)
    assert request is not None
    assert request.model.checkpoint.uri == DOLLARS


def test_kubernetes_expansion_gives_original_value() -> None:
    for value in ("", "$", "$$", "$(A)", "$$(A)", "a$", "$(", "$()", "$$$(A)$"):
        assert expand_as_kubernetes(escape(value)) == value
        assert unescape(escape(value)) == value


def test_class_without_credentials_needs_no_secret() -> None:
    bare = make_class(storage={"endpoint": "http://minio:9000", "bucket": "exports"})
    assert "secretKeyRef" not in json.dumps(build_all(make_export("ONNX/FP16"), bare))


def test_memory_is_measured_up_to_limit_and_disk_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = FullSize("fp16", (640, 640), 1.0, 100, 9.0, {}, 700.0, 1.0, 1)
    run = Measured(cells={"YOLOv8 ONNX/FP16": Numbers(full_size=full)})
    monkeypatch.setattr("modelexport.matrix.support.measurements", lambda: run)
    jobs = build_all(make_export("ONNX/FP16", "ONNX/INT8"), make_class())
    measured, unknown = (container_of(job, "convert")["resources"] for job in jobs.values())
    disk = {"ephemeral-storage": "4096Mi"}
    assert measured["requests"] == {"cpu": "1000m", "memory": "1024Mi", **disk}
    assert unknown["requests"] == {"cpu": "1000m", "memory": "3072Mi", **disk}
    assert measured["limits"] == unknown["limits"] == {"memory": "4096Mi", **disk}


def test_pool_raises_memory_and_disk_and_replaces_cpu() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class(), make_pool(memory="6Gi", cpu="250m", **{"a.b/gpu": 2}))
    resources = container_of(job["ONNX/FP16"], "convert")["resources"]
    assert resources["requests"] == {"cpu": "250m", "memory": "6Gi", "ephemeral-storage": "4096Mi", "a.b/gpu": "2"}
    assert resources["limits"] == {"memory": "6Gi", "ephemeral-storage": "4096Mi", "a.b/gpu": "2"}


def test_pool_below_cell_needs_changes_only_cpu() -> None:
    small = make_pool(memory="1Gi", **{"ephemeral-storage": "1Gi"})
    bare, pooled = (build_all(make_export("ONNX/FP16"), make_class(), pool)["ONNX/FP16"] for pool in (None, small))
    assert bare["spec"]["template"]["spec"]["initContainers"] == pooled["spec"]["template"]["spec"]["initContainers"]


def test_scratch_volume_may_fill_pool_disk() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class(), make_pool(**{"ephemeral-storage": "20Gi"}))["ONNX/FP16"]
    assert job["spec"]["template"]["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "20Gi"}


def test_pool_labels_are_added_to_class_labels() -> None:
    converter = {"image": "c:1", "nodeSelector": {"zone": "a", "disk": "hdd"}}
    pool = NodePool("fast", node_selector={"disk": "ssd"})
    job = build_all(make_export("ONNX/FP16"), make_class(converter=converter), pool)["ONNX/FP16"]
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a", "disk": "ssd"}
    assert job["metadata"]["labels"][names.NODE_POOL_LABEL] == "fast"


def test_only_job_has_queue_label() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class(jobs={"queueName": "exports"}))["ONNX/FP16"]
    assert job["metadata"]["labels"][names.QUEUE_LABEL] == "exports"
    assert names.QUEUE_LABEL not in job["spec"]["template"]["metadata"]["labels"]
    assert names.WORKLOAD_PRIORITY_LABEL not in job["metadata"]["labels"]


def test_workload_priority_class_is_job_label() -> None:
    sharing = {"queueName": "exports", "workloadPriorityClassName": "soon"}
    job = build_all(make_export("ONNX/FP16"), make_class(jobs=sharing))["ONNX/FP16"]
    assert job["metadata"]["labels"][names.WORKLOAD_PRIORITY_LABEL] == "soon"
    assert "priorityClassName" not in job["spec"]["template"]["spec"]


def expand_as_kubernetes(value: str) -> str:
    """A variable as containers receive it (kubernetes, third_party/forked/golang/expansion); references are SECRET."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "SECRET", value)


def all_containers(job: Body) -> list[Body]:
    pod = job["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def container_of(job: Body, name: str) -> Body:
    return next(container for container in all_containers(job) if container["name"] == name)


def environment_of(job: Body, name: str) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container_of(job, name)["env"]}


def make_pool(**resources: object) -> NodePool:
    return NodePool("pool", resources={name: str(amount) for name, amount in resources.items()})


def test_class_networks_reach_conversions_only_when_set() -> None:
    def told(**spec: Any) -> list[str]:
        job = build_all(make_export(), make_class(**spec))["ONNX/FP16"]
        entries = json.dumps(job["spec"]["template"]["spec"])
        return re.findall(r'"MODELEXPORT_HTTPS_NETWORKS", "value": "([^"]*)"', entries)

    assert told() == told(https={}) == told(https={"allowedNetworks": []}) == []
    assert set(told(https={"allowedNetworks": ["10.0.0.0/8", "fd00::/8"]})) == {"10.0.0.0/8 fd00::/8"}
