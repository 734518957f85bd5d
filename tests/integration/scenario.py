"""One scenario for all faults: one target is published, one fails for good. Undisturbed, it takes some 14 writes."""

from integration.kubelet import End, play_kubelet, refuse, succeed
from testplane.api import EXPORTS, JOBS, PODS, Api, Body
from testplane.objects import make_export

STEPS = range(1, 17)
"""The writes at which a fault can strike, and two beyond the last one."""
ENDS: dict[str, list[End]] = {"ONNX/FP16": [succeed], "ONNX/FP32": [refuse()]}


def begin_scenario(api: Api) -> None:
    """Order the two targets."""
    body = make_export(*ENDS)
    body["metadata"] = {"name": "shapes"}
    api.create(EXPORTS, body)


def run_scenario(api: Api) -> None:
    """Run the whole scenario."""
    with play_kubelet(api, ENDS):
        begin_scenario(api)
        api.wait_for_reason("TargetsFailed")


def check_the_end(api: Api) -> None:
    """Check that there is one Job and one Pod per target, and the only correct status."""
    jobs, pods = api.list(JOBS), api.list(PODS)
    assert sorted(job["metadata"]["labels"]["modelexport.dev/precision"] for job in jobs) == ["FP16", "FP32"]
    assert len(pods) == 2
    status = api.get(EXPORTS, "shapes")["status"]
    assert status["ready"] == "1/2"
    assert [condition["status"] for condition in status["conditions"]] == ["False", "False", "True"]
    assert [facts_of(target) for target in status["targets"]] == [
        {
            "state": "Succeeded",
            "reason": "Succeeded",
            "attempts": 1,
            "artifact": "ab" * 32,
            "verification": {"metric": "cosine", "value": "0.999998", "threshold": "0.999"},
        },
        {"state": "Failed", "reason": "VerificationFailed", "attempts": 1, "artifact": None, "verification": None},
    ]


def facts_of(target: Body) -> Body:
    """The part of a target's status that does not depend on the clock."""
    artifact = target.get("artifact", {}).get("sha256")
    facts = {key: target.get(key) for key in ("state", "reason", "attempts", "verification")}
    return {**facts, "artifact": artifact}
