"""Checkpoints, programs and pictures for ``make matrix``: of the trained models, and of such as users have."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import untrained
import widen
from PIL import Image, ImageOps

from bench.accuracy import trained_model
from bench.pictures import GREY, Fit, write_mosaics
from converter.cells import ask, load, load_model
from converter.trained import MODELS
from modelexport.matrix import ARCHITECTURES
from modelexport_converter.calibration import VERIFICATION_COUNT
from modelexport_converter.checkpoint import read_checkpoint

SOURCE = "YOLOv8-CLS"
"""The trained model that stands for all that come as programs, without their source."""
SAMPLES = {"trained": 64 - VERIFICATION_COUNT, "fullSize": 8}
"""Pictures that calibrate: those of 64 that are not left to verify; at full size fewer, as each is a mosaic of many,
and as memory does not depend on them."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Inputs:
    """The names of a checkpoint and of pictures in the store, and the parameters of the model."""

    checkpoint: str
    pictures: str
    parameters: Mapping[str, Any]


def prepare(store: Path, architecture: str, part: str) -> Inputs:
    """Put what a conversion needs into the store."""
    return {"trained": _prepare_trained, "fullSize": _prepare_full_size}[part](store, architecture)


def _prepare_trained(store: Path, architecture: str) -> Inputs:
    """The trained model, at the size that it has learned."""
    pictures = f"calibration{trained_model(architecture).pictures}.zip"
    shutil.copy(MODELS / "data" / pictures, _folder(store, "datasets"))
    return Inputs(_checkpoint(store, architecture, trained_model(architecture).weights), pictures, {})


def _prepare_full_size(store: Path, architecture: str) -> Inputs:
    """The model in its published width at the default size, with pictures of as small objects as it has learned."""
    row, pictures = ARCHITECTURES[SOURCE if architecture == "Custom" else architecture], f"{architecture}.zip"
    side, count = row.default_input_size[0], SAMPLES["fullSize"] + VERIFICATION_COUNT
    write_mosaics(row.task, side, _folder(store, "datasets") / pictures, _fit(row.name), count)
    if architecture == "Custom":
        return Inputs(_write_program(store, "full-size", row.default_input_size), pictures, {})
    source, parameters = trained_model(architecture).weights, {"inputSize": list(row.default_input_size)}
    name = f"{architecture}-full-size.pt"
    if architecture in untrained.NETWORKS:
        untrained.write_untrained(architecture, source, _folder(store, "checkpoints") / name)
    elif architecture in widen.NETWORKS:
        widen.write_widened(architecture, source, _folder(store, "checkpoints") / name)
    else:
        name = _checkpoint(store, architecture, source)
    return Inputs(name, pictures, parameters)


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
    """Makes a picture a tile as the trained model sees it."""
    model = load_model(architecture)
    size = model.input_size[::-1]
    if model.preprocessing.resize == "stretch":
        return partial(Image.Image.resize, size=size, resample=Image.Resampling.BILINEAR)
    return partial(ImageOps.pad, size=size, color=GREY)


def _folder(store: Path, name: str) -> Path:
    (store / name).mkdir(parents=True, exist_ok=True)
    return store / name
