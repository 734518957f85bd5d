"""``spec.evaluation`` on a real API server: a target that lost accuracy, refused or published, and what tells of it."""

import re
from functools import partial
from typing import cast

import pytest

from integration.kubelet import End, fail, play_kubelet, refuse, run, succeed
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Accuracy
from modelexport_operator.jobs.conversion_job import request_of
from modelexport_operator.kube.objects import Job
from testplane.api import EVENTS, EXPORTS, JOBS, Api, ApiError, Body
from testplane.control_plane import ControlPlane
from testplane.objects import make_export, result_text
from testplane.process import Operator

pytestmark = pytest.mark.usefixtures("operator")

LOST = Accuracy("mAP50-95", "0.812", "0.77", "0.042", "0.01", 512, ("0.03", "0.054"))
KEPT = Accuracy("mAP50-95", "0.812", "0.811", "0.001", "0.002", 512, ("-0.003", "0.005"))
REFUSED = fail(65, result_text("AccuracyLost", f"the file loses more: {LOST.describe()}", accuracy=LOST.to_dict()))
PUBLISHED = partial(succeed, answer=result_text(accuracy=LOST.to_dict()))
PUBLISHED_KEPT = partial(succeed, answer=result_text(accuracy=KEPT.to_dict()))


def order(api: Api, **evaluation: object) -> Body:
    given = {"dataset": {"uri": "s3://datasets/val.zip"}, "samples": 512, **evaluation}
    body = make_export("ONNX/FP16", "ONNX/INT8", evaluation=given)
    body["metadata"] = {"name": "shapes"}
    body["spec"]["targets"][0]["maxDrop"] = "0.002"
    return api.create(EXPORTS, body)


def conditions(api: Api) -> dict[str, tuple[str, str]]:
    found = api.get(EXPORTS, "shapes")["status"]["conditions"]
    return {one["type"]: (one["status"], one["message"]) for one in found}


def drops(operator: Operator, precision: str) -> tuple[float, float]:
    """How many targets of this module were evaluated, and the sum of what they lost."""
    labels = f'{{format="ONNX",precision="{precision}"}}'
    text = operator.ask("/metrics")[1]
    numbers = (
        re.search(rf"^modelexport_target_accuracy_drop_{end}{re.escape(labels)} (\S+)$", text, re.M)
        for end in ("count", "sum")
    )
    count, total = (float(found[1]) if found else 0.0 for found in numbers)
    return count, total


def test_refused_target_tells_drop_and_interval(api: Api, operator: Operator) -> None:
    before = drops(operator, "INT8")
    order(api)
    ends: dict[str, list[End]] = {"ONNX/FP16": [PUBLISHED_KEPT], "ONNX/INT8": [REFUSED]}
    with play_kubelet(api, ends):
        api.wait_for_reason("TargetsFailed")
    target = api.targets()["ONNX/INT8"]
    assert (target["state"], target["reason"], target["attempts"]) == ("Failed", "AccuracyLost", 1)
    assert target["accuracy"] == LOST.to_dict()
    assert "artifact" not in target
    assert "a drop of 0.042 (95 % interval 0.03 to 0.054, 512 images) with 0.01 allowed" in target["message"]
    assert api.targets()["ONNX/FP16"]["accuracy"] == KEPT.to_dict()
    status, message = conditions(api)["AccuracyKept"]
    assert (status, message.startswith("ONNX/INT8: mAP50-95 0.812 -> 0.77")) == ("False", True)
    api.wait_for_event("AccuracyLost")
    api.wait_for("the drop to be counted", lambda: drops(operator, "INT8")[0] == before[0] + 1)
    assert drops(operator, "INT8")[1] - before[1] == pytest.approx(0.042)


def test_published_loss_is_condition_event_and_metric(api: Api, plane: ControlPlane, operator: Operator) -> None:
    before = drops(operator, "INT8")
    order(api, onDrop="Publish")
    with play_kubelet(api, {"ONNX/FP16": [PUBLISHED_KEPT], "ONNX/INT8": [PUBLISHED]}):
        wait = ("wait", "mx/shapes", f"--namespace={api.namespace}", "--timeout=60s")
        plane.kubectl(*wait, "--for=condition=Ready")
        plane.kubectl(*wait, "--for=condition=AccuracyKept=False")
    status = api.get(EXPORTS, "shapes")["status"]
    assert (status["ready"], {one["state"] for one in status["targets"]}) == ("2/2", {"Succeeded"})
    assert api.targets()["ONNX/INT8"]["accuracy"] == LOST.to_dict()
    assert status["pageURI"] == api.targets()["ONNX/INT8"]["reportURI"].rsplit("/", 2)[0] + "/report.html"
    api.wait_for_event("AccuracyLost")
    (event,) = [one for one in api.list(EVENTS) if one["reason"] == "AccuracyLost"]
    assert event["type"] == "Warning"
    assert event["message"].startswith("ONNX/INT8: published, and mAP50-95 0.812 -> 0.77")
    api.wait_for("the drop to be counted", lambda: drops(operator, "INT8")[0] == before[0] + 1)
    line = plane.kubectl("get", "mx", "--output=wide", f"--namespace={api.namespace}").splitlines()[1]
    assert re.search(r"\bFalse\b", line)


