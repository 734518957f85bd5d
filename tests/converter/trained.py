"""What the tests know of a trained model of tests/models."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelexport_converter.backends import Array
from modelexport_converter.model import LoadedModel

MODELS = Path(__file__).parents[1] / "models"
Outputs = tuple[Array, ...]


@dataclass(frozen=True)
class Trained:
    """A checkpoint, the pictures that it has learned, and the measure of what it says of all evaluation pictures.

    ``pictures`` is the end of the archives' names in ``data``. ``measure`` maps the outputs, in the order of the
    pictures, to accuracies by name.
    """

    weights: Path
    measure: Callable[[LoadedModel, Sequence[Outputs]], dict[str, float]]
    pictures: str = ""


@cache
def truth(name: str = "eval") -> Mapping[str, Any]:
    """The labels of the evaluation pictures."""
    labels: Mapping[str, Any] = json.loads((MODELS / "data" / f"{name}.json").read_text())
    return labels
