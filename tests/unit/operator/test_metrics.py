from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelexport.api.reasons import Reason
from modelexport.api.result import Accuracy, ConversionResult
from modelexport.matrix.support import TARGETS
from modelexport_operator.jobs.state import State, TargetState
from modelexport_operator.metrics.definitions import LABELS, METRICS, OPERATOR, Kind
from modelexport_operator.metrics.metrics import Metrics
from unit.operator.objects import Body, make_export, make_target

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
TIMES: dict[str, Any] = {"start_time": "2026-01-02T03:00:00Z", "completion_time": "2026-01-02T03:02:00Z"}


def lines(metrics: Metrics, name: str) -> list[str]:
    text = metrics.render().decode().splitlines()
    return [line for line in text if line.startswith(f"modelexport_{name}") and not line.endswith(" 0.0")]


def end(state: str, reason: str, *, seconds: float | None = 21.5, reused: bool = False, **times: Any) -> TargetState:
    why = Reason(reason)
    result = ConversionResult(why, "", seconds=seconds, reused=reused)
    return TargetState(make_target("ONNX/FP16"), State(state), why, "", result=result, **times)


def with_targets(*entries: Body, created: str = "2026-01-02T01:00:00Z", **status: Any) -> Body:
    export = make_export()
    export["metadata"]["creationTimestamp"] = created
    return {**export, "status": {"targets": list(entries), **status}}


def entry(target: str, state: str, reason: str, **more: Any) -> Body:
    fmt, precision = target.split("/")
    return {"format": fmt, "precision": precision, "state": state, "reason": reason, **more}


def serve(*exports: Body) -> Metrics:
    metrics = Metrics()
    metrics.watch_exports(lambda: list(exports), lambda: NOW)
    metrics.watch_queue(lambda: 0)
    metrics.watch_leadership(lambda: True)
    return metrics


@pytest.mark.parametrize(
    ("state", "reason", "fault"),
    [("Succeeded", "Succeeded", "None"), ("Failed", "VerificationFailed", "User"), ("Failed", "OOMKilled", "System")],
)
def test_completion_is_counted_with_outcome_reason_and_fault(state: str, reason: str, fault: str) -> None:
    metrics = Metrics()
    metrics.record_conversion("YOLOv8", end(state, reason))
    labels = f'{{fault="{fault}",format="ONNX",outcome="{state}",precision="FP16",reason="{reason}"}}'
    assert lines(metrics, "conversions_total") == [f"modelexport_conversions_total{labels} 1.0"]


def test_every_possible_outcome_starts_at_zero() -> None:
    metrics = Metrics()
    series = [line for line in metrics.render().decode().splitlines() if line.startswith("modelexport_conversions_t")]
    assert len(series) == len(TARGETS) * 31
    assert all(line.endswith(" 0.0") for line in series)
    metrics.record_conversion("YOLOv8", end("Failed", "StorageDenied"))
    text = metrics.render().decode()
    assert text.count("\nmodelexport_conversions_total{") == len(series)


@pytest.mark.parametrize(
    ("ended", "target_timed", "conversion_timed"),
    [
        (end("Succeeded", "Succeeded", **TIMES), True, True),
        (end("Succeeded", "Succeeded"), False, True),
        (end("Succeeded", "Succeeded", completion_time=TIMES["completion_time"]), False, True),
        (end("Succeeded", "Succeeded", seconds=None, **TIMES), True, False),
        (end("Succeeded", "Succeeded", reused=True, **TIMES), True, False),
        (end("Failed", "VerificationFailed", **TIMES), False, False),
    ],
    ids=["whole", "without times", "without a start", "without a result", "reused", "failed"],
)
def test_reused_target_is_timed_but_is_no_conversion(
    ended: TargetState, target_timed: bool, conversion_timed: bool
) -> None:
    metrics = Metrics()
    metrics.record_conversion("YOLOv8", ended)
    target = ['modelexport_target_seconds_sum{format="ONNX",precision="FP16"} 120.0']
    assert lines(metrics, "target_seconds_sum") == (target if target_timed else [])
    conversion = ['modelexport_conversion_seconds_sum{architecture="YOLOv8",format="ONNX",precision="FP16"} 21.5']
    assert lines(metrics, "conversion_seconds_sum") == (conversion if conversion_timed else [])


