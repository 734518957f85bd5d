"""``modelexport run`` with the real converter on a trained detector: one cell, an interruption, and the way on."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from command_line import CommandLine, is_alive, model_export, wait_for
from minio_server import serve

MODELS = Path(__file__).parents[1] / "models"


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


def test_a_trained_detector_is_exported_verified_and_recognised_again(command_line: CommandLine) -> None:
    calibration = {"dataset": {"uri": "s3://datasets/a.zip"}, "samples": 8}
    command_line.write(model_export("shapes", "ONNX/INT8", calibration=calibration))
    ended = command_line("run", "export.yaml", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout)
    assert (found["state"], found["scheme"]) == ("succeeded", "static_wi8_ai8")
    assert float(found["verification"]["value"]) >= float(found["verification"]["threshold"])
    assert files_in(command_line.folder / "modelexport-store") == ["report.json", "shapes-int8.onnx"]
    report: dict[str, Any] = json.loads(next(command_line.folder.rglob("report.json")).read_text(encoding="utf-8"))
    assert report["model"]["classNames"] == ["circle", "square", "triangle"]
    assert report["model"]["input"]["shape"] == [1, 3, 160, 160]
    (again,) = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
    assert again["state"] == "reused"
    assert again["artifact"] == found["artifact"]


def test_an_interrupted_conversion_leaves_no_half_file_and_no_child(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes", "ONNX/FP32", "ONNX/FP16"))
    running = command_line.start("run", "export.yaml", "--jobs", 2)
    children = wait_for(lambda: len(children_of(running.pid)) == 2 and children_of(running.pid), "two children", 120)
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


def test_a_missing_checkpoint_is_told_with_the_path_that_was_looked_at(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes"))
    (command_line.folder / "modelexport-store/checkpoints/a.pt").unlink()
    ended = command_line("run", "export.yaml")
    assert ended.returncode == 1
    assert "ONNX/FP32: CheckpointNotFound" in ended.stdout
    assert f"there is no file {command_line.folder}/modelexport-store/checkpoints/a.pt" in ended.stdout


def test_an_export_goes_through_a_real_s3_server(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = command_line.folder / "modelexport-store"
    with serve(command_line.folder / "minio") as server:
        for bucket in ("checkpoints", "exports"):
            server.client.make_bucket(bucket)
        server.client.fput_object("checkpoints", "a.pt", str(store / "checkpoints/a.pt"))
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        command_line.write(model_export("shapes", "ONNX/FP32"))
        ended = command_line("run", "export.yaml", "--store", server.environ["MODELEXPORT_STORE"], "-o", "json")
        (found,) = json.loads(ended.stdout)
        assert found["state"] == "succeeded", found["message"]
        names = [str(item.object_name) for item in server.client.list_objects("exports", recursive=True)]
        assert [name.rsplit("/", 1)[-1] for name in names] == ["report.json", "shapes-fp32.onnx"]
        key = found["artifact"]["uri"].removeprefix("s3://exports/")
        assert server.client.stat_object("exports", key).size == found["artifact"]["size_bytes"]
