"""``modelexport.convert`` with a fake converter: its outcomes, its errors, and its end by an interrupt."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import modelexport
from command_line import FAKE_CONVERTER, SOURCES, wait_for

FOUND = {"architecture": "YOLOv8", "inputSize": [32, 32], "numClasses": 0, "classNames": [], "assumptions": []}
PROGRAM = """
import asyncio, modelexport
async def cell(): modelexport.convert("a.pt", ["ONNX/FP32"])
asyncio.new_event_loop().run_until_complete(cell())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.pt").write_text(json.dumps(FOUND), encoding="utf-8")
    behave(tmp_path)
    monkeypatch.setenv("FAKE_CONVERTER", str(tmp_path / "behaviours.json"))
    monkeypatch.setenv("MODELEXPORT_CONVERTER", f"{sys.executable} {FAKE_CONVERTER}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, SOURCES)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def behave(folder: Path, **behaviours: object) -> None:
    (folder / "behaviours.json").write_text(json.dumps({"ONNX/FP32": behaviours}), encoding="utf-8")


def test_outcomes_come_in_the_order_of_the_targets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behave(folder, reason="VerificationFailed")
    failed, converted = modelexport.convert("a.pt", ["ONNX/FP32", "LiteRT/FP16"], output="out", jobs=2)
    assert (str(converted.target), converted.check()) == ("LiteRT/FP16", Path("out/a-fp16.tflite"))
    assert converted.report is not None
    assert converted.report.is_file()
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "VerificationFailed on purpose" in page
    assert "LiteRT/FP16" in page
    assert (failed.succeeded, failed.file) == (False, None)
    assert failed.log is not None
    assert failed.log.is_file()
    with pytest.raises(modelexport.ModelExportError) as raised:
        failed.check()
    assert raised.value.reason is modelexport.Reason.VERIFICATION_FAILED
    assert str(raised.value).startswith("ONNX/FP32: VerificationFailed on purpose; Use a higher precision")
    assert "LiteRT/FP16    succeeded\n" in capsys.readouterr().err


def test_one_target_is_a_word_and_a_link_keeps_its_name(folder: Path) -> None:
    (folder / "best.pt").symlink_to(folder / "a.pt")
    (converted,) = modelexport.convert("best.pt", "ONNX/FP32", progress=False)
    assert converted.file == Path("best-export/best-fp32.onnx")


async def test_conversion_runs_beside_the_loop_of_a_notebook(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = asyncio.create_task(asyncio.sleep(0))
    (converted,) = modelexport.convert("a.pt", ["ONNX/FP32"], progress=False)
    await ticks
    assert converted.check() == Path("a-export/a-fp32.onnx")
    assert capsys.readouterr() == ("", "")


def test_interrupt_in_a_notebook_ends_the_children(folder: Path) -> None:
    behave(folder, hang=True)
    notebook = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True)
    pid = wait_for(lambda: (folder / "onnx-fp32.pid").exists() and (folder / "onnx-fp32.pid").read_text(), "a child")
    notebook.send_signal(signal.SIGINT)
    _, told = notebook.communicate(timeout=60)
    assert "ModelExportError: the conversion was interrupted; run it again to go on" in told
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of the child")