def test_exports_are_counted_by_reason_at_scrape() -> None:
    ready = {"conditions": [{"type": "Ready", "reason": "Succeeded"}]}
    exports = [make_export(), {**make_export(), "status": ready}, {**make_export(), "status": ready}]
    assert lines(serve(*exports), "exports") == [
        'modelexport_exports{state="New"} 1.0',
        'modelexport_exports{state="Succeeded"} 2.0',
    ]


def test_open_targets_are_counted_by_state() -> None:
    first = with_targets(
        entry("ONNX/FP16", "Running", "Running"),
        entry("ONNX/FP32", "Queued", "Unschedulable"),
        entry("LiteRT/INT8", "Succeeded", "Succeeded"),
    )
    second = with_targets(entry("ONNX/FP16", "Running", "Running"), entry("ONNX/INT8", "Pending", "Suspended"))
    assert lines(serve(first, second), "targets") == [
        'modelexport_targets{format="ONNX",precision="FP16",state="Running"} 2.0',
        'modelexport_targets{format="ONNX",precision="FP32",state="Queued"} 1.0',
        'modelexport_targets{format="ONNX",precision="INT8",state="Suspended"} 1.0',
    ]


def test_finished_export_has_no_open_targets() -> None:
    ended = with_targets(entry("ONNX/FP16", "Running", "Running"), completionTime="2026-01-02T03:00:00Z")
    assert lines(serve(ended), "targets") == []


def conditions(**times: str) -> list[Body]:
    """Ready and Reconciling of an export with a waiting target; ``times`` are those of their last change."""
    return [{"type": kind, "status": "Unknown", "lastTransitionTime": time} for kind, time in times.items()]


def stalled_by(reason: str) -> Body:
    stalled = [{"type": "Stalled", "status": "True", "reason": reason}]
    return with_targets(entry("ONNX/FP16", "Pending", reason), conditions=stalled)


def test_targets_waiting_for_export_fix_are_no_backlog() -> None:
    refused = stalled_by("SourceNotAllowed")
    assert lines(serve(refused), "targets") == lines(serve(refused), "oldest_target") == []


def test_unknown_reason_does_not_block_metrics() -> None:
    body = stalled_by("ReasonOfTomorrow")
    assert lines(serve(body, with_targets(entry("ONNX/FP32", "Running", "Running"))), "targets") == [
        'modelexport_targets{format="ONNX",precision="FP32",state="Running"} 1.0'
    ]


def test_targets_waiting_for_class_fix_have_system_fault() -> None:
    [line] = lines(serve(stalled_by("ClassInvalid")), "oldest_target")
    assert 'fault="System",reason="ClassInvalid"' in line


@pytest.mark.parametrize(
    ("times", "age"),
    [
        ({"Ready": "2026-01-02T03:50:00Z", "Reconciling": "2026-01-02T03:50:00Z"}, 600),
        ({"Ready": "2026-01-02T01:00:00Z", "Reconciling": "2026-01-02T03:50:00Z"}, 600),
        ({"Ready": "2026-01-02T03:50:00Z", "Reconciling": "2026-01-02T01:00:00Z"}, 600),
        ({}, 10800),
    ],
    ids=["resumed into the line", "resumed without a node", "its class is there now", "no condition"],
)
def test_target_without_job_ages_from_last_export_change(times: dict[str, str], age: int) -> None:
    waiting = with_targets(entry("ONNX/FP16", "Pending", "LimitReached"), conditions=conditions(**times))
    labels = '{fault="None",reason="LimitReached",state="Pending"}'
    assert lines(serve(waiting), "oldest_target") == [f"modelexport_oldest_target_seconds{labels} {age:.1f}"]


def test_oldest_target_ages_from_job_or_else_export() -> None:
    started = entry("ONNX/FP16", "Queued", "Unschedulable", startTime="2026-01-02T03:50:00Z")
    younger = entry("ONNX/FP32", "Queued", "Unschedulable", startTime="2026-01-02T03:59:00Z")
    waiting = entry("ONNX/INT8", "Pending", "ClassNotFound")
    assert lines(serve(with_targets(started, younger, waiting)), "oldest_target") == [
        'modelexport_oldest_target_seconds{fault="System",reason="ClassNotFound",state="Pending"} 10800.0',
        'modelexport_oldest_target_seconds{fault="System",reason="Unschedulable",state="Queued"} 600.0',
    ]


