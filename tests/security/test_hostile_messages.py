"""Untrusted texts, messages, statuses and watches: each is refused or cleaned, and nothing crashes."""

import json
import logging
import time
import unicodedata
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelexport import names
from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.api.spec import parse_class, parse_export
from modelexport.logs import JsonFormatter, TextFormatter, with_fields
from modelexport.logs import parse_event as parse_event_line
from modelexport.text import clean, clean_lines, is_clean
from modelexport_operator.jobs.conversion_job import output_of, request_of
from modelexport_operator.jobs.kueue import explain_kueue
from modelexport_operator.jobs.pod_failures import explain_pod_failure
from modelexport_operator.jobs.state import MESSAGE_LIMIT, State, observe_target
from modelexport_operator.kube.pruning import prune_workload
from modelexport_operator.kube.resources import EXPORTS, JOBS, PODS
from modelexport_operator.kube.types import key_of
from modelexport_operator.kube.watch_stream import Line, LineReader, UnreadableError, parse_event, read_lines
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.reconcile.reconcile import sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.runtime.event_recorder import build_event
from modelexport_operator.status.conditions import recorded_targets
from modelexport_operator.status.events import Event
from testplane.objects import (
    Body,
    complete,
    ended,
    failed,
    make_class,
    make_condition,
    make_export,
    make_job,
    make_pod,
    make_target,
    make_workload,
    publish_into,
    result_text,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXPORT = make_export("ONNX/FP16")
OUTPUT = output_of(make_job(EXPORT, "ONNX/FP16"))
GOOD = json.loads(publish_into(OUTPUT, result_text()))
FORBIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def is_shown_as_it_is(text: str) -> bool:
    """Judge by Unicode's categories, independently of the code that cleans."""
    is_plain = all(unicodedata.category(letter) not in FORBIDDEN for letter in text)
    hidden = [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0]
    return is_plain and not set(text) & set(map(chr, hidden))


# --- Texts -----------------------------------------------------------------------------------------------------------

HARMFUL = {
    "colour": "\x1b[31mred\x1b[0m",
    "clear the screen": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "title by ST": "\x1b]2;owned\x1b\\",
    "a link of a terminal": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "DCS": "\x1bPq#0;2;0;0;0\x1b\\",
    "APC": "\x1b_Gf=100;AAAA\x1b\\",
    "C1 CSI": "\x9b31mred",
    "C1 OSC": "\x9d0;owned\x9c",
    "a sequence without an end": "\x1b[31",
    "a string without an end": "\x1b]0;owned",
    "a lone escape": "\x1b",
    "a reset": "\x1bc",
    "a charset": "\x1b(0",
    "nested": "\x1b\x1b[31m[31m",
    "a sequence with a zero-width space in it": "\x1b\u200b[31m",
    "backspaces": "good\x08\x08\x08\x08evil",
    "carriage return": "good\revil",
    "lines": "good\n2026-01-01 ERROR forged",
    "vertical tab, form feed": "a\x0bb\x0cc",
    "NEL": "a\x85b",
    "NUL": "a\x00b",
    "bell": "\x07",
    "DEL": "a\x7fb",
    "file separators": "a\x1cb\x1dc\x1ed\x1fe",
    "right-to-left override": "user\u202egpj.exe",
    "embeddings": "\u202a\u202b\u202c\u202d",
    "isolates": "\u2066/* \u2067 */ \u2068\u2069",
    "marks of direction": "a\u200e\u200f\u061cb",
    "zero-width": "adm\u200b\u200c\u200d\u2060\ufeffin",
    "soft hyphen": "pay\u00adpal",
    "line separator": "a\u2028b\u2029c",
    "tags": "hi\U000e0001\U000e0049\U000e0067\U000e006e",
    "variation selectors": "a\ufe00\ufe0f\U000e0100\U000e01ef",
    "Mongolian selectors": "a\u180b\u180c\u180d\u180e",
    "Hangul fillers": "a\u115f\u1160\u3164\uffa0",
    "Braille blank": "a\u2800b",
    "grapheme joiner": "a\u034fb",
    "interlinear": "a\ufff9b\ufffac\ufffb",
    "a high surrogate": "a\ud800b",
    "a low surrogate": "a\udc80b",
    "private use": "a\ue000\U000f0000\U0010fffd",
    "unassigned": "a\u0378\uffff\U0001ffffb",
    "other spaces": "a\u00a0b\u2003c\u3000d\u1680e",
    "stacked marks": "Z" + "\u0301" * 300,
    "musical controls": "\U0001d173\U0001d17a",
    "shorthand controls": "\U0001bca0",
}


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL)
def test_harmful_text_is_shown_cleaned(text: str) -> None:
    shown = clean(f"before {text} after")
    assert is_shown_as_it_is(shown)
    assert shown.startswith("before ")
    assert shown.endswith("fter"), "a sequence without an end hides no more than one character"
    assert not is_clean(text)


