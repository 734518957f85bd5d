"""Running child processes: their order, their retries, and the result of one that dies."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command_line import FAKE_CONVERTER, model_export
from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.api.spec import DataRef, Model, Parameters, parse_export
from modelexport.local.conversions import Conversion
from modelexport.local.run import make_conversions
from modelexport.local.runner import ATTEMPTS, LINE_LIMIT, Runner, in_order, pick, read_lines
from modelexport.logs import parse_event
from modelexport.planning.plan import plan_export
from modelexport_converter.stores.addresses import is_allowed, parse_networks

DONE = ConversionResult(Reason.SUCCEEDED, "verified and published")
OTHER = Model("YOLOv8", DataRef("s3://checkpoints/a.pt"), parameters=Parameters(variant="x"))


def conversions_of(folder: Path, *targets: str, **spec: Any) -> list[Conversion]:
    requests = plan_export(parse_export(model_export("shapes", *targets, **spec)), "s3://exports")
    return [Conversion(item, str(item.target), folder / f"{item.target.slug}.log") for item in requests]


def run_one(folder: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Mapping[str, Any]) -> Conversion:
    (folder / "behaviours.json").write_text(json.dumps({"ONNX/FP32": behaviour}), encoding="utf-8")
    monkeypatch.setenv("FAKE_CONVERTER", str(folder / "behaviours.json"))
    monkeypatch.setenv("MODELEXPORT_CONVERTER", f"{sys.executable} {FAKE_CONVERTER}")
    monkeypatch.setenv("PYTHONPATH", "sdk/src")
    (conversion,) = conversions_of(folder, "ONNX/FP32")
    runner = Runner(str(folder), folder, 1, lambda changed: None, backoff_seconds=0)
    asyncio.run(runner.run([conversion]))
    return conversion


def test_converter_learns_of_all_reports_for_page_on_server(tmp_path: Path) -> None:
    requests = plan_export(parse_export(model_export("shapes", "ONNX/FP32", "LiteRT/FP16")), "s3://exports")
    first, _ = make_conversions(requests, tmp_path)

    def reports(store: str) -> str | None:
        runner = Runner(store, tmp_path, 1, lambda changed: None)
        return runner._environment(first, tmp_path / "message").get(names.REPORTS_ENV)

    expected = {str(request.target): f"{request.output}report.json" for request in requests}
    assert json.loads(reports("http://127.0.0.1:9000") or "") == expected
    assert reports(str(tmp_path)) is None


def test_repeated_failure_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = run_one(tmp_path, monkeypatch, {"reason": "StorageUnavailable"})
    assert conversion.attempts == ATTEMPTS
    assert conversion.phase == "failed"


@pytest.mark.parametrize(
    ("behaviour", "reason", "message"),
    [
        ({"signal": "SIGKILL"}, Reason.OOM_KILLED, "--jobs 1"),
        ({"signal": "SIGSEGV"}, Reason.INTERNAL_ERROR, "by signal SIGSEGV"),
        ({"silent": True}, Reason.INTERNAL_ERROR, "with exit code 1 without a result"),
    ],
)
def test_converter_crash_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, object], reason: Reason, message: str
) -> None:
    result = run_one(tmp_path, monkeypatch, behaviour).result
    assert result is not None
    assert result.reason is reason
    assert message in result.message


def test_result_of_earlier_attempt_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx-fp32.json").write_text(DONE.to_json(), encoding="utf-8")
    result = run_one(tmp_path, monkeypatch, {"silent": True}).result
    assert result is not None
    assert not result.succeeded


CALIBRATION = {"dataset": {"uri": "s3://datasets/a.zip"}, "samples": 64}


def test_first_target_of_each_format_runs_first(tmp_path: Path) -> None:
    found = in_order(conversions_of(tmp_path, "LiteRT/FP32", "LiteRT/INT8", "ONNX/FP16", "ONNX/INT8", "CoreML/INT8"))
    labels = [conversion.label for conversion in found]
    assert labels == ["LiteRT/FP32", "CoreML/INT8", "ONNX/FP16", "LiteRT/INT8", "ONNX/INT8"]


def test_target_that_makes_nothing_for_others_runs_last(tmp_path: Path) -> None:
    asked = ("ONNX/FP32", "ONNX/INT8", "LiteRT/FP32", "LiteRT/INT8")
    found = in_order(conversions_of(tmp_path, *asked, calibration=CALIBRATION))
    assert [conversion.label for conversion in found] == ["LiteRT/INT8", "ONNX/FP32", "ONNX/INT8", "LiteRT/FP32"]
    assert found[-2].expected_seconds(converts=False) > found[1].expected_seconds(converts=True)


def test_target_with_most_tensors_measures_gradients(tmp_path: Path) -> None:
    onnx, litert = conversions_of(tmp_path, "ONNX/INT8", "LiteRT/INT8", calibration=CALIBRATION)
    assert in_order([onnx, litert])[0] is litert


def test_no_target_overtakes_one_that_makes_what_it_needs(tmp_path: Path) -> None:
    asked = ("LiteRT/FP32", "LiteRT/INT8", "ONNX/INT8", "CoreML/FP32")
    made, litert, onnx, other = conversions_of(tmp_path, *asked, calibration=CALIBRATION)
    assert pick([litert, onnx, other], [made]) is other, "ONNX/INT8 would measure the gradients"
    assert pick([litert, onnx], [made]) is litert, "waiting is better than nothing"


def test_longest_target_runs_first(tmp_path: Path) -> None:
    found = in_order(conversions_of(tmp_path, "ONNX/FP32", "CoreML/FP32", "LiteRT/FP32"))
    assert [conversion.label for conversion in found] == ["LiteRT/FP32", "CoreML/FP32", "ONNX/FP32"]


def test_targets_without_measurement_keep_their_order(tmp_path: Path) -> None:
    asked = conversions_of(tmp_path, "ONNX/FP32", "LiteRT/FP32", "CoreML/FP32", "CoreML/FP16")
    unknown = [replace(one, request=replace(one.request, model=OTHER)) for one in asked]
    assert in_order(unknown) == unknown


def test_second_calibration_waits_for_the_first(tmp_path: Path) -> None:
    asked = ("LiteRT/INT8", "ONNX/INT8", "ONNX/FP16")
    litert, onnx, half = conversions_of(tmp_path, *asked, calibration=CALIBRATION)
    assert in_order([litert, onnx, half])[0] is litert
    assert pick([onnx, half], [litert]) is half
    litert.finish(DONE)
    assert pick([onnx, half], [litert]) is onnx


def test_data_free_conversions_wait_for_no_calibration(tmp_path: Path) -> None:
    litert, onnx = conversions_of(tmp_path, "LiteRT/INT8", "ONNX/INT8")
    assert pick([onnx], [litert]) is onnx
    assert not litert.shared & onnx.shared


def test_core_ml_shares_one_fp32_and_one_smaller_base(tmp_path: Path) -> None:
    full, half, quantised = (c.family for c in conversions_of(tmp_path, "CoreML/FP32", "CoreML/FP16", "CoreML/INT8"))
    assert full != half == quantised


def test_conversion_needing_shared_file_is_postponed(tmp_path: Path) -> None:
    litert, onnx, half, quantised = conversions_of(tmp_path, "LiteRT/FP32", "ONNX/FP32", "LiteRT/FP16", "ONNX/INT8")
    onnx.finish(DONE)
    assert pick([half, quantised], [litert, onnx]) is quantised
    assert pick([half], [litert, onnx]) is half, "waiting is better than nothing"
    litert.finish(DONE)
    assert pick([half, quantised], [litert, onnx]) is half


def test_line_of_any_length_is_handled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = run_one(tmp_path, monkeypatch, {"long_line": (16 << 20) + 1, "reason": "CheckpointNotFound"})
    assert conversion.result is not None
    assert conversion.result.reason is Reason.CHECKPOINT_NOT_FOUND
    log = conversion.log.read_bytes()
    assert b"something that a library prints\n" in log
    assert b"x [...]\n" in log
    assert b'{"event": "stage", "stage": "convert", "state": "started"}\n' in log
    assert len(log) < LINE_LIMIT + 1000


async def test_lines_are_reassembled_from_any_chunks() -> None:
    stream = asyncio.StreamReader()
    for part in (b"a", b"b\nc", b"\n\n", b"d" * LINE_LIMIT, b"\n", b"e" * LINE_LIMIT, b"e\n", b"end"):
        stream.feed_data(part)
    stream.feed_eof()
    kept = [b"ab\n", b"c\n", b"\n", b"d" * LINE_LIMIT + b"\n", b"e" * LINE_LIMIT + b" [...]\n", b"end\n"]
    assert [line async for line in read_lines(stream)] == kept


@pytest.mark.parametrize("line", [b"plain text\n", b"[1]\n", b"\xff\xfe\n", b"", b"[" * LINE_LIMIT])
def test_non_event_line_is_skipped(line: bytes) -> None:
    assert parse_event(line) == {}


def test_local_run_reads_reachable_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_one(tmp_path, monkeypatch, {"tell": names.HTTPS_NETWORKS_ENV})
    told = (tmp_path / "onnx-fp32.told").read_text(encoding="utf-8")
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "8.8.8.8"):
        assert is_allowed(address, parse_networks(told))
