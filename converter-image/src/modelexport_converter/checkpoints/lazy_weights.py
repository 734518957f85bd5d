"""The weights of a checkpoint by their names, read when they are asked for.

What nobody asks for is never read: the state of an optimiser, a metric that is infinite, another network beside.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from modelexport.reasons import Reason
from modelexport.text import clean
from modelexport_converter.checkpoints.archive import Archive
from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.pickles import Stored
from modelexport_converter.failures import Failure

SHOWN = 100
"""Characters of a name that a message shows."""


class Weights(Mapping[str, torch.Tensor]):
    """Tensors by name, floating-point ones as float32 and finite.

    Raises:
        Failure: by reading a tensor, which is named: ``WeightsNotFinite`` where it holds NaN or infinity,
            ``CheckpointMismatch`` where it holds complex numbers, ``CheckpointUnreadable`` where its record is damaged.
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
    """The failure of a tensor, for whoever has opened the checkpoint long before."""
    problem = f"{clean(name, SHOWN)} cannot be read from the checkpoint: {error}"
    return Failure(Reason.CHECKPOINT_UNREADABLE, f"{problem}; copy the file again, or save it anew")


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
    """Refuse a tensor of which not every number is finite, as a mask of the same shape says.

    Raises:
        Failure: ``WeightsNotFinite``, with the name and the count.
    """
    if not finite.all():
        count = finite.numel() - int(finite.sum())
        way_out = "use a checkpoint from before training diverged"
        message = f"{count} of {finite.numel()} values of {clean(name, SHOWN)} are NaN or infinite; {way_out}"
        raise Failure(Reason.WEIGHTS_NOT_FINITE, message)


def read_stored(archive: Archive, stored: Mapping[str, Stored]) -> Weights:
    """The tensors of a pickle, to be read from the archive that it came in.

    Raises:
        Unreadable: one lies outside of its record, or all together come to more than the file can hold.
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
    return Weights({name: _reader(archive, records, tensor) for name, tensor in stored.items()})


def read_one(archive: Archive, name: str, stored: Stored) -> torch.Tensor:
    """A tensor that is no weight.

    Raises:
        Failure: as by reading a weight; ``CheckpointUnreadable`` also where it lies outside of its record.
    """
    try:
        return read_stored(archive, {name: stored})[name]
    except Unreadable as error:
        raise _unreadable(name, error) from error


def _reader(archive: Archive, records: dict[str, torch.Tensor], stored: Stored) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        key = f"data/{stored.storage.key}"
        if key not in records:
            records[key] = archive.load(key)
        record = records[key]
        numbers = record[: len(record) // stored.dtype.itemsize * stored.dtype.itemsize].view(stored.dtype)
        return torch.as_strided(numbers, stored.shape, stored.steps, stored.offset)

    return read
