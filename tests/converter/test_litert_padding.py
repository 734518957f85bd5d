"""Pooling with borders in LiteRT: what a ReLU leaves is padded with zeros, which 8 bits can hold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modelexport.matrix import Scheme
from modelexport_converter.model import LoadedModel, Output, Preprocessing

pytestmark = pytest.mark.xdist_group("litert-padding")


class Stem(torch.nn.Module):
    """The first layers of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.pool = torch.nn.MaxPool2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 32, 32) to (1, 16, 16, 16)."""
        return (self.pool(self.convolution(image).relu()) * 0.5,)


def test_a_resnets_first_layers_can_be_quantised_to_eight_bits(tmp_path: Path) -> None:
    from modelexport_converter.backends import litert

    outputs = (Output("features", ("batch", "class", "row", "column"), ""),)
    model = LoadedModel(Stem().eval().requires_grad_(False), (32, 32), outputs, (), Preprocessing("stretch"))
    full, small = tmp_path / "full.tflite", tmp_path / "small.tflite"
    image = model.example_input()
    litert.convert(model, Scheme.FP32, full)
    litert.quantise(model, full, Scheme.STATIC_WI8_AI8, [image.numpy()], small)
    expected = model.module(image)[0].numpy()
    np.testing.assert_allclose(litert.open_file(model, full)(image.numpy())[0], expected, atol=1e-6)
    np.testing.assert_allclose(litert.open_file(model, small)(image.numpy())[0], expected, atol=0.02)
