"""Errors of bad input name file, field, value and way out; commands that only read."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import ROOT, CommandLine, model_export
from modelexport import __version__
from modelexport.cli import main
from modelexport.matrix.support import ARCHITECTURES, TARGETS, Format, cells
from modelexport.planning.estimates import TITLES


def change(**fields: Any) -> dict[str, Any]:
    body = model_export("shapes")
    body["spec"].update(fields)
    return body


def export_class() -> Any:
    return yaml.safe_load((ROOT / "examples/exportclass-pools.yaml").read_text(encoding="utf-8"))


CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}
BAD_BODIES: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown format": (
        lambda: change(targets=[{"format": "TFLite", "precision": "INT8"}]),
        "spec.targets[0].format: 'TFLite' is not known; use one of LiteRT, ONNX, CoreML, PyTorch, TensorFlow, "
        "ExecuTorch",
    ),
    "an unknown architecture": (
        lambda: change(model={"architecture": "YOLOv9", "checkpoint": {"uri": "s3://abc/a.pt"}}),
        "spec.model.architecture: 'YOLOv9' is not supported; use one of YOLOv8",
    ),
    "a checkpoint without a scheme": (
        lambda: change(model={"architecture": "YOLOv8", "checkpoint": {"uri": "a.pt"}}),
        "spec.model.checkpoint.uri: 'a.pt' is not a supported URI; use s3://bucket/key",
    ),
    "a misspelt field": (
        lambda: change(calibrations={"dataset": {"uri": "s3://abc/a.zip"}}),
        "spec.calibrations: is not known; did you mean calibration?",
    ),
    "a misspelt field of the checkpoint": (
        lambda: change(model={"architecture": "YOLOv8", "checkpoint": {"uri": "s3://abc/a.pt", "sha265": "0" * 64}}),
        "spec.model.checkpoint.sha265: is not known; did you mean sha256?",
    ),
    "a parameter in the spelling of Python": (
        lambda: change(
            model={
                "architecture": "FasterRCNN",
                "checkpoint": {"uri": "s3://abc/a.pt"},
                "parameters": {"numClasses": 3, "score_threshold": "0.5"},
            }
        ),
        "spec.model.parameters.score_threshold: is not known; did you mean scoreThreshold?",
    ),
    "a misspelt field of a target": (
        lambda: change(targets=[{"format": "ONNX", "precision": "FP32"}, {"format": "ONNX", "precison": "FP16"}]),
        "spec.targets[1].precison: is not known; did you mean precision?",
    ),
    "a field unlike any other": (
        lambda: change(calibration={"dataset": {"uri": "s3://abc/a.zip"}, "batch": 8}),
        "spec.calibration.batch: is not known; use one of dataset, samples",
    ),
    "a field that YAML takes for a boolean": (
        lambda: change(calibration={"dataset": {"uri": "s3://abc/a.zip"}, True: 8}),
        "spec.calibration.True: is not known; use one of dataset, samples",
    ),
    "a misspelt field beside the spec": (
        lambda: {**model_export("shapes"), "metdata": {"labels": {}}},
        "metdata: is not known; did you mean metadata?",
    ),
    "a name that is too long": (
        lambda: model_export("a" * 64),
        "metadata.name: becomes a label of the Jobs; use at most 63 characters",
    ),
    "no targets": (lambda: change(targets=[]), "spec.targets: add at least one target"),
    "another kind only": (lambda: dict(CONFIG_MAP), "has no ModelExport; see examples/yolov8.yaml"),
    "a list of objects": (
        lambda: {"apiVersion": "v1", "kind": "List", "items": [model_export()]},
        "has no ModelExport (items of a List are not read; write each as a separate document",
    ),
    "a list": (lambda: [1, 2], "'[1, 2]' is not a Kubernetes object"),
    "nothing": (lambda: None, "has no objects"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_invalid_object_error_gives_file_field_value_and_remedy(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, message = BAD_BODIES[case]
    path = command_line.write(make())
    assert main(["run", str(path)]) == 2
    assert f"modelexport: {path}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "validate"])
def test_extended_cell_is_refused_under_stable_with_remedy(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    coreml = frozenset(target for target in TARGETS if target.format is Format.COREML)
    row = replace(ARCHITECTURES["YOLOv8"], extended=coreml)
    monkeypatch.setitem(ARCHITECTURES, "YOLOv8", row)
    path = command_line.write(model_export("shapes", "CoreML/FP32", "ONNX/FP32", "CoreML/INT8"))
    assert main([command, str(path)]) == 2
    words = (
        "spec.targets[0]: CoreML/FP32, CoreML/INT8 are not in the stable matrix for YOLOv8 (stable: LiteRT, ONNX, "
        "PyTorch, TensorFlow, ExecuTorch); "
        "set spec.supportLevel: Extended"
    )
    assert words in capsys.readouterr().err
    path = command_line.write(model_export("shapes", "CoreML/FP32", supportLevel="Extended"))
    assert main(["validate", str(path)]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [1", "is not valid YAML: "), (b"\xff\xfe", "is not UTF-8 text")],
)
def test_invalid_yaml_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    path = tmp_path / "export.yaml"
    path.write_bytes(content)
    assert main(["validate", str(path)]) == 2
    assert f"{path}: {message}" in capsys.readouterr().err


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "nothing.yaml")]) == 2
    assert "nothing.yaml: No such file or directory; use a file with a ModelExport" in capsys.readouterr().err


def test_error_gives_document_number(command_line: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    path = command_line.write(model_export("good"), change(targets=[]))
    assert main(["validate", str(path)]) == 2
    assert f"{path}, document 2: spec.targets" in capsys.readouterr().err


def test_duplicate_export_names_are_refused(command_line: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    path = command_line.write(model_export("same"), model_export("same"))
    assert main(["run", str(path)]) == 2
    assert "default/same is used twice" in capsys.readouterr().err


def test_valid_file_is_confirmed_per_object(command_line: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    path = command_line.write(model_export("good", "ONNX/FP32", "ONNX/INT8"), CONFIG_MAP)
    assert main(["validate", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("ModelExport default/good is valid, 2 targets")
    assert second.endswith("ConfigMap is not a ModelExport kind, skipped")


OURS = "modelexport.dev/v1alpha1"
BAD_KINDS: dict[str, tuple[Any, Any, str]] = {
    "another case": (OURS, "Modelexport", "kind: 'Modelexport' is not known; did you mean ModelExport?"),
    "the plural": (OURS, "ModelExports", "kind: 'ModelExports' is not known; did you mean ModelExport?"),
    "a slip": (OURS, "ModelExprot", "kind: 'ModelExprot' is not known; did you mean ModelExport?"),
    "a slip in the class": (OURS, "ExportClas", "kind: 'ExportClas' is not known; did you mean ExportClass?"),
    "unlike ours": (OURS, "Conversion", "kind: 'Conversion' is not known; use one of ModelExport, ExportClass"),
    "a slip with another version": ("v1", "modelexport", "kind: 'modelexport' is not known; did you mean ModelExport?"),
    "another version": (
        "modelexport.dev/v1",
        "ModelExport",
        f"apiVersion: 'modelexport.dev/v1' is not the version of ModelExport; did you mean {OURS}?",
    ),
    "a slip in the group": (
        "modelexports.dev/v1alpha1",
        "ExportClass",
        f"apiVersion: 'modelexports.dev/v1alpha1' is not the version of ExportClass; did you mean {OURS}?",
    ),
    "another case of the group": ("ModelExport.dev/v1alpha1", "Job", "kind: 'Job' is not known; use one of"),
    "no kind": (OURS, None, f"kind: is missing; write apiVersion: {OURS} and kind: ModelExport"),
    "no version": (None, "ModelExport", f"apiVersion: is missing; write apiVersion: {OURS} and kind: ModelExport"),
    "nothing of both": (None, None, "apiVersion: is missing; "),
    "a list as kind": (OURS, ["ModelExport"], "kind: \"['ModelExport']\" is not a string"),
    "a number as version": (1, "ModelExport", "apiVersion: '1' is not a string"),
    "an empty kind": (OURS, "", "kind: '' is not a string"),
    "a kind that acts on the terminal": (
        "v1",
        "\x1b[2JModelExport",
        "apiVersion: 'v1' is not the version of ModelExport",
    ),
}


@pytest.mark.parametrize("case", BAD_KINDS)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_unknown_kind_is_refused(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str], command: str, case: str
) -> None:
    version, kind, message = BAD_KINDS[case]
    named = {"apiVersion": version, "kind": kind}
    body = {**model_export(), **named}
    path = command_line.write({key: value for key, value in body.items() if value is not None}, model_export("good"))
    assert main([command, str(path)]) == 2
    said = capsys.readouterr().err
    assert f"modelexport: {path}, document 1: {message}" in said
    assert "\x1b" not in said


def test_file_without_our_objects_is_invalid(command_line: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    path = command_line.write(CONFIG_MAP)
    assert main(["validate", str(path)]) == 2
    told = capsys.readouterr()
    assert f"{path}: ConfigMap is not a ModelExport kind, skipped" in told.out
    assert f"{path}: has neither a ModelExport nor an ExportClass; see examples/yolov8.yaml" in told.err


@pytest.mark.parametrize(("checkpoint", "images"), [("file:///a.pt", "s3://abc/b/"), ("s3://abc/a.pt", "file:///b/")])
def test_local_only_sources_are_reported(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str], checkpoint: str, images: str
) -> None:
    model = {"architecture": "YOLOv8", "checkpoint": {"uri": checkpoint}}
    path = command_line.write(change(model=model, calibration={"dataset": {"uri": images}}))
    assert main(["validate", str(path)]) == 0
    words = "default/shapes is valid for modelexport run, 1 targets; a cluster takes s3:// and https:// only\n"
    assert capsys.readouterr().out.endswith(words)


def test_misspelt_class_field_is_refused(command_line: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    body = export_class()
    body["spec"]["nodePools"][0]["tolerations"][0]["efect"] = "NoSchedule"
    path = command_line.write(body)
    assert main(["validate", str(path)]) == 2
    words = "spec.nodePools[0].tolerations[0].efect: is not known; did you mean effect?"
    assert f"modelexport: {path}: {words}" in capsys.readouterr().err


def test_labels_resources_and_metadata_accept_any_value(command_line: CommandLine) -> None:
    body = export_class()
    body["metadata"]["labels"] = {"any": "label"}
    body["spec"]["nodePools"][0] |= {"nodeSelector": {"any": "label"}, "resources": {"any.domain/device": 1}}
    applied = {**model_export("shapes" * 10 + "abc"), "status": {"of": "another version"}}
    assert main(["validate", str(command_line.write(body, applied))]) == 0


def test_repository_example_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(ROOT / "examples/yolov8.yaml")]) == 0
    assert "9 targets" in capsys.readouterr().out


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(example: Path) -> None:
    assert main(["validate", str(example)]) == 0


def documented_exports() -> dict[str, str]:
    """The ModelExports of the pages of the documentation as YAML, by page."""
    pages = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    blocks = {path.name: re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) for path, text in pages.items()}
    exports = {name: [block for block in found if "\nkind: ModelExport\n" in block] for name, found in blocks.items()}
    return {name: "---\n".join(found) for name, found in exports.items() if found}


def test_pages_show_exports() -> None:
    assert documented_exports()


@pytest.mark.parametrize("page", documented_exports())
def test_every_documented_export_is_valid(page: str, tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(documented_exports()[page], encoding="utf-8")
    assert main(["validate", str(path)]) == 0


def test_json_matrix_has_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(cells())


def test_markdown_matrix_has_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "-o", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cells()) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_table_matrix_names_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix"]) == 0
    output = capsys.readouterr().out
    assert all(f" {name} " in output for name in ARCHITECTURES)
    assert "CoreML has no W8A16: Apple's devices compute in 16-bit floats" in output


def test_matrix_of_one_architecture_shows_all_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "UNet"]) == 0
    output = capsys.readouterr().out
    assert all(f"{target} " in output for target in TARGETS)
    assert all(f" {title} " in output.replace("\n", " ") for title in TITLES[1:])
    assert "…" not in output
    assert "suits Neural Engine" in output
    assert main(["matrix", "UNet", "-o", "json"]) == 0
    assert {record["architecture"] for record in json.loads(capsys.readouterr().out)} == {"UNet"}


def test_unknown_architecture_is_refused_with_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["matrix", "YOLOv9"]) == 2
    assert "'YOLOv9' is not in the matrix; use one of YOLOv8, YOLO11" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["get", "download"])
def test_server_as_local_store_is_refused_with_remedy(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "shapes", "--store", "http://127.0.0.1:9000"]) == 2
    words = "--store: this command reads directories only; fetch the files of a server with an S3 client"
    assert words in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"modelexport {__version__}\n"


def test_every_command_help_has_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "validate", "matrix"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"modelexport {command} " in capsys.readouterr().out.split("example", 1)[1]


def test_missing_command_is_requested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
