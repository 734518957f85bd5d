"""A trained model of testdata/models, with its images and its accuracy measure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from modelexport_converter.backends import Array
from modelexport_converter.model import LoadedModel

MODELS = Path(__file__).parents[1] / "models"
Outputs = tuple[Array, ...]


@dataclass(frozen=True)
class Trained:
    """A checkpoint, the images that it has learned, and the accuracy measure of its outputs.

    ``images`` is the end of the archives' names in ``data``. ``measure`` maps the outputs, in the order of the
    images, to accuracies by name.
    """

    source: Path | Callable[[], Path]
    measure: Callable[[LoadedModel, Sequence[Outputs]], dict[str, float]]
    images: str = ""

    @property
    def weights(self) -> Path:
        """The file of the checkpoint, written now unless the repository has it."""
        return self.source if isinstance(self.source, Path) else self.source()


def run_eagerly(model: LoadedModel, image: Array) -> Outputs:
    """The model in eager FP32."""
    with torch.inference_mode():
        return tuple(output.numpy() for output in model.module(torch.from_numpy(image)))


@cache
def truth(name: str = "eval") -> Mapping[str, Any]:
    """The labels of the evaluation images."""
    labels: Mapping[str, Any] = json.loads((MODELS / "data" / f"{name}.json").read_text())
    return labels
