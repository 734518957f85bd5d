import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelexport_operator.jobs.conversion_job import output_of, prune_conversion_job
from modelexport_operator.kube.encoding import decode
from modelexport_operator.kube.partial_decoding import VERSIONS, decoders_of
from modelexport_operator.kube.pruning import prune_pod
from modelexport_operator.kube.resources import JOBS, PODS
from testplane.objects import complete, ended, make_export, make_job, make_pod

Body = dict[str, Any]

JOB = make_job(make_export("ONNX/FP16"), "ONNX/FP16", status=complete())
FAILED = {"terminated": {"exitCode": 1, "reason": "Error", "message": "x" * 5000, "startedAt": "2026-01-02T03:04:05Z"}}
POD = make_pod(
    JOB,
    node="node-1",
    phase="Failed",
    reason="Evicted",
    message="The node was low on memory",
    conditions=[{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
    initContainerStatuses=[{"name": "fetch", "ready": True, "state": FAILED}],
    containerStatuses=ended(1),
)
PRUNERS = {JOBS: prune_conversion_job, PODS: prune_pod}
KINDS = pytest.mark.parametrize(("kind", "body"), [(JOBS, JOB), (PODS, POD)], ids=["Job", "Pod"])


def line_of(body: object, kind: str = "MODIFIED") -> bytes:
    return json.dumps({"type": kind, "object": body}).encode()


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in parts for found in paths(part, (*path, key)))]


def with_value(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], new)
    return copy


@KINDS
def test_nothing_that_pruning_keeps_is_left_out(kind: Any, body: Any) -> None:
    found: Any = decoders_of(kind).event(line_of(body))
    assert PRUNERS[kind](found["object"]) == PRUNERS[kind](body)
    assert output_of(found["object"]) == output_of(body)


@KINDS
def test_fields_that_nobody_reads_are_left_out(kind: Any, body: Body) -> None:
    noisy = {**body, "metadata": {**body["metadata"], "managedFields": [{"manager": "kubelet"}], "annotations": {}}}
    found: Any = decoders_of(kind).event(line_of(noisy))
    assert not {"managedFields", "annotations"} & found["object"]["metadata"].keys()
    assert '"image"' in json.dumps(body)
    assert '"image"' not in json.dumps(found["object"])


WHOLE_NUMBERS = st.integers(-(2**63), 2**63 - 1)  # The API has no larger ones, of which orjson makes floats.


@KINDS
@given(data=st.data(), new=st.none() | WHOLE_NUMBERS | st.text() | st.lists(st.none()) | st.just({"a": 1}))
def test_value_of_another_type_is_decoded_in_full(kind: Any, body: Body, data: st.DataObject, new: object) -> None:
    path = data.draw(st.sampled_from(paths(body)[1:]))
    changed = with_value(body, path, new)
    outcomes = [
        _outcome(kind, event) for event in (decoders_of(kind).event(line_of(changed)), decode(line_of(changed)))
    ]
    assert outcomes[0] == outcomes[1]


def _outcome(kind: Any, event: Any) -> object:
    try:
        return PRUNERS[kind](event["object"])
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("change", ["ERROR", "BOOKMARK", "RENAMED"])
def test_other_events_are_decoded_in_full(change: str) -> None:
    status = {"code": 410, "reason": "Expired", "metadata": {"annotations": {"a": "b"}}}
    assert decoders_of(JOBS).event(line_of(status, change)) == {"type": change, "object": status}


def test_text_that_msgspec_rejects_is_decoded_in_full() -> None:
    line = b'{"type":"ADDED","object":{"metadata":{"name":"\\ud800","uid":"1"}}}'
    assert decoders_of(JOBS).event(line) == decode(line)


@pytest.mark.parametrize("line", [b"", b"{", b'{"type":"ADDED","object":{"spec"', b"[]x", b'{"type":"ADDED"} {}'])
def test_line_that_is_not_json_raises_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decoders_of(PODS).event(line)


def test_deep_nesting_raises_recursion_error() -> None:
    line = b'{"type":"ADDED","object":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    with pytest.raises(RecursionError):
        decoders_of(JOBS).event(line)


@KINDS
def test_page_of_list_has_what_pruning_keeps(kind: Any, body: Any) -> None:
    metadata = {"resourceVersion": "7", "continue": "more", "remainingItemCount": 5}
    found: Any = decoders_of(kind).page(
        json.dumps({"kind": "List", "metadata": metadata, "items": [body] * 2}).encode()
    )
    assert found["metadata"] == metadata
    assert [PRUNERS[kind](item) for item in found["items"]] == [PRUNERS[kind](body)] * 2
    assert '"image"' not in json.dumps(found)


@pytest.mark.parametrize("content", [b'{"items":null}', b'{"items":[[]]}', b"[]", b'{"metadata":{"a":"\\ud800"}}'])
def test_strange_page_is_decoded_in_full(content: bytes) -> None:
    assert decoders_of(PODS).page(content) == decode(content)


@KINDS
def test_versions_leave_out_everything_but_the_identity(kind: Any, body: Any) -> None:
    identity = {"name": "a", "namespace": "team", "resourceVersion": "6"}
    items = [{**body, "metadata": {**body["metadata"], **identity}}]
    found: Any = VERSIONS.page(json.dumps({"metadata": {"resourceVersion": "7"}, "items": items}).encode())
    assert found["items"] == [{"metadata": identity}]
