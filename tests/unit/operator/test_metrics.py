from typing import Any

import pytest

from modelexport.reasons import Reason
from modelexport.result import ConversionResult
from modelexport_operator.metrics import Metrics
from modelexport_operator.observe import State, TargetState
from unit.operator.objects import Body, make_export, make_target

TIMES = {"start_time": "2026-01-02T03:00:00Z", "completion_time": "2026-01-02T03:02:00Z"}


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if line.startswith(f"modelexport_{name}")]


@pytest.mark.parametrize(
    ("state", "reason", "times", "timed"),
    [
        ("Succeeded", "Succeeded", TIMES, True),
        ("Succeeded", "Succeeded", {}, False),
        ("Succeeded", "Succeeded", {"completion_time": TIMES["completion_time"]}, False),
        ("Failed", "VerificationFailed", TIMES, False),
    ],
)
def test_an_end_is_counted_with_its_outcome_and_timed_when_a_file_was_published(
    state: str, reason: str, times: Any, timed: bool
) -> None:
    metrics, why = Metrics(), Reason(reason)
    target = make_target("ONNX/FP16")
    metrics.record_conversion(TargetState(target, State(state), why, "", result=ConversionResult(why, ""), **times))
    labels = f'{{format="ONNX",outcome="{state}",precision="FP16",reason="{reason}"}}'
    assert lines(metrics, "conversions_total") == [f"modelexport_conversions_total{labels} 1.0"]
    seconds = ['modelexport_conversion_seconds_sum{format="ONNX",precision="FP16"} 120.0']
    assert lines(metrics, "conversion_seconds_sum") == (seconds if timed else [])


def test_exports_are_counted_by_the_reason_of_their_state_when_somebody_asks() -> None:
    metrics, exports = Metrics(), list[Body]()
    metrics.watch_exports(lambda: exports)
    ready = {"conditions": [{"type": "Ready", "reason": "Succeeded"}]}
    exports += [make_export(), {**make_export(), "status": ready}, {**make_export(), "status": ready}]
    assert lines(metrics, "exports") == [
        'modelexport_exports{state="New"} 1.0',
        'modelexport_exports{state="Succeeded"} 2.0',
    ]


def test_the_depth_of_the_queue_is_read_when_somebody_asks() -> None:
    metrics, waiting = Metrics(), [1, 2, 3]
    metrics.watch_queue(lambda: len(waiting))
    assert lines(metrics, "queue_depth") == ["modelexport_queue_depth 3.0"]
