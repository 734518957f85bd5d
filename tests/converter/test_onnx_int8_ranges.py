"""ONNX INT8: the tensor after a ReLU or a clip is quantised, and not the one before it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array
from modelexport_converter.backends import onnx as backend
from modelexport_converter.backends.activation_ranges import Budget, CalibrationMemo
from modelexport_converter.backends.noise_budget import plan_ranges
from modelexport_converter.model import LoadedModel, Output, Preprocessing

IMAGES = [np.random.default_rng(seed).random((1, 3, 16, 16), np.float32) for seed in range(3)]


class Residual(torch.nn.Module):
    """Two convolutions, each followed by an activation; no convolution reads what the second one leaves."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)
        self.limits = low, high

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 16, 16) to (1, 8, 16, 16)."""
        hidden = self.first(image).relu()
        return (hidden + self.second(hidden).clamp(*self.limits),)


def write(module: torch.nn.Module, folder: Path, count: int = 0) -> tuple[onnx.ModelProto, list[Array], list[Array]]:
    """The INT8 file of a module with up to ``count`` layers in float, and the outputs of both for the images."""
    outputs = (Output("values", ("batch", "class", "row", "column"), ""),)
    model = LoadedModel(module.eval().requires_grad_(False), (16, 16), outputs, (), Preprocessing("stretch"))
    backend.convert(model, Recipe.FP32, folder / "full.onnx")
    full, small, recipe = folder / "full.onnx", folder / "small.onnx", Recipe.STATIC_WI8_AI8
    assert len(backend.quantise(model, full, recipe, IMAGES, small, max_float_layers=count)) == count
    run = backend.open_file(model, folder / "small.onnx")
    expected = [model.module(torch.from_numpy(image))[0].numpy() for image in IMAGES]
    return onnx.load(folder / "small.onnx"), expected, [run(image)[0] for image in IMAGES]


def test_ranges_replace_relu_and_clip(tmp_path: Path) -> None:
    content, expected, found = write(Residual(-0.1, 0.2), tmp_path)
    counts = Counter(node.op_type for node in content.graph.node)
    assert (counts["Relu"], counts["Clip"], counts["QuantizeLinear"]) == (0, 0, 3)  # image and two results
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_relu_result_spends_no_step_below_zero(tmp_path: Path) -> None:
    content, _, _ = write(Residual(0, 6), tmp_path)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in content.graph.initializer}
    zeros = [constants[node.input[2]] for node in content.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros == [0, 0, 0]


def test_clip_above_zero_stays(tmp_path: Path) -> None:
    content, expected, found = write(Residual(0.1, 0.2), tmp_path)
    assert [node.op_type for node in content.graph.node].count("Clip") == 1
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_ranges_are_planned_in_order_of_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = list[str]()

    def plan(model: LoadedModel, samples: Any, extremes: Any, *more: Any) -> Budget:
        planned.extend(extremes)
        return plan_ranges(model, samples, extremes, *more)

    monkeypatch.setattr(backend, "plan_ranges", plan)
    write(Residual(0, 6), tmp_path)
    computed = [name for node in onnx.load(tmp_path / "full.onnx").graph.node for name in node.output]
    assert planned == ["image", *(name for name in computed if name in planned)]
    assert len(planned) == 5


def test_onnx_keeps_as_many_layers_in_float_as_asked(tmp_path: Path) -> None:
    content, expected, found = write(Residual(-0.1, 0.2), tmp_path, 1)
    layers = [node.input[1] for node in content.graph.node if node.op_type == "Conv"]
    floats = {tensor.name for tensor in content.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert sum(weight in floats for weight in layers) == 1
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_rungs_share_one_calibration_and_change_no_byte_of_first(tmp_path: Path) -> None:
    write(Residual(0, 6), tmp_path)
    outputs = (Output("values", ("batch", "class", "row", "column"), ""),)
    network = Residual(0, 6).eval().requires_grad_(False)
    model, memo = LoadedModel(network, (16, 16), outputs, (), Preprocessing("stretch")), CalibrationMemo()
    first, mixed = tmp_path / "first.onnx", tmp_path / "mixed.onnx"
    full, recipe = tmp_path / "full.onnx", Recipe.STATIC_WI8_AI8
    assert backend.quantise(model, full, recipe, IMAGES, first, memo=memo) == {}
    assert first.read_bytes() == (tmp_path / "small.onnx").read_bytes()
    layers = backend.quantise(model, full, recipe, (), mixed, max_float_layers=1, memo=memo)  # no image is needed
    assert len(layers) == 1
    assert 0.5 < sum(layers.values()) < 1
    assert len(onnx.load(mixed).graph.node) < len(onnx.load(first).graph.node)
