"""Produced files do not change unnoticed: the digests of a few, in ``tests/golden/digests.json``.

The network is small, and its weights are a formula of whole numbers, so that every machine has the same. It goes the
way of an export: loader, folded normalisation, backend. Static INT8 is left out: its ranges are measured by running the
network, whose sums differ in their last bit between processors. Of a Core ML package the program in one order of its
maps and the weights are digested: the archive has identifiers that coremltools draws anew, and maps in any order.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.backends import coreml, file_metadata, load_backend
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.coreml.library import Model_pb2
from modelexport_converter.model import LoadedModel
from modelexport_converter.publishing.report import tool_versions
from trained.cells import ask, load

DIGESTS = Path(__file__).parents[1] / "golden/digests.json"
CELLS = {
    Format.ONNX: (Recipe.FP32, Recipe.FP16, Recipe.DYNAMIC_WI8_AFP32),
    Format.LITERT: (Recipe.FP32, Recipe.FP16, Recipe.DYNAMIC_WI8_AFP32),
    Format.COREML: (Recipe.FP32, Recipe.FP16),
}
WAY_OUT = """{changed} changed. If files were to change, run
    MODELEXPORT_UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/converter/test_digests.py
and say in CHANGELOG.md what users see; `make matrix` measures the cells anew. If not, undo the change.
Tools since the digests were written: {tools}."""


def weights(shapes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill a state dict by a formula, in steps of 1/1024; variances are at least 1."""
    filled = {}
    for index, (name, value) in enumerate(sorted(shapes.items())):
        steps = (torch.arange(value.numel()) * 37 + index * 11) % 101 - 50
        scaled = (steps / 1024).reshape(value.shape)
        filled[name] = (scaled.abs() + 1 if name.endswith("running_var") else scaled).to(value.dtype)
    return filled


def digest(produced: Path) -> str:
    """Digest a file, or the program and the weights of a Core ML package."""
    if produced.is_file():
        return hashlib.sha256(produced.read_bytes()).hexdigest()

    data = produced / "Data/com.apple.CoreML"
    program = Model_pb2.Model.FromString((data / "model.mlmodel").read_bytes())
    content = program.SerializeToString(deterministic=True) + (data / "weights/weight.bin").read_bytes()
    return hashlib.sha256(content).hexdigest()


def convert(model: LoadedModel, fmt: Format, folder: Path) -> dict[str, str]:
    """Convert the model by each recipe of a format and return the digests of the files."""
    backend, suffix = load_backend(fmt), BACKENDS[fmt].suffix.removesuffix(".zip")
    produced = {recipe: folder / f"{recipe}{suffix}" for recipe in CELLS[fmt]}
    for recipe, path in produced.items():
        base = BACKENDS[fmt].base(recipe)
        if recipe is base:
            backend.convert(model, recipe, path)
        else:
            backend.quantise(model, produced[base], recipe, (), path)
    return {str(recipe): digest(path) for recipe, path in produced.items()}


@pytest.mark.parametrize(
    "fmt", [pytest.param(fmt, marks=pytest.mark.xdist_group(f"YOLOv8-{fmt}"), id=fmt) for fmt in CELLS]
)
def test_produced_files_do_not_change(fmt: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (file_metadata, coreml):  # a new version alone changes no file
        monkeypatch.setattr(module, "__version__", "0")
    tensors = weights(UNet((4, 8, 16, 32, 64), 3).state_dict())
    found = convert(load(Checkpoint(tensors), ask("UNet", input_size=(32, 32))), fmt, tmp_path)
    known = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    tools = {name: version for name, version in tool_versions(BACKENDS[fmt].tools).items() if name != "modelexport"}
    if os.environ.get("MODELEXPORT_UPDATE_GOLDEN"):
        known[str(fmt)] = {"files": found, "tools": tools}
        DIGESTS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    row = known[str(fmt)]
    changed = ", ".join(f"{fmt} {recipe}" for recipe in found if row["files"].get(recipe) != found[recipe])
    other = [
        f"{tool} {row['tools'].get(tool)} -> {now}" for tool, now in tools.items() if row["tools"].get(tool) != now
    ]
    assert not changed, WAY_OUT.format(changed=changed, tools=", ".join(other) or "the same")
