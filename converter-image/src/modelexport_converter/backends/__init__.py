"""One module per file format; every module implements ``Backend``.

Each format's heavy libraries are imported by its own module only, so an ONNX conversion never loads coremltools.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from modelexport.api.reasons import Reason
from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.backends.activation_ranges import CalibrationMemo
from modelexport_converter.failures import Failure
from modelexport_converter.file_input import Array, Run, Scale
from modelexport_converter.model import LoadedModel
from modelexport_converter.runtime.quick_imports import quick_imports

__all__ = ["Array", "Backend", "FileContents", "Run", "load_backend", "load_input_adapter"]


@dataclass(frozen=True)
class FileContents:
    """The contents of a produced file, read back from its bytes.

    ``weight_types`` counts the elements of constant tensors by type (``float32``, ``float16``, ``int8``), ``op_types``
    the operators. ``inputs`` and ``outputs`` map names to shapes. ``channels_last``: the image is (1, height, width,
    channels) instead of (1, channels, height, width). ``input_types`` and ``output_types`` have numpy's names,
    where they are not float32. ``image_inputs`` are images of Apple's frameworks, each with its colours, ``RGB``. The
    size of an axis that is open is 0. ``deployment_target`` is the oldest system that runs a Core ML file, ``iOS16``.
    ``labels`` are the class names that libraries of apps find in the file. ``input_scales`` are those of inputs that
    take quantised values. ``activation_types`` counts the quantised tensors that are computed, by the type of their
    numbers.
    """

    weight_types: Mapping[str, int]
    op_types: Mapping[str, int]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    channels_last: bool = False
    input_types: Mapping[str, str] = field(default_factory=dict)
    output_types: Mapping[str, str] = field(default_factory=dict)
    image_inputs: Mapping[str, str] = field(default_factory=dict)
    deployment_target: str = ""
    labels: Sequence[str] = ()
    input_scales: Mapping[str, Scale] = field(default_factory=dict)
    activation_types: Mapping[str, int] = field(default_factory=dict)


class Backend(Protocol):
    """The interface of every module here. A file is a single file, except for Core ML and TensorFlow a folder."""

    def convert(self, model: LoadedModel, base: Recipe, path: Path) -> None:
        """Write the model to ``path`` by a base recipe of the format, from which its others are quantised."""

    def quantise(
        self,
        model: LoadedModel,
        source: Path,
        recipe: Recipe,
        samples: Sequence[Array],
        path: Path,
        *,
        max_float_layers: int = 0,
        memo: CalibrationMemo | None = None,
    ) -> Mapping[str, float]:
        """Write the file ``source``, in the base recipe of ``recipe``, to ``path`` by ``recipe``.

        ``samples`` are calibration inputs (1, C, H, W); empty if the recipe needs none. With 8-bit activations, up to
        ``max_float_layers`` layers whose rounding costs the outputs most stay in float; they are returned with their
        shares of the noise of all layers. ``memo`` spares a second file of the same source the calibration.
        """

    def inspect(self, path: Path) -> FileContents:
        """Read back the contents of a file."""

    def open_file(self, model: LoadedModel, path: Path) -> Run:
        """Load a file into its runtime (Core ML: into the MIL evaluator)."""


class AdaptInput(Protocol):
    """Changes the input of a finished file."""

    def __call__(self, model: LoadedModel, source: Path, path: Path) -> None:
        """Write the file ``source`` to ``path`` with the input that ``model.options`` ask for."""


def load_backend(fmt: Format) -> Backend:
    """Import the module of a format.

    Raises:
        Failure: ``ClassInvalid`` if this converter lacks its packages.
    """
    try:
        with quick_imports():
            return cast(Backend, importlib.import_module(BACKENDS[fmt].impl))
    except ModuleNotFoundError as error:
        machines = " or ".join(BACKENDS[fmt].cpu_architectures)
        message = f"this converter makes no {fmt} files, because it has no {error.name}; an image for {machines} does"
        raise Failure(Reason.CLASS_INVALID, f"{message} (spec.converter.image)") from error


def load_input_adapter(fmt: Format) -> AdaptInput:
    """Import what changes the input of a finished file of a format that has such options."""
    return cast(AdaptInput, importlib.import_module(f"{BACKENDS[fmt].impl}_input").adapt)