@pytest.mark.parametrize("text", ["für", "日本語", "🙂", "a < b & c", "[bold]", "é\u0301", "«»", "→ …", "s3://a/b c"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert clean(text) == text


@given(st.text())
@example("\x1b[\x1b[31m31m")
@example("\r\u200b\n")
def test_cleaning_is_idempotent_and_printable(text: str) -> None:
    shown = clean(text)
    assert is_shown_as_it_is(shown)
    assert clean(shown) == shown
    assert shown.encode().decode() == shown


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_long_text_is_cut_with_ellipsis(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert shown == clean(text) or shown.endswith("…")
    assert clean(shown, limit) == shown


@given(st.text())
def test_traceback_lines_are_kept_and_cleaned(text: str) -> None:
    assert [is_shown_as_it_is(line) for line in clean_lines(text).split("\n")] == [True] * (text.count("\n") + 1)


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x9d0", "\u202e", "\x1b\\", "a\u0301\u0301\u0301\u0301\u0301"])
def test_long_text_is_cleaned_quickly(piece: str) -> None:
    started = time.process_time()
    clean(piece * 100_000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL)
def test_no_output_passes_harmful_text(text: str) -> None:
    record = logging_record(text)
    assert is_shown_as_it_is(TextFormatter().format(record))
    line = json.loads(JsonFormatter().format(record))
    assert all(is_shown_as_it_is(part) for value in line.values() for part in str(value).split("\n"))
    assert is_shown_as_it_is(build_event(versioned(EXPORT), Event("Warning", "OOMKilled", text), "now")["message"])
    assert is_shown_as_it_is(str(InvalidSpec("spec.model", text)))
    assert is_shown_as_it_is(ConversionResult.from_json(result_text("ConversionFailed", text)).message)
    assert is_shown_as_it_is(json.loads(ConversionResult(Reason.CONVERSION_FAILED, text).to_json())["message"])
    for statuses in (ended(1, text), ended(1, f'{{"{text}'), ended(128, text, "StartError")):
        job = make_job(EXPORT, "ONNX/FP16", status=failed("PodFailurePolicy", text))
        pods = [make_pod(job, phase="Failed", containerStatuses=statuses)]
        status = sync(Snapshot(EXPORT, [job], pods, [make_class()]), NOW).status
        assert status is not None
        assert all(is_shown_as_it_is(target["message"]) for target in status["targets"])
        assert all(is_shown_as_it_is(condition["message"]) for condition in status["conditions"])


def logging_record(text: str) -> logging.LogRecord:
    record = logging.LogRecord("modelexport", logging.INFO, "file", 1, text, None, None)
    record.__dict__.update(with_fields(message=text, names=[text, {text: text}], number=1))
    return record


def versioned(body: Body, version: int = 1) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}


@pytest.mark.parametrize(
    "field",
    [
        "model.checkpoint.uri",
        "className",
        "storage.endpoint",
        "storage.bucket",
        "storage.prefix",
        "storage.region",
        "storage.credentialsSecretName",
        "storage.caSecretName",
        "converter.image",
        "jobs.queueName",
        "jobs.workloadPriorityClassName",
        "jobs.priorityClassName",
    ],
)
@pytest.mark.parametrize("character", ["\u202e", "\u200b", "\x07", "\u2028", "\u00a0", "\ue000", "\x1b"])
def test_hidden_character_in_name_or_uri_is_refused(field: str, character: str) -> None:
    is_export = field in ("model.checkpoint.uri", "className")
    body = deepcopy(EXPORT if is_export else make_class())
    *folders, last = field.split(".")
    place = body["spec"]
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = f"{place.get(last, 'a')}{character}b"
    with pytest.raises(InvalidSpec) as error:
        (parse_export if is_export else parse_class)(body)
    assert f"spec.{field}" in str(error.value)
    assert is_shown_as_it_is(str(error.value))


# --- Termination messages --------------------------------------------------------------------------------------------


def changed(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


def inner(name: str, **fields: Any) -> str:
    return changed(**{name: {**GOOD[name], **fields}})


DEEP = '{"a":' * 700 + "1" + "}" * 700
FIDELITY = {"metric": "boxes", "value": "0.97", "images": 3}
MESSAGES = {
    "nothing": "",
    "no JSON": "Segmentation fault",
    "half of it": json.dumps(GOOD)[:100],
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "a text": '"text"',
    "true": "true",
    "nested": DEEP,
    "nested lists": "[" * 4000,
    "too long": changed(message="x" * 5000),
    "a key twice": json.dumps(GOOD)[:-1] + ', "reason": "Succeeded"}',
    "an inner key twice": changed(artifact=None).replace('"artifact": null', '"artifact": {"uri": "a", "uri": "b"}'),
    "another version": changed(schemaVersion=2),
    "the version as a text": changed(schemaVersion="1"),
    "the version as true": changed(schemaVersion=True),
    "the version as a float": changed(schemaVersion=1.0),
    "no version": json.dumps({k: v for k, v in GOOD.items() if k != "schemaVersion"}),
    "no reason": json.dumps({k: v for k, v in GOOD.items() if k != "reason"}),
    "no message": json.dumps({k: v for k, v in GOOD.items() if k != "message"}),
    "an unknown key": changed(owner="me"),
    "a private key": changed(__class__="os"),
    "an unknown reason": changed(reason="Fine"),
    "a reason in lower case": changed(reason="succeeded"),
    "a reason that is none": changed(reason=None),
    "a reason as a list": changed(reason=["Succeeded"]),
    "a reason as a number": changed(reason=1),
    "a message as a number": changed(message=1),
    "a message as a list": changed(message=["a"]),
    "no message at all": changed(message=None),
    "seconds NaN": changed(seconds=float("nan")),
    "seconds infinite": changed(seconds=float("inf")),
    "seconds minus infinity": changed(seconds=float("-inf")),
    "seconds beyond a float": changed(seconds=0).replace('"seconds": 0', '"seconds": 1e999'),
    "seconds negative": changed(seconds=-1),
    "seconds of an age": changed(seconds=1e9),
    "seconds as a huge number": changed(seconds=0).replace('"seconds": 0', '"seconds": 1' + "0" * 3000),
    "seconds as a text": changed(seconds="1"),
    "seconds as true": changed(seconds=True),
    "memory negative": changed(peak_memory_mib=-1),
    "memory as a float": changed(peak_memory_mib=1.5),
    "memory as true": changed(peak_memory_mib=True),
    "memory of an age": changed(peak_memory_mib=10**12),
    "reused as a number": changed(reused=1),
    "reused as null": changed(reused=None),
    "scheme as a number": changed(scheme=8),
    "scheme with markup": changed(scheme="[bold]fp16[/bold]"),
    "scheme of any length": changed(scheme="f" * 64),
    "an artifact as a text": changed(artifact="s3://exports/a"),
    "an artifact as a list": changed(artifact=[1]),
    "an artifact of nothing": changed(artifact={}),
    "size negative": inner("artifact", size_bytes=-1),
    "size as a float": inner("artifact", size_bytes=1.0),
    "size as true": inner("artifact", size_bytes=True),
    "size as a text": inner("artifact", size_bytes="1"),
    "size beyond 2^53": inner("artifact", size_bytes=2**53),
    "size beyond any": inner("artifact", size_bytes=10**3000),
    "no size": inner("artifact", size_bytes=None),
    "digest in upper case": inner("artifact", sha256="AB" * 32),
    "digest too short": inner("artifact", sha256="ab" * 31),
    "digest with a prefix": inner("artifact", sha256="sha256:" + "ab" * 32),
    "digest with a line": inner("artifact", sha256="ab" * 32 + "\n"),
    "digest as a number": inner("artifact", sha256=1),
    "no digest": inner("artifact", sha256=None),
    "a URI of another bucket": inner("artifact", uri="s3://other/shapes-fp16.onnx"),
    "a URI of another export": inner("artifact", uri=OUTPUT.replace("/shapes/", "/others/") + "shapes-fp16.onnx"),
    "a URI above": inner("artifact", uri=f"{OUTPUT}../shapes-fp16.onnx"),
    "a URI above, encoded": inner("artifact", uri=f"{OUTPUT}%2e%2e"),
    "a URI below": inner("artifact", uri=f"{OUTPUT}below/shapes-fp16.onnx"),
    "a URI of the folder": inner("artifact", uri=OUTPUT),
    "a URI of a folder that begins alike": inner("artifact", uri=f"{OUTPUT[:-1]}-other/a.onnx"),
    "a URI with a line": inner("artifact", uri=f"{OUTPUT}a\nb"),
    "a URI with an override": inner("artifact", uri=f"{OUTPUT}a\u202eb"),
    "a URI with a surrogate": inner("artifact", uri=f"{OUTPUT}a\ud800b"),
    "a URI with an escape": inner("artifact", uri=f"{OUTPUT}\x1b[31m"),
    "a URI of a script": inner("artifact", uri="javascript:alert(1)"),
    "a URI of a local file": inner("artifact", uri="file:///etc/passwd"),
    "a URI as a list": inner("artifact", uri=[OUTPUT]),
    "a URI of any length": inner("artifact", uri=OUTPUT + "a" * 2100),
    "a report elsewhere": changed(report_uri="s3://other/report.json"),
    "no report": changed(report_uri=None),
    "no artifact": changed(artifact=None),
    "no verification": changed(verification=None),
    "verification as a text": changed(verification="0.99"),
    "value NaN": inner("verification", value="nan"),
    "value infinite": inner("verification", value="Infinity"),
    "value as a number": inner("verification", value=0.99),
    "value with markup": inner("verification", value="[link=http://a]1[/link]"),
    "value of any length": inner("verification", value="0." + "9" * 60),
    "threshold of words": inner("verification", threshold="none"),
    "metric with an escape": inner("verification", metric="\x1b[31mcosine"),
    "metric as null": inner("verification", metric=None),
    "fidelity as a list": inner("verification", fidelity=[0.9]),
    "fidelity without a value": inner("verification", fidelity={"metric": "boxes", "images": 3}),
    "fidelity with markup": inner("verification", fidelity={**FIDELITY, "iou": "[bold]1"}),
    "fidelity of a metric with an escape": inner("verification", fidelity={**FIDELITY, "metric": "\x1b[31m"}),
    "fidelity of fewer than no boxes": inner("verification", fidelity={**FIDELITY, "kept": -1}),
    "fidelity absent for a number": inner("verification", fidelityAbsent=3),
    "a failure with a file": changed(reason="ConversionFailed"),
    "progress for an end": changed(reason="Running", artifact=None, report_uri=None),
}


@pytest.mark.parametrize("text", MESSAGES.values(), ids=MESSAGES)
def test_untrusted_message_is_shown_but_not_believed(text: str) -> None:
    with pytest.raises(ValueError, match=r".+") as error:
        ConversionResult.from_json(text, output=OUTPUT, exit_code=0)
    assert is_shown_as_it_is(clean(str(error.value)))
    job = make_job(EXPORT, "ONNX/FP16", status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, text, "Completed"))
    state = observe_target(make_target("ONNX/FP16"), job, [pod])
    assert (state.state, state.reason, state.result) == (State.FAILED, Reason.INTERNAL_ERROR, None)
    assert "left no result" in state.message
    assert is_shown_as_it_is(state.message)
    metrics = Metrics()
    metrics.record_conversion("YOLOv8", state)
    assert " nan" not in metrics.render().decode().lower()
    decision = sync(Snapshot(EXPORT, [job], [pod], [make_class()]), NOW)
    assert decision.status is not None
    assert "other/" not in json.dumps([target.get("artifact") for target in decision.status["targets"]])


def test_baseline_message_is_believed() -> None:
    result = ConversionResult.from_json(json.dumps(GOOD), output=OUTPUT, exit_code=0)
    assert result.succeeded
    assert ConversionResult.from_json(result.to_json(), output=OUTPUT, exit_code=0) == result


@pytest.mark.parametrize(("reason", "code"), [("StorageDenied", 65), ("ConversionFailed", 0), ("CheckpointUnsafe", 75)])
def test_reason_contradicting_exit_code_is_ignored(reason: str, code: int) -> None:
    pod = make_pod(make_job(EXPORT, "ONNX/FP16"), phase="Failed", containerStatuses=ended(code, result_text(reason)))
    finding = explain_pod_failure(pod)
    assert finding.reason is Reason.INTERNAL_ERROR
    assert "does not end with exit code" in finding.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text())
def test_any_text_gives_result_or_value_error(text: str) -> None:
    believe(text)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), JSON))
