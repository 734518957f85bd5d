"""Keeps outputs of the original model on disk, because several stages need them for the same images.

For a large network, most of a conversion's time goes into running the original: a U-Net takes 5 s on one core for
each image of 512 x 512 pixels.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from modelexport_converter.backends import Array
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import run_model

LIMIT = 512 << 20
"""Bytes of all kept outputs; eight images of a segmentation of 520 x 520 pixels and 21 classes take 182 MB."""


class ReferenceOutputs:
    """Stores outputs in files, by input. Beyond ``limit`` bytes the model runs again.

    Args:
        folder: location of the files; it is created with the first one.
        limit: bytes of all outputs together.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._left = limit

    def keep(self, image: Array, outputs: Sequence[torch.Tensor]) -> None:
        """Store the model's outputs for an input of shape (1, channels, height, width)."""
        size = sum(output.nbytes for output in outputs)
        if size <= self._left:
            self._left -= size
            self._folder.mkdir(exist_ok=True)
            np.savez(self._path(image), *(output.numpy() for output in outputs))

    def of(self, model: LoadedModel, image: Array, *, again: bool = False) -> tuple[Array, ...]:
        """Return the model's outputs for an input of shape (1, channels, height, width).

        ``again``: keep them, because they will be needed again.
        """
        path = self._path(image)
        if not path.exists():
            outputs = run_model(model, image)
            if again:
                self.keep(image, [torch.from_numpy(output) for output in outputs])
            return outputs
        with np.load(path) as kept:
            return tuple(kept.values())

    def _path(self, image: Array) -> Path:
        return self._folder / f"{hashlib.sha256(image.tobytes()).hexdigest()}.npz"
