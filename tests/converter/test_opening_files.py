"""The programs of docs/reading-files.md, each in a process that has nothing of ours on its path."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.test_options import CHANNELS_LAST, PIXELS, produce_detector, produce_vision_detector
from converter.test_options import produce as produce_with_options
from modelexport.matrix.options import InputKind, InputType, Options, PreprocessingPlace
from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.publishing.packing import pack
from modelexport_converter.rotated_boxes import corners
from modelexport_converter.verification.answers import read_detections
from trained.cells import eval_inputs, load_model, produce, run_model

PAGE = (Path(__file__).parents[2] / "docs/reading-files.md").read_text(encoding="utf-8")
ALONE = "import sys; assert not any('modelexport' in name for name in sys.modules)"
CLASSIFIER = "YOLOv8-CLS"


def programs() -> dict[str, str]:
    """The blocks of code by the last words in bold that begin a paragraph before them."""
    parts = PAGE.split("```python\n")
    names = [re.findall(r"^\*\*([\w-]+)\*\*", part, re.MULTILINE)[-1] for part in parts[:-1]]
    return {name: part.partition("```")[0] for name, part in zip(names, parts[1:], strict=True)}


PROGRAMS = programs()


def run_program(name: str, fmt: Format, file: Path, folder: Path) -> str:
    pack(file, folder / f"shapes-fp32{BACKENDS[fmt].suffix}")
    command = [sys.executable, "-I", "-W", "error::UserWarning", "-c", f"{PROGRAMS[name]}{ALONE}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_format_has_a_program() -> None:
    assert {name for name in PROGRAMS if "-" not in name} == set(Format)


@pytest.mark.parametrize(
    "fmt",
    [pytest.param(fmt, marks=pytest.mark.xdist_group(f"{CLASSIFIER}-{fmt}")) for fmt in Format if fmt != Format.COREML],
)
def test_program_of_page_opens_a_file(fmt: Format, tmp_path: Path) -> None:
    file = produce(CLASSIFIER, fmt, Recipe.FP32)
    assert run_program(str(fmt), fmt, file, tmp_path) == "probabilities (1, 3)\n"


OPTIONS: dict[str, tuple[Options, str]] = {
    "ONNX-uint8": (PIXELS, "probabilities (1, 4)\n"),
    "ONNX-batch": (Options(dynamic_batch=True), "probabilities (5, 4)\n"),
    "ONNX-size": (Options(dynamic_size=True), "probabilities (1, 4)\n"),
    "ONNX-opset": (Options(opset=13), "13\nprobabilities (1, 4)\n"),
    "LiteRT-uint8": (PIXELS, "probabilities (1, 4)\n"),
    "LiteRT-float": (replace(CHANNELS_LAST, preprocessing=PreprocessingPlace.INSIDE), "probabilities (1, 4)\n"),
    "LiteRT-int8": (Options(input_type=InputType.INT8), "probabilities (1, 4)\n"),
    "LiteRT-labels": (replace(PIXELS, labels=True), "probabilities (1, 4) ['a', 'b', 'c', 'd']\n"),
    "CoreML": (Options(input=InputKind.IMAGE), "24 16 RGB\n"),
    "CoreML-classifier": (Options(input=InputKind.IMAGE, classifier=True), "classLabel classLabel_probs\n"),
}


SUPPRESSED = ("ONNX-nms", "LiteRT-nms")
ORIENTED = "ONNX-oriented"


def test_every_program_with_options_is_run() -> None:
    others = {"CoreML-nms", ORIENTED}
    assert {name for name in PROGRAMS if "-" in name} == {*OPTIONS, *SUPPRESSED, *others} - set(Format)


@pytest.mark.parametrize("name", SUPPRESSED)
def test_program_of_page_reads_boxes(name: str, tmp_path: Path) -> None:
    fmt = Format(name.partition("-")[0])
    printed = run_program(name, fmt, produce_detector(fmt, tmp_path), tmp_path)
    assert printed.endswith("(1, 300, 4) (1, 300) (1, 300)\n")
    assert len(printed.splitlines()) > 1


@pytest.mark.xdist_group("YOLOv8-OBB-ONNX")
def test_program_of_page_suppresses_oriented_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its boxes are those of fidelity, which suppresses as much."""
    architecture = "YOLOv8-OBB"
    file, model = produce(architecture, Format.ONNX, Recipe.FP32), load_model(architecture)
    noise = "np.random.rand(*session.get_inputs()[0].shape).astype(np.float32)"
    assert noise in PROGRAMS[ORIENTED]
    monkeypatch.setitem(PROGRAMS, ORIENTED, PROGRAMS[ORIENTED].replace(noise, 'np.load("image.npy")'))
    images = eval_inputs(architecture)[:4]
    for index, image in enumerate(images):
        np.save(tmp_path / "image.npy", image)
        printed = run_program(ORIENTED, Format.ONNX, file, tmp_path).splitlines()
        wanted = read_detections(model.outputs, model.input_size, run_model(architecture, image))
        assert wanted.rotated is not None, index
        found = [[float(number) for number in line.split()] for line in printed]
        assert [row[0] for row in found] == wanted.labels.tolist()
        assert np.array(found)[:, 2:] == pytest.approx(corners(wanted.rotated).reshape(-1, 8), abs=0.02)


def test_program_of_page_reads_what_vision_expects(tmp_path: Path) -> None:
    _, file = produce_vision_detector(Recipe.FP32, tmp_path)
    printed = run_program("CoreML-nms", Format.COREML, file, tmp_path)
    assert printed.splitlines() == [
        "['image', 'iouThreshold', 'confidenceThreshold']",
        "0.7 0.25 ['class 0', 'class 1']",
    ]


@pytest.mark.parametrize("name", OPTIONS)
def test_program_of_page_opens_a_file_with_options(name: str, tmp_path: Path) -> None:
    options, printed = OPTIONS[name]
    fmt = Format(name.partition("-")[0])
    recipe = Recipe.STATIC_WI8_AI8 if options.input_type is InputType.INT8 else Recipe.FP32
    _, file = produce_with_options(fmt, recipe, options, tmp_path)
    assert run_program(name, fmt, file, tmp_path).endswith(printed)