def test_any_fields_give_result_or_value_error(fields: dict[str, Any]) -> None:
    believe(json.dumps({**GOOD, **fields}))


@given(st.sampled_from(("artifact", "verification")), st.text(), JSON)
def test_any_inner_fields_give_result_or_value_error(name: str, key: str, value: Any) -> None:
    believe(json.dumps({**GOOD, name: {**GOOD[name], key: value}}))


def believe(text: str) -> None:
    try:
        result = ConversionResult.from_json(text, output=OUTPUT)
    except ValueError:
        return
    assert is_shown_as_it_is(result.message)
    assert result.artifact is None or result.artifact.uri.startswith(OUTPUT)


REQUESTS = {"nested": "[" * 100_000, "deep": DEEP, "a list": "[]", "nothing": "{}", "no JSON": "x"}
INNER = {"output": 5, "artifact_name": ["a"], "export": None, "spec_hash": {}, "model": "a", "target": [], "scheme": {}}


@pytest.mark.parametrize("text", REQUESTS.values(), ids=REQUESTS)
def test_job_without_valid_request_publishes_nowhere(text: str) -> None:
    check_that_it_publishes_nowhere(text)


@pytest.mark.parametrize("name", INNER)
def test_job_with_mistyped_request_is_ignored(name: str) -> None:
    job = make_job(EXPORT, "ONNX/FP16")
    (entry,) = (e for e in job["spec"]["template"]["spec"]["containers"][0]["env"] if e["name"] == names.REQUEST_ENV)
    text = json.dumps({**json.loads(entry["value"]), name: INNER[name]})
    with pytest.raises(ValueError, match=r".+"):
        ConversionRequest.from_json(text)
    if name == "output":
        check_that_it_publishes_nowhere(text)


