"""The zip archives of ``torch.save``, opened so that they can be read in one way only.

Readers of zip files find the table of contents from the end of a file, each by its own rules, so that a crafted file
can show one table to a check and another to whoever reads it. Here a file has to end with its one table, which has to
follow the records without a gap, and all that is read is read by it.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch

from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.kinds import ONE_FILE
from modelexport_converter.fetch import CHECKPOINT

MIB = 1 << 20
UNPACKED_LIMIT = CHECKPOINT.limit
"""What no checkpoint unpacks to, and no tensors of one come to: torch compresses nothing, and a file of this size is
refused itself."""
EXPANSION, ALLOWANCE = 8, 16 * MIB
"""How far a file may grow: halves to floats, tensors that share numbers, an archive that was packed once more."""
PICKLE_LIMIT = 64 * MIB
"""Of one pickle, which holds everything but the numbers: that of the largest YOLOv8 has 0.2 MiB."""
RECORD_LIMIT = 100_000
"""Of an archive; each tensor is one."""

_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_TAIL = 56 + 20 + 22
"""Bytes of the records at the end of a zip file: zip64's end, its locator, and the end that all have."""
_CUT = "its end is missing or damaged; it was probably cut while it was copied: upload it again"
_TWO_TABLES = (
    "it has more than one table of contents; where it is a part of a checkpoint of torch.distributed (.distcp), make "
    f"one file of its folder: {ONE_FILE}"
)
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises on damaged, encrypted or crafted content."""


def growth_limit(size: int) -> int:
    """Bytes that the content of a file of ``size`` bytes may come to."""
    return min(UNPACKED_LIMIT, ALLOWANCE + EXPANSION * size)


class Archive:
    """A zip file of ``torch.save``; records are named without the folder that they all lie in.

    Raises:
        Unreadable: it is none, or unpacks to more than a checkpoint may have.
    """

    def __init__(self, path: Path) -> None:
        self.limit = growth_limit(path.stat().st_size)
        with path.open("rb") as file:
            _check_table(file, path.stat().st_size)
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise Unreadable(_CUT) from error
        entries = self._zip.infolist()
        if len({entry.filename.lower() for entry in entries}) != len(entries):
            raise Unreadable("two of its records have one name")
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > self.limit:
            raise Unreadable(f"it unpacks to {unpacked:,} bytes, the limit is {self.limit:,}")
        self._records = {entry.filename.partition("/")[2]: entry for entry in entries}

    @property
    def names(self) -> frozenset[str]:
        """The names of all records, without the folder."""
        return frozenset(self._records)

    def size(self, name: str) -> int:
        """Bytes of a record."""
        return self._record(name).file_size

    def read(self, name: str) -> bytes:
        """The content of a small record."""
        if self.size(name) > PICKLE_LIMIT:
            raise Unreadable(f"its record {name} has {self.size(name):,} bytes, the limit is {PICKLE_LIMIT:,}")
        return self.load(name).numpy().tobytes()

    def load(self, name: str) -> torch.Tensor:
        """The content of a record as bytes (n,), uint8."""
        content = torch.empty(self.size(name), dtype=torch.uint8)
        view, filled = content.numpy(), 0
        try:
            with self._zip.open(self._record(name)) as file:
                while chunk := file.read(MIB):
                    view[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
                    filled += len(chunk)
        except _BROKEN as error:
            raise Unreadable(f"its record {name} is damaged") from error
        if filled != len(content):
            raise Unreadable(f"its record {name} is cut")
        return content

    def _record(self, name: str) -> zipfile.ZipInfo:
        if name not in self._records:
            raise Unreadable(f"its record {name} is missing")
        return self._records[name]


def _check_table(file: IO[bytes], size: int) -> None:
    """Stop at a file that does not end with its one table of contents, or whose table is larger than any of torch's."""
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    end = tail[-22:]
    if len(end) < 22 or not end.startswith(_END):
        raise Unreadable(_CUT)
    entries, length, offset, comment = struct.unpack("<10xHLLH", end)
    position = size - len(end)
    if tail[-42:].startswith(_LOCATOR_64):
        entries, length, offset = struct.unpack("<32xQQQ", tail[:56]) if tail.startswith(_END_64) else (0, 0, 0)
        position = size - _TAIL
        if struct.unpack("<8xQ4x", tail[-42:-22]) != (position,):
            raise Unreadable(_TWO_TABLES)
    if comment or offset + length != position:
        raise Unreadable(_TWO_TABLES)
    if entries > RECORD_LIMIT or length > 256 * RECORD_LIMIT:
        raise Unreadable(f"its table of contents names {entries:,} records, the limit is {RECORD_LIMIT:,}")
