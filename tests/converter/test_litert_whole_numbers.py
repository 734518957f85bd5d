"""LiteRT files in INT8 that take whole numbers: pixels as uint8, or values that are quantised already as int8."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converter.test_options import Net, build, check_answers, prepared_images
from modelexport.matrix.options import InputType, Layout, Options
from modelexport.matrix.support import Format, Recipe
from modelexport_converter.backends import Array, litert, load_input_adapter
from modelexport_converter.backends.litert import read_metadata
from modelexport_converter.file_input import to_file_input
from modelexport_converter.model import LoadedModel
from modelexport_converter.publishing.report import describe_model
from modelexport_converter.verification.agreement import compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import eval_inputs, load_model, produce

QUANTISED, PIXELS = Options(input_type=InputType.INT8), Options(input_type=InputType.UINT8)
BOTH_LAYOUTS = [
    pytest.param(replace(options, layout=layout), id=f"{options}-{layout}")
    for options in (QUANTISED, PIXELS)
    for layout in Layout
]
together = pytest.mark.xdist_group("litert-whole-numbers")
"""Tests of one converted file."""
Convert = Callable[[Options], tuple[LoadedModel, Path]]


class OneReader(torch.nn.Module):
    """A network whose first layer alone reads the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, stride=2)
        self.linear = torch.nn.Linear(64, 4)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.softmax(4 * self.linear(torch.relu(self.conv(image)).mean((2, 3))), 1),)


