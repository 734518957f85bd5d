import json
import re

import pytest

from modelexport import names
from modelexport.matrix import TARGETS
from modelexport.measured import FullSize, Measured, Numbers
from modelexport.request import ConversionRequest
from unit.operator.objects import build_all, make_class, make_export

ALL = [str(target) for target in TARGETS]
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def names_of(**changes: str) -> list[str]:
    return [job["metadata"]["name"] for job in build_all(make_export(*ALL, **changes), make_class()).values()]


@pytest.mark.parametrize("name", ["a", "shapes", "x" * 63, "with.dots.in.it", "x" * 39 + "-" + "y" * 20])
def test_a_job_name_is_a_label_whatever_the_export_is_called(name: str) -> None:
    assert all(LABEL.fullmatch(job) for job in names_of(name=name))


def test_the_same_object_always_gives_the_same_names_and_another_object_others() -> None:
    assert names_of() == names_of()
    assert not set(names_of()) & set(names_of(uid="uid-2"))
    assert len(set(names_of())) == len(ALL)


def test_names_do_not_depend_on_the_class_so_that_a_changed_class_starts_nothing_twice() -> None:
    moved = make_class(storage={"endpoint": "http://other:9000", "bucket": "other"})
    export = make_export(*ALL)
    assert [j["metadata"]["name"] for j in build_all(export, moved).values()] == names_of()


def test_names_do_not_depend_on_the_matrix_so_that_two_versions_of_the_operator_start_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = names_of()
    monkeypatch.setattr("modelexport.plan.spec_hash", lambda *_: "another00")
    assert names_of() == before


@pytest.mark.parametrize(("target", "expected"), [("LiteRT/FP32", ["amd64"]), ("ONNX/FP32", ["amd64", "arm64"])])
def test_a_job_goes_only_where_its_converter_can_run(target: str, expected: list[str]) -> None:
    pod = build_all(make_export(target), make_class())[target]["spec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == expected


def test_the_converter_can_read_its_request_from_its_environment() -> None:
    job = build_all(make_export("CoreML/INT8"), make_class())["CoreML/INT8"]
    env = {entry["name"]: entry.get("value") for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    request = ConversionRequest.from_json(env[names.REQUEST_ENV] or "")
    assert str(request.target) == "CoreML/INT8"
    assert request.output.startswith("s3://exports/team-a/team/shapes/coreml-int8-")
    assert env[names.STORE_ENV] == "http://minio.storage.svc:9000"


def test_no_secret_value_and_no_token_enters_a_job() -> None:
    job = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    secrets = [entry for entry in pod["containers"][0]["env"] if entry["name"].startswith("AWS_") and "value" in entry]
    assert [entry["name"] for entry in secrets] == [names.REGION_ENV]


def test_without_credentials_in_the_class_the_job_asks_for_no_secret() -> None:
    bare = make_class(storage={"endpoint": "http://minio:9000", "bucket": "exports"})
    assert "secretKeyRef" not in json.dumps(build_all(make_export("ONNX/FP16"), bare))


def test_memory_is_requested_as_measured_and_may_grow_to_the_limit_and_disk_is_bounded_by_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = FullSize((640, 640), 1.0, 100, 9.0, 700.0, 1.0, 1)
    run = Measured(cells={"YOLOv8 ONNX/FP16": Numbers(full_size=full)})
    monkeypatch.setattr("modelexport.matrix.last_run", lambda: run)
    jobs = build_all(make_export("ONNX/FP16", "ONNX/INT8"), make_class())
    measured, unknown = (job["spec"]["template"]["spec"]["containers"][0]["resources"] for job in jobs.values())
    disk = {"ephemeral-storage": "4096Mi"}
    assert measured["requests"] == {"cpu": "1000m", "memory": "1024Mi", **disk}
    assert unknown["requests"] == {"cpu": "1000m", "memory": "3072Mi", **disk}
    assert measured["limits"] == unknown["limits"] == {"memory": "4096Mi", **disk}
