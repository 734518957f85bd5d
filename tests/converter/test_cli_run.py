"""``modelexport run`` with the real converter on a trained detector: one cell, an interruption, and resuming."""

import io
import json
import shutil
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageEnhance

from command_line import CommandLine, is_alive, model_export, wait_for
from modelexport_converter.inputs.dataset import VERIFICATION_LIMIT
from modelexport_converter.inputs.image_selection import VERIFICATION_COUNT
from s3_servers import S3Server

MODELS = Path(__file__).parents[2] / "testdata/models"


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    store = tmp_path / "modelexport-store"
    for source, target in (("weights/yolov8n.pt", "checkpoints/a.pt"), ("data/calibration.zip", "datasets/a.zip")):
        (store / target).parent.mkdir(parents=True)
        shutil.copy(MODELS / source, store / target)
    return CommandLine(tmp_path, fake=False)


def files_in(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "exports").rglob("*") if path.is_file())


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in found.split()]


def test_trained_detector_is_exported_verified_and_reused(command_line: CommandLine) -> None:
    calibration = {"dataset": {"uri": "s3://datasets/a.zip"}, "samples": 8}
    command_line.write(model_export("shapes", "ONNX/INT8", calibration=calibration))
    ended = command_line("run", "export.yaml", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout)
    assert (found["state"], found["scheme"]) == ("succeeded", "static_wi8_ai8")
    assert float(found["verification"]["value"]) >= float(found["verification"]["threshold"])
    assert files_in(command_line.folder / "modelexport-store") == ["report.html", "report.json", "shapes-int8.onnx"]
    report: dict[str, Any] = json.loads(next(command_line.folder.rglob("report.json")).read_text(encoding="utf-8"))
    assert report["model"]["classNames"] == ["circle", "square", "triangle"]
    assert report["model"]["weights"] in ("ema", "model")
    assert report["model"]["input"]["shape"] == [1, 3, 160, 160]
    fidelity = found["verification"]["fidelity"]
    assert (fidelity["metric"], fidelity["threshold"]) == ("boxes", "0.9")
    assert VERIFICATION_COUNT <= fidelity["images"] <= 56  # fewer on a machine that is slow
    assert report["verification"]["fidelity"]["scoreShift"] == fidelity["scoreShift"]
    assert len(report["samples"]) == 6
    page = next(command_line.folder.rglob("report.html")).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 12
    (again,) = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
    assert again["state"] == "reused"
    assert again["artifact"] == found["artifact"]


@pytest.mark.parametrize(
    ("fmt", "suffix"), [pytest.param("LiteRT", "tflite", marks=pytest.mark.all_cells), ("ONNX", "onnx")]
)
def test_trained_detector_is_exported_as_w8a16(command_line: CommandLine, fmt: str, suffix: str) -> None:
    calibration = {"dataset": {"uri": "s3://datasets/a.zip"}, "samples": 8}
    body = model_export("shapes", f"{fmt}/W8A16", calibration=calibration, supportLevel="Extended")
    command_line.write(body)
    ended = command_line("run", "export.yaml", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout)
    assert (found["state"], found["scheme"]) == ("succeeded", "static_wi8_ai16")
    assert float(found["verification"]["value"]) >= float(found["verification"]["threshold"])
    assert found["quantization"] is None
    names = ["report.html", "report.json", f"shapes-w8a16.{suffix}"]
    assert files_in(command_line.folder / "modelexport-store") == names
    (again,) = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
    assert again["state"] == "reused"


