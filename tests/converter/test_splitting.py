"""Convolutions of more than 32 MiB in LiteRT, as in FCN and U-Net of the usual widths."""

from pathlib import Path

import pytest
import torch
from torch import nn

from modelexport.matrix.support import Recipe
from modelexport_converter.architectures.shared.segmentation import PROBABILITIES, Probabilities
from modelexport_converter.backends import conv_splitting, litert
from modelexport_converter.model import LoadedModel, Preprocessing
from modelexport_converter.verification.agreement import compare
from modelexport_converter.verification.inspection import check_facts

pytestmark = pytest.mark.xdist_group("splitting")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """A network whose middle has 36 MiB of weights."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 1024, 8, 8),
        nn.ReLU(),
        nn.Conv2d(1024, 1024, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(1024, 4, 1),
    )
    network = Probabilities(nn.Sequential(*layers), SIZE).eval().requires_grad_(False)
    return LoadedModel(network, SIZE, (PROBABILITIES,), ("a", "b", "c", "d"), Preprocessing("stretch"))


@pytest.fixture(scope="module")
def full(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "full.tflite"
    litert.convert(model, Recipe.FP32, path)
    return path


def test_split_convolution_stays_below_limit_with_same_output(model: LoadedModel) -> None:
    parts = conv_splitting.split_large_convolutions(model.module)
    sizes = [weight.nbytes for weight in parts.parameters()]
    assert max(sizes) <= conv_splitting.LIMIT < max(weight.nbytes for weight in model.module.parameters())
    assert sum(sizes) == sum(weight.nbytes for weight in model.module.parameters())
    torch.testing.assert_close(parts(model.example_input()), model.module(model.example_input()))


def test_network_without_large_convolutions_is_unchanged() -> None:
    network = nn.Conv2d(512, 512, 3)
    assert conv_splitting.split_large_convolutions(network) is network


@pytest.mark.parametrize("recipe", [Recipe.DYNAMIC_WI8_AFP32, Recipe.STATIC_WI8_AI8])
def test_large_convolution_is_quantised_to_int8(model: LoadedModel, full: Path, recipe: Recipe, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(1, 3, *SIZE, generator=generator).numpy() for _ in range(2)]
    litert.quantise(model, full, recipe, images, tmp_path / "small.tflite")
    check_facts(litert.inspect(tmp_path / "small.tflite"), model, recipe)
    assert (tmp_path / "small.tflite").stat().st_size < 0.27 * full.stat().st_size
    assert compare(model, litert.open_file(model, tmp_path / "small.tflite"), images).value > 0.99


def test_quantiser_rejects_unsplit_convolution(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once the quantiser accepts it, splitting is no longer needed."""
    monkeypatch.setattr(conv_splitting, "LIMIT", 1 << 30)
    litert.convert(model, Recipe.FP32, tmp_path / "whole.tflite")
    with pytest.raises(ValueError, match="Failed to get quantization parameters"):
        litert.quantise(model, tmp_path / "whole.tflite", Recipe.DYNAMIC_WI8_AFP32, (), tmp_path / "small.tflite")