def check_that_it_publishes_nowhere(text: str) -> None:
    job = make_job(EXPORT, "ONNX/FP16", status=complete())
    job["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": names.REQUEST_ENV, "value": text}]
    assert (request_of(job), output_of(job)) == (None, "")
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, json.dumps(GOOD), "Completed"))
    assert observe_target(make_target("ONNX/FP16"), job, [pod]).state is State.FAILED


@pytest.mark.parametrize("line", [b"", b"[1]", b"5", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_non_event_line_is_ignored(line: bytes) -> None:
    assert parse_event_line(line) == {}


# --- Statuses --------------------------------------------------------------------------------------------------------

ENTRY: dict[str, Any] = {
    "format": "ONNX",
    "precision": "FP16",
    "state": "Succeeded",
    "reason": "Succeeded",
    "message": "Published",
    "attempts": 1,
    "jobName": "shapes-onnx-fp16-0",
    "startTime": "2026-01-02T03:00:00Z",
    "completionTime": "2026-01-02T03:02:00Z",
    "artifact": {"uri": f"{OUTPUT}shapes-fp16.onnx", "sha256": "ab" * 32, "sizeBytes": 5},
    "reportURI": f"{OUTPUT}report.json",
    "verification": {"metric": "cosine", "value": "0.99", "threshold": "0.9"},
}
ENTRIES: dict[str, dict[str, Any]] = {
    "an unknown format": {"format": "TensorRT"},
    "a format as a list": {"format": ["ONNX"]},
    "an unknown state": {"state": "Fine"},
    "an unknown reason": {"reason": "Fine"},
    "no reason": {"reason": None},
    "attempts negative": {"attempts": -1},
    "attempts as true": {"attempts": True},
    "attempts as a text": {"attempts": "many"},
    "a start that is no time": {"startTime": "yesterday"},
    "a start without a zone": {"startTime": "2026-01-02T03:00:00"},
    "a start beyond counting": {"startTime": "9999-12-31T23:59:59Z"},
    "a start as a number": {"startTime": 5},
    "an end as a list": {"completionTime": ["2026-01-02T03:00:00Z"]},
    "a job of any name": {"jobName": "../../nodes"},
    "a job as a number": {"jobName": 5},
    "a node with an escape": {"nodeName": "\x1b[31m"},
    "a message as a list": {"message": ["a"]},
    "a scheme with markup": {"scheme": "[bold]"},
    "an artifact as a text": {"artifact": "s3://a/b"},
    "an artifact without a digest": {"artifact": {"uri": "s3://a/b", "sizeBytes": 5}},
    "an artifact of size NaN": {"artifact": {"uri": "s3://a/b", "sha256": "ab" * 32, "sizeBytes": float("nan")}},
    "an artifact with an override": {"artifact": {"uri": "s3://a/\u202eb", "sha256": "ab" * 32, "sizeBytes": 5}},
    "a report as a number": {"reportURI": 5},
    "a verification as a list": {"verification": [1]},
    "a verification of words": {"verification": {"metric": "cosine", "value": "high", "threshold": "0.9"}},
    "an unknown reference": {"verification": {**ENTRY["verification"], "reference": "Guessed"}},
    "assumptions as a text": {"verification": {**ENTRY["verification"], "assumptions": "none"}},
    "a fidelity of words": {"verification": {**ENTRY["verification"], "fidelity": {**FIDELITY, "value": "high"}}},
    "a thousand warnings": {"verification": {**ENTRY["verification"], "warnings": ["a"] * 1000}},
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_forged_status_entry_is_ignored(change: dict[str, Any]) -> None:
    assert len(recorded_targets({"targets": [ENTRY]})) == 1
    hostile = {"targets": [{**ENTRY, **change}], "conditions": [{"type": "Ready", **change}], "completionTime": "no"}
    assert recorded_targets(hostile) == {}
    parent: Body = {**EXPORT, "status": hostile, "spec": {**EXPORT["spec"], "ttlSecondsAfterFinished": 5}}
    job = make_job(EXPORT, "ONNX/FP16")
    assert sync(Snapshot(parent, [job], [], [make_class()]), NOW).status is not None
    metrics = Metrics()
    metrics.watch_exports(lambda: [parent], lambda: NOW)
    assert b"modelexport_" in metrics.render()


@given(st.dictionaries(st.sampled_from(sorted(ENTRY)), JSON), st.dictionaries(st.text(), JSON, max_size=2))
def test_any_status_can_be_reconciled_and_measured(fields: dict[str, Any], more: dict[str, Any]) -> None:
    entry = {**ENTRY, **fields}
    conditions = [{**entry, "type": "Ready"}, {**entry, "type": "Stalled"}]
    parent: Body = {**EXPORT, "status": {"targets": [entry, fields], "conditions": conditions, **more}}
    sync(Snapshot(parent, [make_job(EXPORT, "ONNX/FP16")], [], [make_class()]), NOW)
    metrics = Metrics()
    metrics.watch_exports(lambda: [parent], lambda: NOW)
    metrics.render()


CONDITIONS: dict[str, dict[str, Any]] = {
    "no time": {"lastTransitionTime": None},
    "no message": {"message": None},
    "a message with an escape": {"message": "\x1b[31m"},
    "an unknown reason": {"reason": "\u202e"},
}


@pytest.mark.parametrize("change", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("status", [complete(), failed("BackoffLimitExceeded"), failed("DeadlineExceeded")])
def test_job_with_forged_status_is_observed(status: dict[str, Any], change: dict[str, Any]) -> None:
    conditions = [{**condition, **change} for condition in status["conditions"]]
    bare = {key: value for key, value in status.items() if key not in ("completionTime", "startTime")}
    job = make_job(EXPORT, "ONNX/FP16", status={**bare, "conditions": conditions})
    cache = Cache()
    for resource, body in ((EXPORTS, EXPORT), (JOBS, job)):
        cache[resource].put(versioned(body))
    for observed in (Snapshot(EXPORT, [job], [], [make_class()]), cache.snapshot(key_of(EXPORT))):
        assert observed is not None
        observed.overdue_jobs(NOW)
        written = sync(observed, NOW).status
        assert written is not None
        assert all(is_shown_as_it_is(condition["message"]) for condition in written["conditions"])


@pytest.mark.parametrize("text", [*HARMFUL.values(), "a" * 100_000], ids=[*HARMFUL, "long"])
def test_workload_message_is_cleaned(text: str) -> None:
    job = make_job(EXPORT, "ONNX/FP16", suspend=True, queue="team")
    checks = [{"name": text, "state": text, "message": text}] * 16
    for condition in (
        make_condition("QuotaReserved", "False", "Inadmissible", text),
        make_condition("QuotaReserved", "True", "QuotaReserved", text),
        make_condition("Evicted", "True", text, text),
    ):
        workload = prune_workload(make_workload(job, condition, checks=checks))
        admissions = {job["metadata"]["name"]: explain_kueue(job, [workload])}
        status = sync(Snapshot(EXPORT, [job], [], [make_class()], admissions=admissions), NOW).status
        assert status is not None
        for entry in (*status["targets"], *status["conditions"]):
            assert is_shown_as_it_is(entry["message"])
            assert len(entry["message"]) <= MESSAGE_LIMIT


@given(JSON)
@example([{"type": "QuotaReserved", "status": "False", "reason": [], "message": {}}])
@example([{"type": "Evicted", "status": "True", "reason": 5, "message": None}])
def test_any_workload_conditions_are_read(conditions: Any) -> None:
    job = make_job(EXPORT, "ONNX/FP16", suspend=True, queue="team")
    workload: Body = {"metadata": {"name": "any"}, "status": {"conditions": conditions, "admissionChecks": conditions}}
    explain_kueue(job, [prune_workload(workload)])


def test_user_text_creates_no_metric_series() -> None:
    exports: list[Body] = [
        {**EXPORT, "status": {"conditions": [{"type": "Ready", "reason": f"mine-{i}"}]}} for i in range(50)
    ]
    metrics = Metrics()
    metrics.watch_exports(lambda: exports, lambda: NOW)
    state = observe_target(make_target("ONNX/FP16"), make_job(EXPORT, "ONNX/FP16", status=complete()), [])
    done = replace(state, state=State.SUCCEEDED, reason=Reason.SUCCEEDED, result=ConversionResult.from_json(changed()))
    for index in range(50):
        metrics.record_conversion(f"mine-{index}", done)
    text = metrics.render().decode()
    assert "mine-" not in text
    assert 'modelexport_exports{state="Other"} 50.0' in text
    assert 'architecture="Other"' in text


# --- Watches ---------------------------------------------------------------------------------------------------------


def told(kind: str = "ADDED", **metadata: Any) -> bytes:
    body = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "5", **metadata}}
    return json.dumps({"type": kind, "object": body}, separators=(",", ":")).encode()


NO_EVENTS = {
    "no JSON": b"<html>bad gateway</html>",
    "half": b'{"type":"ADDED","object":{"metadata"',
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "nothing in it": b"{}",
    "no type": b'{"object":{"metadata":{"name":"a","resourceVersion":"5"}}}',
    "an unknown type": told("RENAMED"),
    "a type as a list": b'{"type":["ADDED"],"object":{"metadata":{"name":"a","resourceVersion":"5"}}}',
    "no object": b'{"type":"ADDED"}',
    "an object as a text": b'{"type":"ADDED","object":"a"}',
    "no metadata": b'{"type":"ADDED","object":{}}',
    "metadata as a list": b'{"type":"ADDED","object":{"metadata":[]}}',
    "no name": b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"5"}}}',
    "a name as a number": told(name=5),
    "a namespace as a list": told(namespace=[]),
    "no version": b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}',
    "a version as a number": told(resourceVersion=5),
    "a version of words": told(resourceVersion="new"),
    "a version below zero": told(resourceVersion="-5"),
    "a version beyond counting": told(resourceVersion="9" * 5000),
    "a bookmark of nothing": b'{"type":"BOOKMARK","object":{}}',
    "no UTF-8": b"\xff\xfe\x00",
    "a number of 5,000 digits": b'{"type":"ADDED","object":{"a":' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("line", NO_EVENTS.values(), ids=NO_EVENTS)