class FloatFirst(torch.nn.Module):
    """A network whose first layer is no part of the body, which alone is in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, stride=2)
        self.body = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.softmax(self.body(torch.relu(self.conv(image)).mean((2, 3))), 1),)


def quantise(module: torch.nn.Module, folder: Path, body: tuple[str, ...] = ()) -> Convert:
    """Calibrate a network once, and return a function that applies options to its file."""
    model = build(Options(), module=module.eval().requires_grad_(False), low_precision_modules=body)
    litert.convert(model, Recipe.FP32, base := folder / "base.tflite")
    samples, plain = prepared_images(), folder / "plain.tflite"
    litert.quantise(model, base, Recipe.STATIC_WI8_AI8, samples, plain)

    def adapt(options: Options) -> tuple[LoadedModel, Path]:
        if not options:
            return model, plain
        changed = replace(model, options=options)
        load_input_adapter(Format.LITERT)(changed, plain, path := folder / f"{options}.tflite")
        return changed, path

    return adapt


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    torch.manual_seed(0)
    return quantise(OneReader(), tmp_path_factory.mktemp("one-reader"))


def tensors_before_layer(path: Path) -> list[Any]:
    """The types of all tensors that the first convolution of the network needs, itself and its weights excluded."""
    interpreter = Interpreter(str(path))
    types = {detail["index"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    ops = interpreter._get_ops_details()
    (first,) = (place for place, op in enumerate(ops) if op["op_name"] == "CONV_2D")
    return [types[index] for op in ops[:first] for index in (*op["inputs"], *op["outputs"])]


def first_input(path: Path, image: Array) -> Array:
    """The whole numbers that the first convolution of the network reads."""
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    interpreter.set_tensor(taken["index"], image)
    interpreter.invoke()
    (layer,) = (op for op in interpreter._get_ops_details() if op["op_name"] == "CONV_2D")
    return interpreter.get_tensor(layer["inputs"][0])


@together
@pytest.mark.parametrize("options", BOTH_LAYOUTS)
def test_first_layer_reads_what_it_would_without_options(convert: Convert, options: Options) -> None:
    (_, plain), (model, path) = convert(Options()), convert(options)
    for image in prepared_images():
        expected = first_input(plain, image).astype(int)
        taken = Interpreter(str(path)).get_input_details()[0]
        scale = taken["quantization"] if taken["dtype"] is np.int8 else None
        found = first_input(path, to_file_input(model, image, scale)).astype(int)
        # A pixel on the border of two steps may be rounded to the other one.
        assert np.abs(found - expected).max() <= (options.input_type is InputType.UINT8)
        assert (found != expected).mean() < 0.01


@together
@pytest.mark.parametrize("options", BOTH_LAYOUTS)
def test_nothing_is_in_float_before_the_first_layer(convert: Convert, options: Options) -> None:
    assert np.float32 not in tensors_before_layer(convert(options)[1])
    assert np.float32 in tensors_before_layer(convert(Options())[1])


@together
@pytest.mark.parametrize("options", BOTH_LAYOUTS)
def test_file_is_verified_through_its_option(convert: Convert, options: Options) -> None:
    model, path = convert(options)
    facts = litert.inspect(path)
    check_facts(facts, model, Recipe.STATIC_WI8_AI8)
    assert facts.input_types == {"image": str(options.input_type)}
    check_answers(model, litert.open_file(model, path), 0.03)


@together
@pytest.mark.parametrize("layout", Layout)
def test_scale_is_in_metadata_and_report(convert: Convert, layout: Layout) -> None:
    model, path = convert(replace(QUANTISED, layout=layout))
    scale, zero = Interpreter(str(path)).get_input_details()[0]["quantization"]
    wanted = {"scale": pytest.approx(scale), "zeroPoint": zero}
    assert json.loads(read_metadata(path)["input"])["quantization"] == wanted
    assert describe_model(model, litert.inspect(path))["input"]["quantization"] == wanted
    model, path = convert(replace(PIXELS, layout=layout))
    assert "quantization" not in json.loads(read_metadata(path)["input"])
    assert describe_model(model, litert.inspect(path))["input"]["quantization"] is None


@pytest.mark.parametrize(
    ("module", "body", "readers"), [(Net, (), {"QUANTIZE", "SLICE"}), (FloatFirst, ("body",), {"TRANSPOSE"})]
)
def test_operators_in_float_read_whole_numbers_too(
    module: type[torch.nn.Module], body: tuple[str, ...], readers: set[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    adapt = quantise(module(), tmp_path, body)
    plain = Interpreter(str(adapt(Options())[1]))
    (taken,) = plain.get_input_details()
    assert {op["op_name"] for op in plain._get_ops_details() if taken["index"] in op["inputs"]} == readers
    for options in (QUANTISED, PIXELS, replace(QUANTISED, layout=Layout.NHWC), replace(PIXELS, layout=Layout.NHWC)):
        model, path = adapt(options)
        check_answers(model, litert.open_file(model, path), 0.03)


def test_scale_covers_all_pixels_if_first_layer_is_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = quantise(FloatFirst(), tmp_path, ("body",))(QUANTISED)
    scale = Interpreter(str(path)).get_input_details()[0]["quantization"]
    for image in prepared_images():
        found = first_input(path, to_file_input(model, image, scale))
        assert np.abs(found - image.transpose(0, 2, 3, 1)).max() <= 0.51 * scale[0]


def test_file_in_float_takes_no_quantised_values(tmp_path: Path) -> None:
    litert.convert(model := build(QUANTISED), Recipe.FP32, path := tmp_path / "base.tflite")
    with pytest.raises(ValueError, match="quantises no activation"):
        load_input_adapter(Format.LITERT)(model, path, tmp_path / "adapted.tflite")


@pytest.mark.xdist_group("YOLOv8-LiteRT")
@pytest.mark.parametrize("options", [QUANTISED, PIXELS], ids=str)
def test_trained_detector_agrees_as_without_the_option(options: Options, tmp_path: Path) -> None:
    plain = produce("YOLOv8", Format.LITERT, Recipe.STATIC_WI8_AI8)
    model = replace(load_model("YOLOv8"), options=replace(options, layout=Layout.NHWC))
    load_input_adapter(Format.LITERT)(model, plain, path := tmp_path / "adapted.tflite")
    measure = partial(compare, images=eval_inputs("YOLOv8")[:8])
    before = measure(load_model("YOLOv8"), litert.open_file(load_model("YOLOv8"), plain))
    after = measure(model, litert.open_file(model, path))
    assert after.value == pytest.approx(before.value, abs=1e-3)
