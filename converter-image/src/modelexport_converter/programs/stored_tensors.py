"""Reads the tensors of a ``.pt2`` archive: raw bytes, and a list of their types, sizes and strides."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from modelexport_converter.limits import CHECKPOINT_LIMIT
from modelexport_converter.programs.archive import CONFIGS, ProgramArchive
from modelexport_converter.programs.arguments import check_device, read_dtype, read_size, read_sizes
from modelexport_converter.programs.errors import shown, unreadable, unsafe
from modelexport_converter.programs.graph import Shape
from modelexport_converter.programs.json_fields import NAME_LIMIT, Json, check, take, take_name

_NAME = re.compile(rf"[\w.:/@+ -]{{1,{NAME_LIMIT}}}")
"""Names of attributes, and keys of a ``ModuleDict``; they contain no quotes or brackets."""
REPEATED_LIMIT = 64 << 20
"""Bytes of all tensors that have more numbers than the archive holds, by a stride of zero."""


@dataclass(frozen=True)
class Meta:
    """The layout of a tensor in a record; strides and offset count elements."""

    shape: Shape
    strides: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """Return the position after the last element of the tensor in its record."""
        if 0 in self.shape.sizes:
            return self.offset
        return (
            self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape.sizes, self.strides, strict=True))
        )

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensor as float32 or more."""
        return prod(self.shape.sizes) * max(self.shape.dtype.itemsize, 4)


def read_meta(content: Json, where: str) -> Meta:
    """Read the layout of a tensor.

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


def read_tensors(archive: ProgramArchive) -> tuple[Mapping[str, torch.Tensor], frozenset[str]]:
    """Read all tensors by name, and the names of the parameters.

    Entries with the same part of the same record, such as shared weights, become one tensor.

    Raises:
        Failure: a tensor is pickled, lies on a device or exceeds its record, or all together are too large.
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
    read: dict[tuple[str, str, Meta], torch.Tensor] = {}
    for name, place in entries.items():
        if place not in read:
            read[place] = _read(archive, name, *place)
    return {name: read[place] for name, place in entries.items()}, frozenset(parameters)


def _check_extent(metas: list[Meta]) -> None:
    """Refuse tensors that are too large in total, or that repeat a few bytes endlessly."""
    extent = sum(meta.bytes for meta in metas)
    if extent > CHECKPOINT_LIMIT:
        raise unreadable(f"its tensors come to {extent:,} bytes, the limit is {CHECKPOINT_LIMIT:,}")
    repeated = sum(meta.bytes for meta in metas if meta.end - meta.offset < prod(meta.shape.sizes))
    if repeated > REPEATED_LIMIT:
        raise unreadable(
            f"tensors that repeat their numbers come to {repeated:,} bytes, the limit is {REPEATED_LIMIT:,}"
        )


def _read(archive: ProgramArchive, name: str, kind: str, payload: str, meta: Meta) -> torch.Tensor:
    raw = archive.payload(kind, payload)
    count, rest = divmod(raw.numel(), meta.shape.dtype.itemsize)
    if rest or meta.end > count:
        raise unreadable(f"the tensor {shown(name)} reaches behind its record {payload} of {raw.numel():,} bytes")
    tensor = raw.view(meta.shape.dtype).as_strided(meta.shape.sizes, meta.strides, meta.offset)
    return tensor.contiguous()
