"""Files of half precision decode positions in float32, so that large images stay exact."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.backends import load_backend
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.model import LoadedModel
from trained.cells import TRAINED, ask, load, load_model, produce

DETECTORS = ("YOLOv8", "YOLOv8-SEG", "YOLOv8-Pose", "YOLOv8-OBB", "YOLOX", "YOLOv4")
CELLS = [
    pytest.param(name, fmt, recipe, marks=pytest.mark.xdist_group(f"{name}-{fmt}"), id=f"{name}-{fmt}-{recipe}")
    for name in DETECTORS
    for fmt, recipe in (
        (Format.ONNX, Recipe.FP16),
        (Format.COREML, Recipe.FP16),
        (Format.COREML, Recipe.WEIGHT_ONLY_WI8_AFP16),
    )
]
WIDE = (32, 4096)
"""As wide as an input can be, and small."""
PLACES = {"boxes", "keypoints"}


def decided(architecture: str) -> LoadedModel:
    """A trained network for wide images with constant outputs that half precision represents exactly."""
    model = load(read_checkpoint(TRAINED[architecture].weights), ask(architecture, input_size=WIDE))
    generator = torch.Generator().manual_seed(0)
    for name, layer in model.module.named_modules():
        if isinstance(layer, torch.nn.Conv2d) and re.search(r"cv[24]\.\d\.2$|reg_preds\.\d$|parts\.[01]$", name):
            layer.weight.zero_()
            layer.bias = torch.nn.Parameter(3 * torch.rand(len(layer.weight), generator=generator), requires_grad=False)
            layer.bias.copy_(layer.bias.half())
    return model


def write(model: LoadedModel, fmt: Format, folder: Path) -> Path:
    """Convert a model to half precision, and return the file."""
    backend, base = load_backend(fmt), BACKENDS[fmt].base(Recipe.FP16)
    paths = [folder / f"{recipe}{BACKENDS[fmt].suffix.removesuffix('.zip')}" for recipe in (base, Recipe.FP16)]
    backend.convert(model, base, paths[0])
    if base is not Recipe.FP16:
        backend.quantise(model, paths[0], Recipe.FP16, (), paths[1])
    return paths[1]


def assert_exact(model: LoadedModel, fmt: Format, path: Path) -> None:
    """Check that a file decodes within a hundredth of a pixel."""
    image = model.example_input()
    answers = zip(
        model.outputs, model.module(image), load_backend(fmt).open_file(model, path)(image.numpy()), strict=True
    )
    compared = {output.name: (wanted.numpy(), given) for output, wanted, given in answers if output.name in PLACES}
    assert "boxes" in compared
    for wanted, given in compared.values():
        assert np.ptp(wanted) > 0.9
        pixel = 1 if "angles" in {output.name for output in model.outputs} else 1 / max(WIDE)
        np.testing.assert_allclose(given, wanted, atol=0.01 * pixel, rtol=0)


@pytest.mark.parametrize("fmt", [Format.ONNX, Format.COREML])
@pytest.mark.parametrize("architecture", DETECTORS)
def test_boxes_are_as_exact_as_network_outputs(architecture: str, fmt: Format, tmp_path: Path) -> None:
    model = decided(architecture)
    assert_exact(model, fmt, write(model, fmt, tmp_path))


@pytest.mark.parametrize("fmt", [Format.ONNX, Format.COREML])
def test_program_boxes_are_as_exact_as_network_outputs(fmt: Format, tmp_path: Path) -> None:
    original = decided("YOLOX")
    torch.export.save(torch.export.export(original.module, (original.example_input(),)), tmp_path / "x.pt2")
    model = load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOX"))
    assert_exact(replace(model, module=original.module), fmt, write(model, fmt, tmp_path))


@pytest.mark.parametrize(("architecture", "fmt", "recipe"), CELLS)
def test_float32_covers_decoding_constants_but_no_weights(architecture: str, fmt: Format, recipe: Recipe) -> None:
    module: Any = load_model(architecture).module
    weights = sum(parameter.numel() for parameter in module.parameters())
    constants = sum(constant.numel() for constant in module.decoder.buffers())
    types = load_backend(fmt).inspect(produce(architecture, fmt, recipe)).weight_types
    assert constants <= types["float32"] <= constants + 4
    assert weights <= types["float16"] + types["int8"] <= weights + 8


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-{Format.ONNX}")) for name in DETECTORS]
)
def test_onnx_uses_float16_only_in_convolutions_and_image(architecture: str) -> None:
    import onnx

    graph = onnx.load(produce(architecture, Format.ONNX, Recipe.FP16)).graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert {node.op_type for node in graph.node if halves & set(node.input)} <= {"Conv", "ConvTranspose"}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16]
    assert [list(node.input) for node in casts] == [["image"]]
