"""The tensors of a ``.pt2`` archive: raw bytes, whose type, sizes and steps stand in a list beside them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from modelexport_converter.fetch import CHECKPOINT
from modelexport_converter.programs.archive import CONFIGS, Archive
from modelexport_converter.programs.arguments import check_device, read_dtype, read_size, read_sizes
from modelexport_converter.programs.fields import NAME_LIMIT, Json, check, take, take_name
from modelexport_converter.programs.graph import Shape
from modelexport_converter.programs.refusals import shown, unreadable, unsafe

_NAME = re.compile(rf"[\w.:/@+ -]{{1,{NAME_LIMIT}}}")
"""Of attributes, and of keys of a ``ModuleDict``; there are no quotes or brackets in them."""
REPEATED_LIMIT = 64 << 20
"""Bytes of all tensors that stand for more numbers than the archive holds, by a step of zero."""


@dataclass(frozen=True)
class Meta:
    """How a tensor lies in a record: steps and offset count elements."""

    shape: Shape
    strides: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """The first element of the record that is behind the tensor."""
        if 0 in self.shape.sizes:
            return self.offset
        return (
            self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape.sizes, self.strides, strict=True))
        )

    @property
    def bytes(self) -> int:
        """What the tensor takes as float32 or more."""
        return prod(self.shape.sizes) * max(self.shape.dtype.itemsize, 4)


def read_meta(content: Json, where: str) -> Meta:
    """Read what an archive says of a tensor.

    Raises:
        Failure: it lies on a device, or its sizes are no numbers.
    """
    check_device(take(content, "device", dict, where), where)
    shape = Shape(read_sizes(content, "sizes", where), read_dtype(content.get("dtype"), where))
    strides = read_sizes(content, "strides", where)
    offset = read_size(take(content, "storage_offset", dict, where), where)
    if len(strides) != len(shape.sizes) or offset < 0:
        raise unreadable(f"the steps of {where} do not fit its sizes")
    return Meta(shape, strides, offset)


def read_tensors(archive: Archive) -> tuple[Mapping[str, torch.Tensor], frozenset[str]]:
    """Read all tensors by their names, and the names of those that are parameters.

    Those that are one part of one record, as shared weights are, become one tensor.

    Raises:
        Failure: one is pickled, lies on a device, reaches behind its record, or all together are too large.
    """
    entries: dict[str, tuple[str, str, Meta]] = {}
    parameters = set()
    for kind, record in CONFIGS.items():
        for name, item in take(archive.json(record), "config", dict, record).items():
            if not _NAME.fullmatch(name):
                raise unsafe(f"names that are not accepted: {shown(name)}")
            where = f"the tensor {shown(name)}"
            entry = check(item, dict, where)
            if name in entries:
                raise unreadable(f"{where} is there twice")
            if entry.get("use_pickle"):
                raise unsafe(f"pickled tensors that are not accepted: {shown(name)}")
            payload = archive.check_payload(kind, take_name(entry, "path_name", where))
            entries[name] = kind, payload, read_meta(take(entry, "tensor_meta", dict, where), where)
            if entry.get("is_param") is True:
                parameters.add(name)
    _check_extent([meta for _, _, meta in entries.values()])
    return _read_all(archive, entries), frozenset(parameters)


def _check_extent(metas: list[Meta]) -> None:
    """Stop at tensors that repeat a few bytes without end."""
    extent = sum(meta.bytes for meta in metas)
    if extent > CHECKPOINT.limit:
        raise unreadable(f"its tensors come to {extent:,} bytes, the limit is {CHECKPOINT.limit:,}")
    repeated = sum(meta.bytes for meta in metas if meta.end - meta.offset < prod(meta.shape.sizes))
    if repeated > REPEATED_LIMIT:
        raise unreadable(
            f"tensors that repeat their numbers come to {repeated:,} bytes, the limit is {REPEATED_LIMIT:,}"
        )


def _read_all(archive: Archive, entries: Mapping[str, tuple[str, str, Meta]]) -> dict[str, torch.Tensor]:
    read: dict[tuple[str, str, Meta], torch.Tensor] = {}
    for name, entry in entries.items():
        if entry not in read:
            read[entry] = _read(archive, name, *entry)
    return {name: read[entry] for name, entry in entries.items()}


def _read(archive: Archive, name: str, kind: str, payload: str, meta: Meta) -> torch.Tensor:
    raw = archive.payload(kind, payload)
    count, rest = divmod(raw.numel(), meta.shape.dtype.itemsize)
    if rest or meta.end > count:
        raise unreadable(f"the tensor {shown(name)} reaches behind its record {payload} of {raw.numel():,} bytes")
    tensor = raw.view(meta.shape.dtype).as_strided(meta.shape.sizes, meta.strides, meta.offset)
    return tensor.contiguous()