def test_jobs_get_evaluation_with_drop_of_their_target(api: Api) -> None:
    order(api, labels="COCO")
    with play_kubelet(api):
        api.wait_for("both Jobs", lambda: len(api.list(JOBS)) == 2)
    requests: list[ConversionRequest] = [found for job in api.list(JOBS) if (found := request_of(cast(Job, job)))]
    asked = {str(one.target): one.evaluation for one in requests}
    drop = {target: evaluation and evaluation.max_drop for target, evaluation in asked.items()}
    assert drop == {"ONNX/FP16": 0.002, "ONNX/INT8": 0.01}
    assert {one.dataset.uri for one in asked.values() if one} == {"s3://datasets/val.zip"}


NINE = [f"{fmt}/{precision}" for fmt in ("LiteRT", "ONNX", "CoreML") for precision in ("FP32", "FP16", "INT8")]


def order_nine(api: Api) -> str:
    """Order nine targets, let the one that starts run, and return it."""
    body = make_export(*NINE, evaluation={"dataset": {"uri": "s3://datasets/val.zip"}, "samples": 5000})
    api.create(EXPORTS, {**body, "metadata": {"name": "shapes"}})
    with play_kubelet(api, run):
        api.wait_for("one to run", lambda: in_state(api, "Running"))
    (first,) = in_state(api, "Running")
    return first


def in_state(api: Api, state: str) -> list[str]:
    return [target for target, one in api.targets().items() if one["state"] == state]


@pytest.mark.parametrize("end", [succeed, refuse(), fail(70)], ids=["published", "refused", "crashed"])
def test_eight_targets_start_when_first_one_has_ended(api: Api, end: End) -> None:
    first = order_nine(api)
    [job] = api.list(JOBS)
    waiting = [one for target, one in api.targets().items() if target != first]
    assert {(one["state"], one["reason"]) for one in waiting} == {("Pending", "WaitForEvaluation")}
    assert {one["message"].partition(" has evaluated")[0] for one in waiting} == {f"Waits until {first}"}
    with play_kubelet(api, {target: [end if target == first else run] for target in NINE}):
        api.wait_for("all others to run", lambda: len(in_state(api, "Running")) == 8)
    assert in_state(api, "Succeeded" if end is succeed else "Failed") == [first]
    jobs = {one["metadata"]["name"]: one for one in api.list(JOBS)}
    ended = jobs.pop(job["metadata"]["name"])["status"]["conditions"][-1]["lastTransitionTime"]
    assert len(jobs) == 8
    assert min(one["metadata"]["creationTimestamp"] for one in jobs.values()) >= ended


def test_restarted_operator_keeps_others_waiting(api: Api, operator: Operator) -> None:
    first = order_nine(api)
    operator.kill()
    operator.start()
    api.patch(f"{EXPORTS}/shapes", {"spec": {"ttlSecondsAfterFinished": 9999}})
    api.wait_for("the new generation", lambda: api.ready().get("observedGeneration") == 2)
    assert (len(api.list(JOBS)), in_state(api, "Running")) == (1, [first])
    operator.kill()
    with play_kubelet(api, {target: [succeed if target == first else run] for target in NINE}):
        api.wait_for("its end", lambda: api.list(JOBS)[0]["status"].get("completionTime"))
        operator.start()
        api.wait_for("all others to run", lambda: len(in_state(api, "Running")) == 8)


@pytest.mark.parametrize(
    "wrong", [{"maxDrop": "1.5"}, {"maxDrop": 0.01}, {"onDrop": "Ignore"}, {"samples": 0}, {"labels": "Excel"}], ids=str
)
def test_api_server_refuses_evaluation_that_cannot_be(api: Api, wrong: dict[str, object]) -> None:
    with pytest.raises(ApiError, match=f"spec.evaluation.{next(iter(wrong))}"):
        order(api, **wrong)
