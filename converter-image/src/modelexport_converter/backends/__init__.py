"""One module per file format; every module offers the four functions of ``Backend``.

Heavy libraries are imported by the module of their format only, so an ONNX conversion never loads coremltools.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from modelexport.matrix import BACKENDS, Format, Scheme
from modelexport_converter.model import LoadedModel

Array = npt.NDArray[np.float32]
Run = Callable[[Array], tuple[Array, ...]]
"""Runs a produced file on one input (1, 3, height, width); answers in the order of ``LoadedModel.outputs``."""


@dataclass(frozen=True)
class Facts:
    """What a produced file really holds, read back from its bytes.

    ``weight_types`` counts the elements of constant tensors by type (``float32``, ``float16``, ``int8``),
    ``op_types`` the operators. ``inputs`` and ``outputs`` map names to shapes.
    """

    weight_types: Mapping[str, int]
    op_types: Mapping[str, int]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]


class Backend(Protocol):
    """What a module of this package offers. Files are single files, but for Core ML's ``.mlpackage`` folder."""

    def convert(self, model: LoadedModel, base: Scheme, path: Path) -> None:
        """Write the model to ``path`` by a scheme that the format starts from: ``fp32``, for Core ML ``fp16`` too."""

    def quantise(self, model: LoadedModel, source: Path, scheme: Scheme, samples: Sequence[Array], path: Path) -> None:
        """Write the file ``source``, which is in the base of ``scheme``, to ``path`` by that scheme.

        ``samples`` are calibration inputs, each (1, 3, height, width); empty when the scheme needs none.
        """

    def inspect(self, path: Path) -> Facts:
        """Read back what a file holds."""

    def open_file(self, model: LoadedModel, path: Path) -> Run:
        """Load a file into its runtime (for Core ML: into the MIL evaluator)."""


def load_backend(fmt: Format) -> Backend:
    """Import the module of a format."""
    return cast(Backend, importlib.import_module(BACKENDS[fmt].impl))