def test_dark_images_sorting_first_do_not_fill_sample(command_line: CommandLine) -> None:
    archive_nights(command_line.folder / "modelexport-store/datasets/a.zip", days=64)
    command_line.write(model_export("shapes", "ONNX/INT8", calibration={"dataset": {"uri": "s3://datasets/a.zip"}}))
    ended = command_line("run", "export.yaml", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(next(command_line.folder.rglob("report.json")).read_text(encoding="utf-8"))
    found = report["images"]
    assert (found["calibrated"], found["apart"], found["unreadable"]) == (64, True, [])
    assert VERIFICATION_COUNT <= found["withEvidence"] < found["verified"] < VERIFICATION_LIMIT


def test_only_dark_images_are_refused(command_line: CommandLine) -> None:
    archive_nights(command_line.folder / "modelexport-store/datasets/a.zip", days=0)
    command_line.write(model_export("shapes", "ONNX/INT8", calibration={"dataset": {"uri": "s3://datasets/a.zip"}}))
    (found,) = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
    assert found["reason"] == "VerificationFailed"
    assert "the model detects nothing with a score of 0.25 or more on any of the images" in found["message"]


def archive_nights(path: Path, days: int) -> None:
    """An archive of 100 dark images whose names come first, and of some by day."""
    with zipfile.ZipFile(MODELS / "data/eval.zip") as source, zipfile.ZipFile(path, "w") as archive:
        for index, name in enumerate(sorted(source.namelist())[:100]):
            image = Image.open(io.BytesIO(source.read(name))).convert("RGB")
            for prefix, brightness in (("cam1", 0.06), *([("cam2", 1)] if index < days else [])):
                encoded = io.BytesIO()
                ImageEnhance.Brightness(image).enhance(brightness).save(encoded, "JPEG", quality=92)
                archive.writestr(f"{prefix}_{index:04d}.jpg", encoded.getvalue())


def test_interrupted_conversion_leaves_no_partial_file_or_child(command_line: CommandLine) -> None:
    """Its children are two conversions and the fork server, whose own children end with it."""
    command_line.write(model_export("shapes", "ONNX/FP32", "ONNX/FP16"))
    running = command_line.start("run", "export.yaml", "--jobs", 2)
    children = wait_for(lambda: len(children_of(running.pid)) == 3 and children_of(running.pid), "all children", 120)
    output = ""
    while "load" not in output:
        output += running.stdout.readline() if running.stdout else ""
    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Run the same command again" in rest
    assert not any(is_alive(child) for child in children)
    assert not list(command_line.folder.glob("modelexport-run-*")), "scratch space is left"
    left = command_line.folder / "modelexport-store"
    assert not [path for path in left.rglob("*") if path.name.startswith(".")], "a half-written file is left"
    artifacts, reports = (list(left.glob(f"exports/**/{pattern}")) for pattern in ("*.onnx", "report.json"))
    assert len(reports) <= len(artifacts)


def test_missing_checkpoint_error_gives_path(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes"))
    (command_line.folder / "modelexport-store/checkpoints/a.pt").unlink()
    ended = command_line("run", "export.yaml")
    assert ended.returncode == 1
    assert "ONNX/FP32: CheckpointNotFound" in ended.stdout
    assert f"there is no file {command_line.folder}/modelexport-store/checkpoints/a.pt" in ended.stdout


def test_export_works_with_real_s3_server(
    command_line: CommandLine, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = command_line.folder / "modelexport-store"
    server.client.make_bucket("checkpoints")
    server.client.fput_object("checkpoints", "a.pt", str(store / "checkpoints/a.pt"))
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    command_line.write(model_export("shapes", "ONNX/FP32"))
    ended = command_line("run", "export.yaml", "--store", server.environ["MODELEXPORT_STORE"], "-o", "json")
    (found,) = json.loads(ended.stdout)
    assert found["state"] == "succeeded", found["message"]
    names = [str(item.object_name) for item in server.client.list_objects("exports", recursive=True)]
    assert [name.rsplit("/", 1)[-1] for name in names] == ["report.json", "shapes-fp32.onnx", "report.html"]
    key = found["artifact"]["uri"].removeprefix("s3://exports/")
    assert server.client.stat_object("exports", key).size == found["artifact"]["size_bytes"]
