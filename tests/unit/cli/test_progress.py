"""The display of a running conversion by ``modelexport get`` and in the table of a local run."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command_line import model_export
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.api.spec import parse_export
from modelexport.cli import main
from modelexport.cli.kubectl import Kubectl
from modelexport.client.display import describe
from modelexport.errors import BadInput
from modelexport.local.conversions import Conversion
from modelexport.local.display import Display
from modelexport.planning.plan import plan_export
from modelexport.planning.progress import Progress, expect_stages
from modelexport.published import of_cluster

UPDATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROGRESS = {
    "stage": "convert",
    "startTime": "2026-01-02T03:04:00Z",
    "percentage": 25,
    "estimatedRemainingSeconds": 15,
    "lastUpdatedTime": "2026-01-02T03:04:05Z",
}
RUNNING = {"format": "ONNX", "precision": "FP16", "state": "Running", "reason": "Running", "progress": PROGRESS}


@pytest.mark.parametrize(
    ("remaining", "seconds", "words"),
    [
        (15, 0, "convert, about 15 s left"),
        (15, 5, "convert, about 10 s left"),
        (15, 15, "convert, longer than measured"),
        (None, 5, "convert"),
    ],
)
def test_seconds_left_are_counted_down(remaining: int | None, seconds: int, words: str) -> None:
    progress = Progress("convert", "2026-01-02T03:04:05Z", None, None, remaining)
    assert describe(progress, UPDATED + timedelta(seconds=seconds)) == words


def show(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``modelexport get`` on an export with one running target."""
    monkeypatch.setattr(Kubectl, "read_export", lambda *_: {"status": {"targets": [RUNNING]}})
    return main(["get", "shapes", *arguments])


def test_get_shows_stage_of_running_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(monkeypatch) == 0
    assert "Running (convert, longer than measured)" in capsys.readouterr().out
    assert show(monkeypatch, "-o", "json") == 0
    (target,) = json.loads(capsys.readouterr().out)
    assert (target["state"], target["progress"]["percentage"]) == ("Running", 25)


@pytest.mark.parametrize("progress", ["half", {}, {**PROGRESS, "stage": "\x1b[2J"}, {**PROGRESS, "percentage": "25"}])
def test_get_ignores_invalid_progress(progress: Any) -> None:
    with pytest.raises(BadInput, match="the status of the export is invalid"):
        of_cluster({"status": {"targets": [{**RUNNING, "progress": progress}]}})


def test_local_run_estimates_remaining_time(tmp_path: Path) -> None:
    (request,) = plan_export(parse_export(model_export("shapes", "ONNX/FP32")), "s3://exports")
    conversion = Conversion(request, "ONNX/FP32", tmp_path / "log")
    expected = expect_stages(request)
    assert expected is not None
    conversion.begin()
    assert rows_of(conversion) == ["ONNX/FP32", "waiting"]
    conversion.enter("verify")
    left = round(expected["verify"] + expected["publish"])
    assert rows_of(conversion)[-2:] == [f"{left}", "s"]
    assert rows_of(conversion)[-3].endswith("%")
    conversion.finish(ConversionResult(Reason.SUCCEEDED, "verified and published"))
    assert rows_of(conversion) == ["ONNX/FP32", "succeeded", "0"]


def rows_of(conversion: Conversion) -> list[str]:
    """The words in the row of a conversion in the table of a local run."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(Display(console, [conversion])._table())
    return capture.get().splitlines()[1].split()