def test_unreported_targets_are_new_and_as_old_as_export() -> None:
    export = {**make_export("ONNX/FP16", "CoreML/INT8"), "status": {}}
    export["metadata"]["creationTimestamp"] = "2026-01-02T03:50:00Z"
    assert lines(serve(export), "oldest_target") == [
        'modelexport_oldest_target_seconds{fault="None",reason="Pending",state="New"} 600.0'
    ]
    assert lines(serve(export), "targets") == [
        'modelexport_targets{format="CoreML",precision="INT8",state="New"} 1.0',
        'modelexport_targets{format="ONNX",precision="FP16",state="New"} 1.0',
    ]
    export["metadata"]["deletionTimestamp"] = "2026-01-02T03:55:00Z"
    assert lines(serve(export), "targets") == []


def test_target_from_future_has_no_age() -> None:
    ahead = with_targets(entry("ONNX/FP16", "Running", "Running", startTime="2026-01-02T04:00:03Z"))
    assert lines(serve(ahead), "oldest_target") == []


def test_queue_depth_is_read_at_scrape() -> None:
    metrics, waiting = Metrics(), [1, 2, 3]
    metrics.watch_queue(lambda: len(waiting))
    assert lines(metrics, "queue_depth") == ["modelexport_queue_depth 3.0"]


def test_only_successful_sync_updates_last_sync_time() -> None:
    times = iter([100.0, 100.0, 200.0, 200.0])
    metrics = Metrics(lambda: datetime.fromtimestamp(next(times), UTC))
    metrics.record_sync(0.1, "UnavailableError")
    assert lines(metrics, "last_sync") == ["modelexport_last_sync_timestamp_seconds 100.0"]
    metrics.record_sync(0.1)
    metrics.record_watch_check()
    assert lines(metrics, "last_") == [
        "modelexport_last_sync_timestamp_seconds 200.0",
        "modelexport_last_watch_check_timestamp_seconds 200.0",
    ]


def evaluated(reason: str, original: str, value: str) -> TargetState:
    """The end of a target whose accuracy was measured."""
    ended = end("Succeeded" if reason == "Succeeded" else "Failed", reason, **TIMES)
    assert ended.result
    accuracy = Accuracy("mIoU", original, value, "0.9", "0.01", 8, ("0", "0"))
    return replace(ended, result=replace(ended.result, accuracy=accuracy))


@pytest.mark.parametrize("reason", ["Succeeded", "AccuracyLost"])
def test_lost_accuracy_is_counted_as_difference(reason: str) -> None:
    metrics = Metrics()
    metrics.record_conversion("YOLOv8", evaluated(reason, "0.5", "0.484"))
    counted = [line.partition("le=")[2][:6] for line in lines(metrics, "target_accuracy_drop_bucket")]
    assert counted == ['"0.02"', '"0.05"', '"0.1",', '"0.2",', '"+Inf"']


def test_served_metrics_match_definitions() -> None:
    metrics = serve(with_targets(entry("ONNX/FP16", "Running", "Running")))
    metrics.record_conversion("YOLOv8", evaluated("Succeeded", "0.5", "0.49"))
    metrics.record_lag("jobs", 0)
    metrics.record_kept("jobs", 0)
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(metrics.render().decode())
    }
    assert {name: family.type for name, family in families.items()} == {
        metric.name: str(metric.kind) for metric in METRICS
    }
    for metric in OPERATOR:
        labels = {name for sample in families[metric.name].samples for name in sample.labels} - {"le"}
        assert labels == set(metric.labels), metric.name


def test_labels_are_documented_and_name_no_object() -> None:
    used = {label for metric in METRICS for label in metric.labels}
    assert used == set(LABELS)
    assert not used & {"export", "job", "name", "namespace", "node", "pod", "uid"}


def test_names_follow_prometheus_conventions() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        if metric.unit.startswith("seconds"):
            assert "_seconds" in metric.name