def test_non_event_raises_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_event(Line(line))


@given(st.binary())
def test_any_line_gives_event_or_value_error(line: bytes) -> None:
    for found in (Line(line), Line(b'{"type":"ADDED","object":' + line + b"}")):
        try:
            parse_event(found)
        except (ValueError, UnreadableError):
            continue


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line)), st.integers(1, 9))
def test_lines_do_not_depend_on_chunking(lines: list[bytes], size: int) -> None:
    stream, reader = b"".join(line + b"\n" for line in lines), LineReader()
    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    assert [line.content for piece in pieces for line in reader.feed(piece)] == lines


def test_overlong_line_is_cut_and_next_line_is_complete() -> None:
    metadata = {"name": "large", "namespace": "team", "uid": "1", "resourceVersion": "77", "annotations": "x" * 50_000}
    large = told().replace(b'{"name":"a","resourceVersion":"5"}', json.dumps(metadata, separators=(",", ":")).encode())
    reader, kept = LineReader(limit=10_000), list[Line]()
    for begin in range(0, len(large), 1000):
        kept += reader.feed(large[begin : begin + 1000])
        assert len(reader._kept) <= 10_000
    first, second = reader.feed(b"\n" + told() + b"\n")
    assert (kept, first.is_whole, second.is_whole) == ([], False, True)
    with pytest.raises(UnreadableError) as error:
        parse_event(first)
    assert error.value.stub == {"metadata": {"name": "large", "namespace": "team", "resourceVersion": "77"}}
    assert parse_event(second)[1]["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ADDED","object":{"apiVersion":"v1","kind":"M","metadata":{"annotations":{"resourceVersion":"9"}',
        b'{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"labels":{"resourceVersion":"9"}',
        b'{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a\\","resourceVersion":"9"',
    ],
)
def test_user_written_resource_version_is_not_trusted(line: bytes) -> None:
    with pytest.raises(UnreadableError) as error:
        parse_event(Line(line, is_whole=False))
    assert error.value.stub is None


def test_deeply_nested_object_is_skipped() -> None:
    with pytest.raises(UnreadableError, match="nested"):
        parse_event(Line(b'{"type":"ADDED","object":' + b'{"a":' * 100_000 + b"}" * 100_001))


async def test_incomplete_last_line_is_ignored() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (told()[:10], told()[10:] + b"\n" + told()[:10]):
            yield piece

    assert [line.content async for lines in read_lines(pieces()) for line in lines] == [told()]


FAT = {f"{'x' * 200}.example/{index:05}": "v" * 63 for index in range(2500)}
STATUSES = [{"name": f"c{index}", "state": {"waiting": {"message": "x" * 9000}}} for index in range(500)]


def test_cache_keeps_little_of_large_object() -> None:
    cache, job = Cache(), make_job(EXPORT, "ONNX/FP16")
    pod = make_pod(job, phase="Pending", containerStatuses=STATUSES, conditions=[{"type": "x" * 9000}] * 500)
    pod["spec"]["containers"][0]["env"] = [{"name": "A", "value": "<" * 1_000_000}]
    for resource, body in ((EXPORTS, EXPORT), (JOBS, job), (PODS, pod)):
        fat = versioned(body)
        fat["metadata"] |= {"labels": {**FAT, **body["metadata"].get("labels", {})}, "annotations": FAT}
        cache[resource].put(fat)
        kept = len(json.dumps(cache[resource].get(key_of(fat))))
        assert kept < (100_000 if resource is PODS else 4000), (resource, kept)
    observed = cache.snapshot(key_of(EXPORT))
    assert observed is not None
    assert (len(observed.jobs), len(observed.pods)) == (1, 1)
