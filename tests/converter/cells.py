"""The trained models of tests/models, and every file that is made of them, made once per process."""

import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from converter import detector_cells, semantic_cells, yolov4_cells, yolov8_cells, yolox_cells
from converter.trained import MODELS, Outputs
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Scheme
from modelexport.spec import DataRef, Model, Parameters
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive

_FAMILIES = (yolov8_cells, semantic_cells, detector_cells, yolox_cells, yolov4_cells)
TRAINED = {name: trained for family in _FAMILIES for name, trained in family.TRAINED.items()}
FOLDER = tempfile.TemporaryDirectory(prefix="cells-")


def ask(architecture: str, **parameters: Any) -> Model:
    """What an export asks of a checkpoint."""
    return Model(architecture, DataRef("file:///checkpoint"), Parameters(**parameters))


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """The model of a checkpoint, by the file that the matrix names."""
    loaded: LoadedModel = importlib.import_module(ARCHITECTURES[model.architecture].impl).load(checkpoint, model)
    return loaded


@cache
def load_model(architecture: str) -> LoadedModel:
    return load(read_checkpoint(TRAINED[architecture].weights), ask(architecture))


def inputs(architecture: str, data: str, count: int | None = None) -> Sequence[Array]:
    """Inputs (1, 3, height, width) from ``eval`` or ``calibration`` pictures."""
    model, kind = load_model(architecture), TRAINED[architecture].pictures
    pictures = open_archive(MODELS / "data" / f"{data}{kind}.zip", data)[:count]
    return Inputs(pictures, model.preprocessing, model.input_size)


@cache
def eval_inputs(architecture: str) -> tuple[Array, ...]:
    return tuple(inputs(architecture, "eval"))


@cache
def answers(architecture: str) -> tuple[Outputs, ...]:
    """What the model says of the evaluation pictures, which every cell is compared with."""
    return tuple(run_model(architecture, image) for image in eval_inputs(architecture))


def recall(architecture: str) -> LoadedModel:
    """The model, which remembers its answers to the evaluation pictures in their order."""

    class Recalled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answers = iter(answers(architecture))

        def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(map(torch.from_numpy, next(self.answers)))

    return replace(load_model(architecture), module=Recalled())


def run_model(architecture: str, image: Array) -> Outputs:
    """The model in eager FP32."""
    with torch.inference_mode():
        return tuple(output.numpy() for output in load_model(architecture).module(torch.from_numpy(image)))


@cache
def produce(architecture: str, fmt: Format, scheme: Scheme) -> Path:
    """The file of one cell, calibrated on all the calibration pictures where its scheme needs them."""
    backend, model = load_backend(fmt), load_model(architecture)
    path = Path(FOLDER.name) / f"{architecture}-{scheme}{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    base = BACKENDS[fmt].base(scheme)
    if scheme is base:
        backend.convert(model, base, path)
    else:
        samples = inputs(architecture, "calibration") if scheme.needs_calibration else ()
        backend.quantise(model, produce(architecture, fmt, base), scheme, samples, path)
    return path


def open_cell(architecture: str, fmt: Format, scheme: Scheme) -> Callable[[Array], Outputs]:
    return load_backend(fmt).open_file(load_model(architecture), produce(architecture, fmt, scheme))


def measure(architecture: str, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Task accuracy of the outputs for all the evaluation pictures, in their order."""
    return TRAINED[architecture].measure(load_model(architecture), outputs)


@cache
def reference(architecture: str) -> dict[str, float]:
    """Accuracy of the original model in FP32."""
    return measure(architecture, answers(architecture))
