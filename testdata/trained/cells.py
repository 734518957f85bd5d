"""The trained models of testdata/models and the files converted from them, each made once per process."""

import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch

from modelexport.api.spec import DataRef, Model, Parameters
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format, Recipe
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.inputs.images import PreparedImages, open_archive
from modelexport_converter.model import LoadedModel
from trained import (
    detector_cells,
    oriented_cells,
    semantic_cells,
    yolo11_cells,
    yolo26_cells,
    yolov4_cells,
    yolov8_cells,
    yolox_cells,
)
from trained.model import MODELS, Outputs, Trained, run_eagerly

_FAMILIES = (
    *(yolov8_cells, semantic_cells, detector_cells, yolox_cells, yolov4_cells, yolo11_cells, yolo26_cells),
    oriented_cells,
)
TRAINED: dict[str, Trained] = {name: trained for family in _FAMILIES for name, trained in family.TRAINED.items()}


@cache
def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder, removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="cells-")


def ask(architecture: str, **parameters: Any) -> Model:
    """The request of an export for a checkpoint."""
    return Model(architecture, DataRef("file:///checkpoint"), Parameters(**parameters))


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Load a checkpoint with the module that the matrix names for its architecture."""
    loaded: LoadedModel = importlib.import_module(ARCHITECTURES[model.architecture].impl).load(checkpoint, model)
    return loaded


@cache
def load_model(architecture: str) -> LoadedModel:
    return load(read_checkpoint(TRAINED[architecture].weights), ask(architecture))


def inputs(architecture: str, data: str, count: int | None = None) -> Sequence[Array]:
    """Prepare the ``eval`` or ``calibration`` images, each as (1, 3, height, width)."""
    model, kind = load_model(architecture), TRAINED[architecture].images
    images = open_archive(MODELS / "data" / f"{data}{kind}.zip", data)[:count]
    return PreparedImages(images, model.preprocessing, model.input_size)


@cache
def eval_inputs(architecture: str) -> tuple[Array, ...]:
    return tuple(inputs(architecture, "eval"))


@cache
def answer(architecture: str, index: int) -> Outputs:
    """The outputs of the model for one evaluation image; every cell is compared with them."""
    return run_model(architecture, eval_inputs(architecture)[index])


def answers(architecture: str) -> tuple[Outputs, ...]:
    """The outputs of the model for all evaluation images."""
    return tuple(answer(architecture, index) for index in range(len(eval_inputs(architecture))))


def recall(architecture: str) -> LoadedModel:
    """The model with its outputs for the evaluation images, in their order, each computed once."""

    class Recalled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answers = (answer(architecture, index) for index in count())

        def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(map(torch.from_numpy, next(self.answers)))

    return replace(load_model(architecture), module=Recalled())


def run_model(architecture: str, image: Array) -> Outputs:
    """Run the model in eager FP32."""
    return run_eagerly(load_model(architecture), image)


@cache
def produce(architecture: str, fmt: Format, recipe: Recipe) -> Path:
    """Convert one cell, calibrated on all calibration images if its recipe needs them."""
    backend, model = load_backend(fmt), load_model(architecture)
    path = Path(scratch().name) / f"{architecture}-{recipe}{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    base = BACKENDS[fmt].base(recipe)
    if not BACKENDS[fmt].quantises(recipe):
        backend.convert(model, base, path)
    else:
        samples = inputs(architecture, "calibration") if recipe.needs_calibration else ()
        backend.quantise(model, convert_base(architecture, fmt, base), recipe, samples, path)
    return path


@cache
def convert_base(architecture: str, fmt: Format, base: Recipe) -> Path:
    """Convert a model to the file that its others are quantised from."""
    if not BACKENDS[fmt].quantises(base):
        return produce(architecture, fmt, base)
    path = Path(scratch().name) / f"{architecture}-{base}-base{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    load_backend(fmt).convert(load_model(architecture), base, path)
    return path


def open_cell(architecture: str, fmt: Format, recipe: Recipe) -> Callable[[Array], Outputs]:
    return load_backend(fmt).open_file(load_model(architecture), produce(architecture, fmt, recipe))


def measure(architecture: str, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Task accuracy of the outputs for all evaluation images, in their order."""
    return TRAINED[architecture].measure(load_model(architecture), outputs)


@cache
def reference(architecture: str) -> dict[str, float]:
    """Accuracy of the original model in FP32."""
    return measure(architecture, answers(architecture))
