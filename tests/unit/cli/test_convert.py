"""``modelexport convert`` and ``init`` with a fake converter: from a path to files and manifests."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import CommandLine
from modelexport.api.quantization import Effort, Quantization
from modelexport.api.spec import parse_export
from modelexport.cli import main

FOUND = {
    "architecture": "YOLOv8",
    "variant": "n",
    "inputSize": [160, 192],
    "numClasses": 6,
    "classNames": ["circle", "a\x1b[2Jsquare", "c", "d", "e", "f"],
    "assumptions": [],
}


@pytest.fixture
def checkpoint(command_line: CommandLine) -> Path:
    """A file that the fake converter takes for a checkpoint of YOLOv8."""
    return write_checkpoint(command_line.folder / "Best Model.v2.pt")


def write_checkpoint(path: Path, **changed: Any) -> Path:
    path.write_text(json.dumps({**FOUND, **changed}), encoding="utf-8")
    return path


def test_files_and_reports_are_in_the_output_folder(command_line: CommandLine, checkpoint: Path) -> None:
    ended = command_line("convert", checkpoint, "--to", "LiteRT/INT8", "--to", "fp16/coreml", "--output", "out")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{checkpoint}: YOLOv8 n, 160x192, 6 classes (circle, asquare, c, d, e, …)\n" in ended.stderr
    assert "no --to" not in ended.stderr
    assert "out/best-model-int8.tflite" in ended.stdout
    names = sorted(path.name for path in (command_line.folder / "out").iterdir())
    file, report = "best-model-fp16.mlpackage.zip", "best-model-int8.tflite"
    assert names == [file, f"{file}.report.json", report, f"{report}.report.json", "report.html"]
    assert "Report: out/report.html\n" in ended.stdout


def test_json_lists_targets_with_file_and_report(command_line: CommandLine, checkpoint: Path) -> None:
    command_line.behaviours["ONNX/INT8"] = {"reason": "VerificationFailed"}
    ended = command_line("convert", checkpoint, "--to", "ONNX", "-o", "json", "--output", "out")
    assert ended.returncode == 1
    records = {record["target"]: record for record in json.loads(ended.stdout)}
    assert records.keys() == {"ONNX/FP32", "ONNX/FP16", "ONNX/INT8"}
    assert records["ONNX/FP16"]["file"] == "out/best-model-fp16.onnx"
    assert records["ONNX/FP16"]["report"] == "out/best-model-fp16.onnx.report.json"
    assert (records["ONNX/INT8"]["reason"], records["ONNX/INT8"]["file"]) == ("VerificationFailed", None)


def test_usual_targets_are_chosen_and_said(command_line: CommandLine, checkpoint: Path) -> None:
    ended = command_line("convert", checkpoint, "--dry-run")
    assert "no --to: converting to LiteRT/FP16, ONNX/FP32, CoreML/FP16; modelexport matrix lists" in ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["LiteRT/FP16", "ONNX/FP32", "CoreML/FP16"]
    (command_line.folder / "photos").mkdir()
    ended = command_line("convert", checkpoint, "--dry-run", "--calibration", "photos")
    assert ended.stdout.splitlines()[-1].split() == ["LiteRT/INT8", "static_wi8_ai8", "best-model-int8.tflite"]


def test_usual_targets_are_stable_ones(command_line: CommandLine) -> None:
    checkpoint = write_checkpoint(command_line.folder / "a.pt", architecture="MaskRCNN")
    ended = command_line("convert", checkpoint, "--dry-run")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["LiteRT/FP16", "ONNX/FP32"]


def test_extended_architecture_asks_for_its_level(command_line: CommandLine) -> None:
    checkpoint = write_checkpoint(command_line.folder / "a.pt", architecture="YOLO11")
    ended = command_line("convert", checkpoint, "--dry-run")
    assert ended.returncode == 2
    assert "not in the stable matrix for YOLO11 (stable: none); set spec.supportLevel: Extended" in ended.stderr
    assert "(--extended, extended=True)" in ended.stderr
    ended = command_line("convert", checkpoint, "--dry-run", "--extended")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["LiteRT/FP16", "ONNX/FP32", "CoreML/FP16"]
    assert command_line("init", checkpoint, "--extended").returncode == 0
    assert "supportLevel: Extended" in (command_line.folder / "a.yaml").read_text()


def test_dry_run_prints_the_export_for_the_cluster(command_line: CommandLine, checkpoint: Path) -> None:
    photo = command_line.folder / "photo.jpg"
    photo.write_bytes(b"image")
    wanted = ("--to", "LiteRT/INT8", "--calibration", photo, "--samples", 5, "--input-size", "320x640")
    ended = command_line("convert", checkpoint, *wanted, "--dry-run", "-o", "yaml", "--name", "helmets")
    body = yaml.safe_load(ended.stdout)
    export = parse_export(body)
    assert (export.name, export.model.architecture, export.model.parameters.input_size) == (
        "helmets",
        "YOLOv8",
        (320, 640),
    )
    assert export.calibration is not None
    assert export.calibration.samples == 5
    assert export.calibration.dataset.uri == f"file://{photo}"
    assert "# for a cluster, upload it and write s3://bucket/key" in ended.stdout
    as_json = command_line("convert", checkpoint, *wanted, "--dry-run", "-o", "json", "--name", "helmets")
    assert parse_export(json.loads(as_json.stdout)) == export
    assert not (command_line.folder / "helmets-export").exists()


def test_labelled_images_are_evaluated_on(command_line: CommandLine, checkpoint: Path) -> None:
    labelled = command_line.folder / "labelled"
    labelled.mkdir()
    wanted = ("--to", "ONNX/FP32", "--evaluate", labelled, "--max-drop", "0.002")
    ended = command_line("convert", checkpoint, *wanted, "--dry-run", "-o", "yaml")
    evaluation = parse_export(yaml.safe_load(ended.stdout)).evaluation
    assert evaluation is not None
    assert (evaluation.dataset.uri, evaluation.max_drop) == (f"file://{labelled}/", 0.002)


def test_effort_of_quantization_is_written(command_line: CommandLine, checkpoint: Path) -> None:
    (command_line.folder / "photos").mkdir()
    wanted = ("--to", "ONNX/INT8", "--calibration", "photos")
    chosen = ("--effort", "MixedPrecision", "--max-float-layers", 8)
    ended = command_line("convert", checkpoint, *wanted, *chosen, "--dry-run", "-o", "yaml")
    assert parse_export(yaml.safe_load(ended.stdout)).quantization == Quantization(Effort.MIXED_PRECISION, 8)
    as_comment = command_line("init", checkpoint, *wanted, "--output", "-").stdout
    assert parse_export(yaml.safe_load(as_comment)).quantization is None
    start = as_comment.index("  # quantization:")
    uncommented = as_comment[:start] + re.sub("(?m)^  # ", "  ", as_comment[start:])
    assert parse_export(yaml.safe_load(uncommented)).quantization == Quantization()


def test_rungs_are_shown_while_tried_and_afterwards(command_line: CommandLine, checkpoint: Path) -> None:
    (command_line.folder / "photos").mkdir()
    command_line.behaviours["ONNX/INT8"] = {"recovers": True}
    wanted = ("convert", checkpoint, "--to", "ONNX/INT8", "--calibration", "photos")
    ended = command_line(*wanted)
    assert ended.returncode == 0, ended.stderr
    phases = [line.split(maxsplit=3)[3] for line in ended.stdout.splitlines() if " s  ONNX/INT8" in line]
    assert phases[3:5] == ["quantise", "quantise (MixedPrecision, 4 layers in float)"]
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["ONNX/INT8", "Ranges", "0", "0.011700", "0.9400", "0.951100", "0.2500", "21"] in rows
    assert ["ONNX/INT8", "MixedPrecision", "4", "0.004000", "-", "0.960000", "0.2610", "9"] in rows
    assert "ONNX/INT8: maxFloatLayers is 4" in ended.stdout
    (record,) = json.loads(command_line(*wanted, "-o", "json").stdout)
    assert record["quantization"]["rungs"][1]["floatLayers"] == 4


def test_converter_reads_the_checkpoint_without_credentials(
    command_line: CommandLine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    seen = command_line.folder / "seen.py"
    seen.write_text("import os, pathlib; pathlib.Path(__file__).with_suffix('.env').write_text(str(dict(os.environ)))")
    monkeypatch.setenv("MODELEXPORT_CONVERTER", f"python3 {seen}")
    assert main(["convert", str(checkpoint)]) == 1
    assert "hidden" not in seen.with_suffix(".env").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pt"], "none.pt: the checkpoint cannot be read: No such file or directory; check the path"),
        (["."], ".: the checkpoint is a folder; name the file in it"),
        (["s3://a/b.pt"], "the checkpoint must be on this machine; for a URI, write a ModelExport (modelexport init)"),
        (["text.pt"], "text.pt: the weights are those of none"),
        (["--to", "TFLite"], "'TFLite' is not a target; use one of LiteRT/FP32, LiteRT/FP16"),
        (["--to", "ONNX/INT4"], "'ONNX/INT4' is not a target; use one of"),
        (["--architecture", "YOLOv9"], "'YOLOv9' is not in the support matrix; use one of YOLOv8"),
        (["--calibration", "none"], "none: the images cannot be read: No such file or directory; check the path"),
        (["--input-size", "big"], "--input-size: 'big' is not a size; use 640, or height x width: 480x640"),
        (["--input-size", "100"], "spec.model.parameters.inputSize: [100, 100] must be multiples of 32"),
        (["--samples", "0"], "spec.calibration.samples: 0 is not a whole number from 1 to 10000"),
        (["--name", "No"], "metadata.name: 'No' is not a name; use lower-case letters"),
        (["--output", "text.pt"], "--output: text.pt is a file; name a folder"),
        (["--store", "http://a"], "--store: files are converted into a folder; for an S3 server use modelexport run"),
        (
            ["--max-drop", "0.1"],
            "--max-drop: no labelled images measure it; name them by --evaluate",
        ),
        (["--evaluate", "images", "--max-drop", "2"], "spec.evaluation.maxDrop: '2.0' is not a decimal from 0 to 1"),
        (
            ["--effort", "Training"],
            "--effort (effort=): 'Training' is not known; use one of Auto, Ranges, MixedPrecision",
        ),
        (
            ["--to", "ONNX/FP16", "--effort", "Ranges"],
            "spec.quantization.effort: Ranges applies to none of the targets: only LiteRT/INT8, ONNX/INT8 ",
        ),
        (["--max-float-layers", "-1"], "spec.quantization.maxFloatLayers: -1 is not a whole number from 0 to 1024"),
        (["--jobs", "0"], "--jobs: 0 is less than one; use 1 or more"),
        (["-o", "yaml"], "-o yaml: prints the ModelExport and converts nothing; add --dry-run, or use -o json"),
    ],
)
def test_bad_option_error_has_value_and_way_out(
    command_line: CommandLine, checkpoint: Path, arguments: list[str], message: str
) -> None:
    (command_line.folder / "text.pt").write_text("a text", encoding="utf-8")
    (command_line.folder / "images").mkdir()
    named = [] if arguments[0].endswith((".pt", ".")) else [checkpoint, "--calibration", "images"]
    ended = command_line("convert", *named, *arguments)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert message in ended.stderr
    assert not list(command_line.folder.glob("*-export"))


def test_extended_target_needs_the_option(command_line: CommandLine) -> None:
    checkpoint = write_checkpoint(command_line.folder / "a.pt", architecture="FasterRCNN")
    refused = command_line("convert", checkpoint, "--to", "CoreML/FP16")
    assert refused.returncode == 2
    assert "CoreML/FP16 is not in the stable matrix for FasterRCNN" in refused.stderr
    assert "set spec.supportLevel: Extended (--extended, extended=True)" in refused.stderr
    assert command_line("convert", checkpoint, "--to", "CoreML/FP16", "--extended").returncode == 0


@pytest.mark.parametrize(
    "changed", [{"architecture": "YOLOv9"}, {"inputSize": [0]}, {"numClasses": -1}, {"classNames": "abc"}]
)
def test_invalid_answer_of_the_converter_is_refused(command_line: CommandLine, changed: dict[str, Any]) -> None:
    ended = command_line("convert", write_checkpoint(command_line.folder / "a.pt", **changed))
    assert ended.returncode == 1
    assert "a.pt: the converter's answer is invalid: " in ended.stderr


def test_missing_converter_is_named(
    command_line: CommandLine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MODELEXPORT_CONVERTER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["convert", str(checkpoint)]) == 2
    assert "run pip install 'modelexport[converter]', or set MODELEXPORT_CONVERTER" in capsys.readouterr().err


def test_init_writes_a_valid_commented_manifest(command_line: CommandLine, checkpoint: Path) -> None:
    ended = command_line("init", checkpoint)
    assert ended.returncode == 0, ended.stderr
    path = command_line.folder / "best-model.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# YOLOv8 n, 160x192, 6 classes (circle, asquare, c, d, e, …)\n")
    assert "    #   inputSize: [160, 192]  # height and width in pixels, in multiples of 32\n" in text
    checked = command_line("validate", path)
    assert checked.returncode == 0
    assert "default/best-model is valid for modelexport run, 3 targets" in checked.stdout
    assert command_line("run", path).returncode == 0


def test_comments_of_init_are_valid_when_uncommented(command_line: CommandLine, checkpoint: Path) -> None:
    printed = command_line("init", checkpoint, "--output", "-").stdout
    head, spec = printed.split("spec:\n")
    words = [re.sub("^( +)# ", r"\1", line) for line in spec.splitlines() if "# Images like" not in line]
    body = yaml.safe_load(head + "spec:\n" + "\n".join(words))
    export = parse_export(body)
    assert export.model.parameters.input_size == (160, 192)
    assert export.calibration is not None


def test_init_keeps_an_existing_file(command_line: CommandLine, checkpoint: Path) -> None:
    (command_line.folder / "mine.yaml").write_text("mine", encoding="utf-8")
    ended = command_line("init", checkpoint, "--output", "mine.yaml")
    assert ended.returncode == 2
    assert "mine.yaml: exists and is kept; remove it, or use another --output" in ended.stderr
    assert (command_line.folder / "mine.yaml").read_text(encoding="utf-8") == "mine"
