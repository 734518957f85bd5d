"""Limits of LiteRT's INT8: outputs of a ReLU are padded with zeros for pooling, and masks stay in float."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array
from modelexport_converter.model import LoadedModel, Output, Preprocessing

pytestmark = pytest.mark.xdist_group("litert-reach")


class Stem(torch.nn.Module):
    """The first layers of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.pool = torch.nn.MaxPool2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 32, 32) to (1, 16, 16, 16)."""
        return (self.pool(self.convolution(image).relu()) * 0.5,)


class Attention(torch.nn.Module):
    """Places of a feature map that attend to the places before them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.register_buffer("mask", torch.full((16, 16), -torch.inf).triu(1))
        self.head = torch.nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 32, 32) to (1, 4)."""
        places = self.embed(image).flatten(2).mT
        attention = (places @ places.mT + self.get_buffer("mask")).softmax(2)
        return (self.head((attention @ places).mean(1)).sigmoid(),)


def write(module: torch.nn.Module, axes: tuple[str, ...], images: list[Array], folder: Path) -> LoadedModel:
    """The model of a module, after it was written to ``full.tflite`` and, calibrated on images, ``small.tflite``."""
    from modelexport_converter.backends import litert

    outputs = (Output("values", axes, ""),)
    model = LoadedModel(module.eval().requires_grad_(False), (32, 32), outputs, (), Preprocessing("stretch"))
    litert.convert(model, Recipe.FP32, folder / "full.tflite")
    litert.quantise(model, folder / "full.tflite", Recipe.STATIC_WI8_AI8, images, folder / "small.tflite")
    return model


def assert_close(model: LoadedModel, path: Path, image: Array, tolerance: float) -> None:
    from modelexport_converter.backends import litert

    expected = model.module(torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(litert.open_file(model, path)(image)[0], expected, atol=tolerance)


def test_first_layers_of_resnet_can_be_quantised_to_int8(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    model = write(Stem(), ("batch", "class", "row", "column"), [image], tmp_path)
    assert_close(model, tmp_path / "full.tflite", image, 1e-6)
    assert_close(model, tmp_path / "small.tflite", image, 0.02)


def test_masked_attention_can_be_quantised_to_int8(tmp_path: Path) -> None:
    from modelexport_converter.backends import litert

    torch.manual_seed(0)
    images = [np.random.default_rng(seed).random((1, 3, 32, 32), np.float32) for seed in range(3)]
    model = write(Attention(), ("batch", "class"), images, tmp_path)
    assert litert.inspect(tmp_path / "small.tflite").weight_types["int8"] >= 16 * 3 * 64
    for image in images:
        assert_close(model, tmp_path / "small.tflite", image, 0.01)
