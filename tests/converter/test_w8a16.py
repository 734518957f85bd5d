"""W8A16: weights as 8-bit integers and activations as 16-bit integers, in LiteRT and ONNX."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from modelexport.api.reasons import Reason
from modelexport.matrix.options import OPSET_OF_16_BITS
from modelexport.matrix.support import BACKENDS, Format, Precision, Recipe
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.verification.inspection import check_facts
from trained.cells import scratch

FORMATS = [fmt for fmt, row in BACKENDS.items() if Precision.W8A16 not in row.refused]
IMAGES = [np.random.default_rng(seed).random((1, 3, 16, 16), np.float32) for seed in range(3)]
LIMITS = -0.1, 0.2


class Clipped(torch.nn.Module):
    """Two convolutions, one before a ReLU, the other before a clip that cuts many values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 16, 16) to (1, 8, 16, 16)."""
        return (torch.nn.functional.conv2d(self.second(self.first(image).relu()).clamp(*LIMITS), self.second.weight),)


@dataclass(frozen=True)
class Made:
    """A file, its model, and a function that runs it."""

    model: LoadedModel
    path: Path
    run: Callable[[Array], tuple[Array, ...]]

    def worst_error(self, image: Array) -> float:
        """The largest error of the file, relative to the largest output."""
        expected = self.model.module(torch.from_numpy(image))[0].numpy()
        return float(np.abs(self.run(image)[0] - expected).max() / np.abs(expected).max())


@cache
def make(fmt: Format, recipe: Recipe) -> Made:
    outputs = (Output("values", ("batch", "class", "row", "column"), ""),)
    module = Clipped().eval().requires_grad_(False)
    model = LoadedModel(module, (16, 16), outputs, (), Preprocessing("stretch"))
    backend, suffix = load_backend(fmt), BACKENDS[fmt].suffix
    path = Path(scratch().name) / f"clipped-{recipe}{suffix}"
    if recipe is Recipe.FP32:
        backend.convert(model, recipe, path)
    else:
        backend.quantise(model, make(fmt, Recipe.FP32).path, recipe, IMAGES, path)
    return Made(model, path, backend.open_file(model, path))


@pytest.mark.parametrize("fmt", FORMATS)
def test_file_has_weights_of_8_and_activations_of_16_bits(fmt: Format) -> None:
    made = make(fmt, Recipe.STATIC_WI8_AI16)
    facts = load_backend(fmt).inspect(made.path)
    check_facts(facts, made.model, Recipe.STATIC_WI8_AI16)
    assert set(facts.activation_types) == {"int16" if fmt is Format.LITERT else "uint16"}
    assert facts.weight_types["int8"] >= 2 * 3 * 8 * 3 * 3
    assert facts.input_types == {"image": "float32"}


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("recipe", [Recipe.FP32, Recipe.STATIC_WI8_AI8, Recipe.DYNAMIC_WI8_AFP32])
def test_file_of_another_recipe_is_refused_as_w8a16(fmt: Format, recipe: Recipe) -> None:
    made = make(fmt, recipe)
    with pytest.raises(Failure, match=r"weights are stored|activations are not") as caught:
        check_facts(load_backend(fmt).inspect(made.path), made.model, Recipe.STATIC_WI8_AI16)
    assert caught.value.reason is Reason.INSPECTION_FAILED


@pytest.mark.parametrize("fmt", FORMATS)
def test_clip_still_cuts_beside_wider_ranges(fmt: Format) -> None:
    made, int8 = make(fmt, Recipe.STATIC_WI8_AI16), make(fmt, Recipe.STATIC_WI8_AI8)
    for image in IMAGES:
        assert made.worst_error(image) < min(0.02, int8.worst_error(image))


@pytest.mark.parametrize("fmt", FORMATS)
def test_values_beyond_calibration_are_not_cut(fmt: Format) -> None:
    made, int8 = make(fmt, Recipe.STATIC_WI8_AI16), make(fmt, Recipe.STATIC_WI8_AI8)
    brighter = IMAGES[0] * np.float32(1.8)
    assert made.worst_error(brighter) < 0.02 < int8.worst_error(brighter)


def test_onnx_file_quantises_by_operators_of_onnx_itself() -> None:
    content = onnx.load(make(Format.ONNX, Recipe.STATIC_WI8_AI16).path)
    assert [entry.version for entry in content.opset_import if not entry.domain] == [OPSET_OF_16_BITS]
    assert {node.domain for node in content.graph.node} == {""}
