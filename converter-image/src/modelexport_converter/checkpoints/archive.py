"""Opens the zip archives of ``torch.save`` so that they can be read in one way only.

Zip readers find the table of contents from the end of a file, each by its own rules, so a crafted file can show one
table to a check and another to the reader. Here a file must end with its only table, the table must follow the records
without a gap, and everything is read by this table.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch

from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.file_kinds import ONE_FILE
from modelexport_converter.limits import CHECKPOINT_LIMIT

MIB = 1 << 20
UNPACKED_LIMIT = CHECKPOINT_LIMIT
"""Bytes of an unpacked checkpoint, and of its tensors: torch compresses nothing, and larger files are refused."""
EXPANSION, ALLOWANCE = 8, 16 * MIB
"""How far content may outgrow its file: halves become floats, tensors share numbers, an archive was zipped again."""
PICKLE_LIMIT = 64 * MIB
"""Bytes of one pickle, which holds everything except the numbers; that of the largest YOLOv8 has 0.2 MiB."""
RECORD_LIMIT = 100_000
"""Records of an archive; each tensor is one."""

_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_TAIL = 56 + 20 + 22
"""Bytes of the records at the end of a zip file: zip64's end and locator, and the end that all files have."""
_CUT = "its end is missing or damaged; it was probably cut while it was copied: upload it again"
_TWO_TABLES = (
    "it has more than one table of contents; where it is a part of a checkpoint of torch.distributed (.distcp), make "
    f"one file of its folder: {ONE_FILE}"
)
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""Exceptions of zipfile on damaged, encrypted or crafted content."""


def growth_limit(size: int) -> int:
    """Return the largest content, in bytes, of a file of ``size`` bytes."""
    return min(UNPACKED_LIMIT, ALLOWANCE + EXPANSION * size)


class TorchArchive:
    """A zip file of ``torch.save``; record names omit the folder that holds them all.

    Raises:
        Unreadable: it is no such file, or unpacks to more than a checkpoint may have.
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
        """Return the names of all records, without the folder."""
        return frozenset(self._records)

    def size(self, name: str) -> int:
        """Return the bytes of a record."""
        return self._record(name).file_size

    def read(self, name: str) -> bytes:
        """Return the content of a small record."""
        if self.size(name) > PICKLE_LIMIT:
            raise Unreadable(f"its record {name} has {self.size(name):,} bytes, the limit is {PICKLE_LIMIT:,}")
        return self.load(name).numpy().tobytes()

    def load(self, name: str) -> torch.Tensor:
        """Return the content of a record as bytes (n,), uint8."""
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
    """Refuse a file that does not end with its only table of contents, or whose table is larger than any of torch."""
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
