"""Small layers that nothing reads in 8 bits stay in float if they cause much of the noise of an output."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, load
from torch import nn

from modelexport.matrix.options import NO_OPTIONS, Options
from modelexport.matrix.support import Recipe
from modelexport_converter.backends import noise_budget, onnx
from modelexport_converter.backends.small_layers import Layer, pick_small_layers
from modelexport_converter.model import LoadedModel, Output, Preprocessing

BODY = Layer(["body"], ["neck"], 10_000, 1_000_000)
NECK = Layer(["neck"], ["head"], 100, 5_000)
HEAD = Layer(["head"], [], 100, 5_000)
LAYERS = {"body": BODY, "neck": NECK, "head": HEAD}


def pick(layers: Mapping[str, Layer] = LAYERS, **noise: float) -> list[str]:
    return pick_small_layers({"scores": noise}, layers, 0.05)


def test_small_noisy_layers_at_the_end_stay_in_float() -> None:
    assert pick(body=4, neck=3, head=3) == ["head", "neck"]


def test_layer_that_causes_little_noise_stays_in_8_bits() -> None:
    assert pick(body=96, neck=2, head=2) == []


def test_layer_that_another_reads_in_8_bits_stays_as_well() -> None:
    assert pick(body=5, neck=5, head=0) == []


def test_layer_with_many_operations_stays_in_8_bits() -> None:
    assert pick({**LAYERS, "head": Layer(["head"], [], 100, 100_000)}, body=1, head=9) == []


def test_layer_with_many_weights_stays_in_8_bits() -> None:
    assert pick({**LAYERS, "head": Layer(["head"], [], 300, 5_000)}, body=1, head=9) == []


@pytest.mark.parametrize(("weights", "operations"), [(90, 1_000), (9, 20_000)])
def test_layers_share_the_bound_of_all(weights: int, operations: int) -> None:
    layers = {f"head {n}": Layer([f"head {n}"], [], weights, operations) for n in range(4)}
    chosen = pick_small_layers({"boxes": dict.fromkeys(layers, 1.0)}, {"body": BODY, **layers}, 0.05)
    assert chosen == ["head 0", "head 1"]


def test_layer_counts_by_the_output_that_it_harms_most() -> None:
    by_output = {"scores": {"body": 1000.0, "head": 1.0}, "boxes": {"body": 1.0, "head": 1.0}}
    assert pick_small_layers(by_output, LAYERS, 0.05) == ["head"]


def test_nothing_stays_in_float_without_measured_noise() -> None:
    assert pick_small_layers({}, LAYERS, 0.05) == []
    assert pick_small_layers({"boxes": {"body": 0.0}}, LAYERS, 0.05) == []
    assert pick_small_layers({}, {}, 0.05) == []


class Classifier(nn.Module):
    """A convolution, and a layer with few weights at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 64, 5), nn.Conv2d(64, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 16, 16) to (1, 1)."""
        return (self.head(self.body(image).relu().mean((2, 3), True)).flatten(1).sigmoid(),)


MODEL = LoadedModel(
    Classifier().eval().requires_grad_(False),
    (16, 16),
    (Output("probabilities", ("batch", "class"), ""),),
    (),
    Preprocessing("stretch"),
)
IMAGES = [np.random.default_rng(seed).random((1, 3, 16, 16), np.float32) for seed in range(4)]
BODY_WEIGHTS, HEAD_WEIGHTS = 64 * 75, 64


@pytest.mark.xdist_group("litert-reach")
def test_last_layer_stays_in_float_in_litert_if_noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelexport_converter.backends import litert

    full, small = tmp_path / "full.tflite", tmp_path / "small.tflite"
    litert.convert(MODEL, Recipe.FP32, full)

    def weights() -> Mapping[str, int]:
        assert litert.quantise(MODEL, full, Recipe.STATIC_WI8_AI8, IMAGES, small) == {}
        return litert.inspect(small).weight_types

    assert weights()["int8"] == BODY_WEIGHTS + HEAD_WEIGHTS
    monkeypatch.setattr(noise_budget, "NOISY", 0)
    assert weights()["int8"] == BODY_WEIGHTS
    assert weights()["float32"] >= HEAD_WEIGHTS


@pytest.mark.parametrize("options", [NO_OPTIONS, Options(dynamic_batch=True)], ids=["fixed", "any batch"])
def test_last_layer_stays_in_float_in_onnx_if_noisy(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, full, small = replace(MODEL, options=options), tmp_path / "full.onnx", tmp_path / "small.onnx"
    onnx.convert(model, Recipe.FP32, full)

    def count_int8() -> int:
        assert onnx.quantise(model, full, Recipe.STATIC_WI8_AI8, IMAGES, small) == {}
        return onnx.inspect(small).weight_types["int8"]

    everything = count_int8()
    monkeypatch.setattr(noise_budget, "NOISY", 0)
    assert everything - count_int8() == HEAD_WEIGHTS + 1  # with the zero point of its only channel


class Stem(nn.Module):
    """A small convolution at the start, its activation, and a large one."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.activation, self.body = nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 64, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 16, 16) to (1, 64)."""
        return (self.body(self.activation(self.stem(image))).mean((2, 3)),)


@pytest.mark.parametrize(("activation", "is_float"), [(nn.SiLU(), True), (nn.ReLU(), False)], ids=["SiLU", "ReLU"])
def test_first_layer_of_onnx_stays_in_float_before_silu(
    activation: nn.Module, *, is_float: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_budget, "NOISY", 0)
    model, full, small = replace(MODEL, module=Stem(activation).eval()), tmp_path / "full.onnx", tmp_path / "small.onnx"
    onnx.convert(model, Recipe.FP32, full)
    onnx.quantise(model, full, Recipe.STATIC_WI8_AI8, IMAGES, small)
    weights = [tensor for tensor in load(small).graph.initializer if tensor.dims == [4, 3, 1, 1]]
    assert [tensor.data_type == TensorProto.FLOAT for tensor in weights] == [is_float]
