"""Convolutions of more than 32 MiB, which FCN and U-Net of the usual widths have, in LiteRT."""

from pathlib import Path

import pytest
import torch
from torch import nn

from modelexport.matrix import Scheme
from modelexport_converter.backends import litert, splitting
from modelexport_converter.inspection import check_facts
from modelexport_converter.model import LoadedModel, Preprocessing
from modelexport_converter.semantic import PROBABILITIES, Probabilities
from modelexport_converter.verify import compare

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
    litert.convert(model, Scheme.FP32, path)
    return path


def test_the_parts_of_a_convolution_are_below_the_limit_and_give_its_output(model: LoadedModel) -> None:
    parts = splitting.split_large(model.module)
    sizes = [weight.nbytes for weight in parts.parameters()]
    assert max(sizes) <= splitting.LIMIT < max(weight.nbytes for weight in model.module.parameters())
    assert sum(sizes) == sum(weight.nbytes for weight in model.module.parameters())
    torch.testing.assert_close(parts(model.example_input()), model.module(model.example_input()))


def test_a_network_without_large_convolutions_is_left_alone() -> None:
    network = nn.Conv2d(512, 512, 3)
    assert splitting.split_large(network) is network


@pytest.mark.parametrize("scheme", [Scheme.DYNAMIC_WI8_AFP32, Scheme.STATIC_WI8_AI8])
def test_a_large_convolution_becomes_int8(model: LoadedModel, full: Path, scheme: Scheme, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.rand(1, 3, *SIZE, generator=generator).numpy() for _ in range(2)]
    litert.quantise(model, full, scheme, pictures, tmp_path / "small.tflite")
    check_facts(litert.inspect(tmp_path / "small.tflite"), model, scheme)
    assert (tmp_path / "small.tflite").stat().st_size < 0.27 * full.stat().st_size
    assert compare(model, litert.open_file(model, tmp_path / "small.tflite"), pictures).value > 0.99


def test_the_quantiser_cannot_take_it_whole(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it can one day, splitting is no longer needed."""
    monkeypatch.setattr(splitting, "LIMIT", 1 << 30)
    litert.convert(model, Scheme.FP32, tmp_path / "whole.tflite")
    with pytest.raises(ValueError, match="Failed to get quantization parameters"):
        litert.quantise(model, tmp_path / "whole.tflite", Scheme.DYNAMIC_WI8_AFP32, (), tmp_path / "small.tflite")
