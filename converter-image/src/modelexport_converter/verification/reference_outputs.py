"""Keeps outputs of the original model on disk, because several stages need them for the same images.

For a large network, most of a conversion's time goes into running the original: a U-Net takes 5 s on one core for
each image of 512 x 512 pixels. The conversions of a local run share the outputs; those that start together each run the
original until one is ahead.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from modelexport_converter.backends import Array
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import run_model

LIMIT = 512 << 20
"""Bytes of all kept outputs; eight images of a segmentation of 520 x 520 pixels and 21 classes take 182 MB."""
SHARED_LIMIT = 1 << 30
"""The same for outputs that several conversions share: 64 images of 640 x 640 pixels take 180 MB with YOLOv8."""


class ReferenceOutputs:
    """Stores outputs in files, by input. Beyond a limit the model runs again.

    Args:
        folder: location of the files; it is created with the first one.
        is_shared: other conversions of the same model read and write the folder, too, so that all outputs are kept.
        limit: bytes of all outputs together; by default ``LIMIT`` or ``SHARED_LIMIT``.
    """

    def __init__(self, folder: Path, *, is_shared: bool = False, limit: int | None = None) -> None:
        self._folder = folder
        self._is_shared = is_shared
        self._limit = limit if limit is not None else SHARED_LIMIT if is_shared else LIMIT

    def keep(self, image: Array, outputs: Sequence[torch.Tensor]) -> None:
        """Store the model's outputs for an input of shape (1, channels, height, width), unless they are there."""
        path = self._path(image)
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        used = sum(path.stat().st_size for path in self._folder.glob("*.npz"))
        if used + sum(output.nbytes for output in outputs) <= self._limit:
            partial = self._folder / f"{os.getpid()}.partial"
            with partial.open("wb") as file:
                np.savez(file, *(output.numpy() for output in outputs))
            partial.rename(path)  # A reader in another process sees all of it or nothing.

    def of(self, model: LoadedModel, image: Array, *, again: bool = False) -> tuple[Array, ...]:
        """Return the model's outputs for an input of shape (1, channels, height, width).

        ``again``: keep them, because they will be needed again.
        """
        path = self._path(image)
        if not path.exists():
            outputs = run_model(model, image)
            if again or self._is_shared:
                self.keep(image, [torch.from_numpy(output) for output in outputs])
            return outputs
        with np.load(path) as kept:
            return tuple(kept.values())

    def _path(self, image: Array) -> Path:
        content = hashlib.sha256(f"{image.shape}".encode())
        content.update(image.tobytes())
        return self._folder / f"{content.hexdigest()}.npz"
