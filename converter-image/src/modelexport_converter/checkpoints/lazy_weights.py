"""The weights of a checkpoint by name, read on access.

Tensors that are never accessed are never read: optimiser state, a metric that is infinite, another network.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from modelexport.api.reasons import Reason
from modelexport.text import clean
from modelexport_converter.checkpoints.archive import TorchArchive
from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.pickles import StoredTensor
from modelexport_converter.failures import Failure

SHOWN = 100
"""Characters of a name in a message."""


class LazyWeights(Mapping[str, torch.Tensor]):
    """Tensors by name; floating-point ones are float32 and finite.

    Raises:
        Failure: on access, naming the tensor: ``WeightsNotFinite`` if it holds NaN or infinity, ``CheckpointMismatch``
            if it holds complex numbers, ``CheckpointUnreadable`` if its record is damaged.
    """

    def __init__(self, readers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self._readers = readers
        self._read: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._read:
            try:
                self._read[name] = _checked(name, self._readers[name]())
            except Unreadable as error:
                raise _unreadable(name, error) from error
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _unreadable(name: str, error: Unreadable) -> Failure:
    """Return the failure of a tensor that is read long after the checkpoint was opened."""
    problem = f"{clean(name, SHOWN)} cannot be read from the checkpoint: {error}"
    return Failure(Reason.CHECKPOINT_UNREADABLE, f"{problem}; copy the file again, or save it again")


def _checked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        problem = f"{clean(name, SHOWN)} holds complex numbers, which no network here has"
        raise Failure(Reason.CHECKPOINT_MISMATCH, f"{problem}; correct spec.model, or name the other checkpoint")
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    check_finite(name, torch.isfinite(tensor))
    return tensor


def check_finite(name: str, finite: torch.Tensor) -> None:
    """Refuse a tensor whose ``finite`` mask, of the same shape, is not true throughout.

    Raises:
        Failure: ``WeightsNotFinite``, with the name and the count.
    """
    if not finite.all():
        count = finite.numel() - int(finite.sum())
        way_out = "use a checkpoint from before training diverged"
        message = f"{count} of {finite.numel()} values of {clean(name, SHOWN)} are NaN or infinite; {way_out}"
        raise Failure(Reason.WEIGHTS_NOT_FINITE, message)


def read_stored(archive: TorchArchive, stored: Mapping[str, StoredTensor]) -> LazyWeights:
    """Return the tensors of a pickle; they are read from its archive on access.

    Raises:
        Unreadable: a tensor exceeds its record, or all together exceed the limit of the file.
    """
    total = 0
    for name, tensor in stored.items():
        total += tensor.count * max(tensor.dtype.itemsize, 4)
        if total > archive.limit:
            raise Unreadable(f"its tensors come to more than {archive.limit:,} bytes, the limit of a file of its size")
        held = archive.size(f"data/{tensor.storage.key}") // tensor.dtype.itemsize
        if tensor.end > held:
            shown = clean(name, SHOWN)
            raise Unreadable(f"{shown} wants the numbers up to {tensor.end:,} of a record of {held:,}")
    records: dict[str, torch.Tensor] = {}
    return LazyWeights({name: partial(_read_tensor, archive, records, tensor) for name, tensor in stored.items()})


def read_one(archive: TorchArchive, name: str, stored: StoredTensor) -> torch.Tensor:
    """Read a tensor that is no weight.

    Raises:
        Failure: as on access to a weight; ``CheckpointUnreadable`` also if it exceeds its record.
    """
    try:
        return read_stored(archive, {name: stored})[name]
    except Unreadable as error:
        raise _unreadable(name, error) from error


def _read_tensor(archive: TorchArchive, records: dict[str, torch.Tensor], stored: StoredTensor) -> torch.Tensor:
    key = f"data/{stored.storage.key}"
    if key not in records:
        records[key] = archive.load(key)
    record = records[key]
    numbers = record[: len(record) // stored.dtype.itemsize * stored.dtype.itemsize].view(stored.dtype)
    return torch.as_strided(numbers, stored.shape, stored.steps, stored.offset)
