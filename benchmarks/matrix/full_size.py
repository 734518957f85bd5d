"""Prepares checkpoints, programs and images for ``make matrix``, of the trained models and of full-size ones."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from benchmarks.conversions.accuracy import trained_model
from benchmarks.conversions.images import GREY, Fit, write_mosaics
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.inputs.image_selection import VERIFICATION_COUNT
from models import untrained, widen
from trained.cells import ask, load, load_model
from trained.model import MODELS

SOURCE = "YOLOv8-CLS"
"""The trained model that represents ``Custom``, whose models come as programs without source."""
SAMPLES = {"trained": 64 - VERIFICATION_COUNT, "fullSize": 8}
"""Number of calibration images: of 64, those that verification does not use; fewer at full size, since each is a mosaic
of many and memory does not depend on them.
"""
Size = tuple[int, int]


@dataclass(frozen=True)
class MatrixInputs:
    """The names of a checkpoint and of images in the store, and the parameters of the model."""

    checkpoint: str
    images: str
    parameters: Mapping[str, Any]


def prepare(store: Path, architecture: str, part: str) -> MatrixInputs:
    """Put the inputs of a conversion into the store."""
    return {"trained": _prepare_trained, "fullSize": _prepare_full_size}[part](store, architecture)


def _prepare_trained(store: Path, architecture: str) -> MatrixInputs:
    """Prepare the trained model at the size of its training."""
    images = f"calibration{trained_model(architecture).images}.zip"
    shutil.copy(MODELS / "data" / images, _folder(store, "datasets"))
    return MatrixInputs(_checkpoint(store, architecture, trained_model(architecture).weights), images, {})


def _prepare_full_size(store: Path, architecture: str) -> MatrixInputs:
    """Prepare the model in its published width at the default size, with images of objects as small as in training."""
    row, images = ARCHITECTURES[SOURCE if architecture == "Custom" else architecture], f"{architecture}.zip"
    side, count = row.default_input_size[0], SAMPLES["fullSize"] + VERIFICATION_COUNT
    write_mosaics(row.task, side, _folder(store, "datasets") / images, _fit(row.name), count)
    if architecture == "Custom":
        return MatrixInputs(_write_program(store, "full-size", row.default_input_size), images, {})
    source, parameters = trained_model(architecture).weights, {"inputSize": list(row.default_input_size)}
    name = f"{architecture}-full-size.pt"
    if architecture in untrained.NETWORKS:
        untrained.write_untrained(architecture, source, _folder(store, "checkpoints") / name)
    elif architecture in widen.NETWORKS:
        widen.write_widened(architecture, source, _folder(store, "checkpoints") / name)
    else:
        name = _checkpoint(store, architecture, source)
    return MatrixInputs(name, images, parameters)


def _checkpoint(store: Path, architecture: str, source: Path) -> str:
    if architecture == "Custom":
        return _write_program(store, "trained", load_model(SOURCE).input_size)
    name = f"{architecture}{source.suffix}"
    shutil.copy(source, _folder(store, "checkpoints") / name)
    return name


def _write_program(store: Path, name: str, size: Size) -> str:
    checkpoint = read_checkpoint(trained_model(SOURCE).weights)
    model = load(checkpoint, ask(SOURCE, input_size=size))
    program = torch.export.export(model.module, (model.example_input(),))
    torch.export.save(program, _folder(store, "checkpoints") / f"{name}.pt2")
    return f"{name}.pt2"


def _fit(architecture: str) -> Fit:
    """Return a function that turns an image into a tile of the size that the trained model expects."""
    model = load_model(architecture)
    size = model.input_size[::-1]
    if model.preprocessing.resize == "stretch":
        return partial(Image.Image.resize, size=size, resample=Image.Resampling.BILINEAR)
    return partial(ImageOps.pad, size=size, color=GREY)


def _folder(store: Path, name: str) -> Path:
    (store / name).mkdir(parents=True, exist_ok=True)
    return store / name
