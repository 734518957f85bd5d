"""The generated programs in Python, each in a process that has nothing of ours on its path."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from converter.test_options import PIXELS as PIXEL_OPTIONS
from converter.test_options import produce
from modelexport.matrix.options import NO_OPTIONS, InputKind, InputType, Options
from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport.reading.facts import read_facts
from modelexport.reading.programs import write_programs
from modelexport_converter.backends import load_backend
from modelexport_converter.inputs.images import prepare
from modelexport_converter.model import Preprocessing
from modelexport_converter.publishing.packing import pack
from modelexport_converter.publishing.report import describe_model
from program_reports import PIXELS, PLAIN, TORCHVISION, report_of

SIZE = (128, 160)
KINDS = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8}
GREY: dict[str, Any] = {"mean": [0.0], "std": [1.0], "channels": 1}
CASES: dict[str, dict[str, Any]] = {
    "letterbox": PLAIN,
    "centre_crop": PLAIN | {"resize": "centre_crop"},
    "torchvision": TORCHVISION,
    "grey": GREY,
    "pixels": PIXELS | {"kind": "uint8", "last": True},
    "int8": PLAIN | {"kind": "int8"},
    "batch": PLAIN | {"batch": 4},
    "any-batch": PLAIN | {"batch": None},
}


def write_echo(path: Path, report: dict[str, Any]) -> None:
    """Write a file whose outputs are its input."""
    image, kind = report["model"]["input"], KINDS[report["model"]["input"]["type"]]
    nodes = [onnx.helper.make_node("Identity", ["image"], [name]) for name in ("boxes", "scores")]
    taken = onnx.helper.make_tensor_value_info("image", kind, [size or "batch" for size in image["shape"]])
    given = [onnx.helper.make_tensor_value_info(name, kind, None) for name in ("boxes", "scores")]
    graph = onnx.helper.make_graph(nodes, "echo", [taken], given)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize("name", CASES)
def test_program_prepares_an_image_as_the_verification(name: str, tmp_path: Path) -> None:
    report = report_of("ONNX", **CASES[name])
    facts = read_facts(report)
    write_echo(tmp_path / facts.file, report)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    photo = Image.fromarray(noise).resize((403, 211), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    program = f"{write_programs(facts)['Python']}np.save('image.npy', image)\n"
    command = [sys.executable, "-I", "-c", program, "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "image.npy")
    assert done.stdout.splitlines()[0].startswith(f"boxes {facts.shape} {found.ravel()[0]!s}")
    channels = facts.channels
    mean, std = facts.mean or (0.0,) * channels, facts.std or (1.0,) * channels
    resize: Any = facts.resize
    expected: np.ndarray[Any, Any] = prepare(photo, Preprocessing(resize, mean, std, channels), SIZE)
    if facts.image.type == "uint8":
        expected = np.rint(expected * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if facts.scale:
        expected = (np.rint(expected / np.float32(facts.scale[0])) + facts.scale[1]).clip(-128, 127).astype(np.int8)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, np.repeat(expected, facts.batch, axis=0))


def describe_file(fmt: Format, recipe: Recipe, options: Options, folder: Path) -> dict[str, Any]:
    """Convert a small classifier, and return its report as far as a program needs it."""
    model, path = produce(fmt, recipe, options, folder)
    name = f"small{BACKENDS[fmt].suffix}"
    pack(path, folder / name)
    described = json.loads(json.dumps(describe_model(model, load_backend(fmt).inspect(path))))
    target = {"request": {"target": {"format": str(fmt)}}, "artifact": {"uri": f"s3://exports/small/{name}"}}
    return target | {"model": described}


@pytest.mark.parametrize(
    ("fmt", "recipe", "options"),
    [
        (Format.LITERT, Recipe.FP32, NO_OPTIONS),
        (Format.LITERT, Recipe.FP32, PIXEL_OPTIONS),
        (Format.LITERT, Recipe.STATIC_WI8_AI8, Options(input_type=InputType.INT8)),
        (Format.ONNX, Recipe.FP32, PIXEL_OPTIONS),
        (Format.ONNX, Recipe.FP32, Options(batch=4)),
        (Format.PYTORCH, Recipe.FP32, NO_OPTIONS),
        (Format.TENSORFLOW, Recipe.FP32, NO_OPTIONS),
        (Format.EXECUTORCH, Recipe.FP32, NO_OPTIONS),
    ],
)
def test_program_runs_the_file_of_its_report(fmt: Format, recipe: Recipe, options: Options, tmp_path: Path) -> None:
    facts = read_facts(describe_file(fmt, recipe, options, tmp_path))
    Image.new("RGB", (60, 30), (200, 100, 50)).save(tmp_path / "photo.png")
    command = [sys.executable, "-I", "-c", write_programs(facts)["Python"], "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"probabilities ({facts.batch}, 4) ")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (NO_OPTIONS, "MLShapedArray"),
        (Options(input=InputKind.IMAGE), "CVPixelBufferCreate"),
        (Options(input=InputKind.IMAGE, classifier=True), "VNClassificationObservation"),
    ],
)
def test_swift_opens_the_file_as_its_options_ask(options: Options, part: str, tmp_path: Path) -> None:
    facts = read_facts(describe_file(Format.COREML, Recipe.FP32, options, tmp_path))
    assert part in write_programs(facts)["Swift"]
