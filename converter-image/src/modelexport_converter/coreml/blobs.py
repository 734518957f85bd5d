"""Reads weight files of an `.mlpackage`: MIL blob storage, version 2.

Layout (coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp; little endian): a 64-byte header, then per blob a
record at a 64-byte aligned offset: sentinel 0xDEADBEEF (u32), dtype (u32), size in bytes (u64), data offset (u64); the
rest of its 64 bytes is reserved.
"""

import struct
from pathlib import Path

import numpy as np

from modelexport_converter.coreml.errors import ProgramError
from modelexport_converter.coreml.tensors import SUB_BYTE_BITS, Array

_RECORD = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF


class BlobFile:
    """A memory-mapped weight file; arrays are views into it until they are converted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Copy-on-write: torch needs writable memory, and the artifact must not change.
        self._bytes = np.memmap(path, dtype=np.uint8, mode="c")

    def read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return the blob whose record is at an offset.

        Raises:
            ProgramError: there is no record, or its size does not fit dtype and shape.
        """
        if offset + _RECORD.size > len(self._bytes):
            raise ProgramError(f"{self._path.name} ends before the blob at offset {offset}")
        sentinel, _, size, start = _RECORD.unpack(self._bytes[offset : offset + _RECORD.size].tobytes())
        if sentinel != _SENTINEL:
            raise ProgramError(f"{self._path.name} has no blob at offset {offset}")
        if start + size > len(self._bytes):
            raise ProgramError(f"{self._path.name} is truncated: the blob at offset {offset} ends at {start + size}")
        return decode(self._bytes[start : start + size], dtype, shape)


def decode(raw: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Decode bytes (a uint8 array) to an array of dtype and shape; sub-byte integers become int8 or uint8.

    Raises:
        ProgramError: the number of bytes does not fit dtype and shape.
    """
    count = int(np.prod(shape, dtype=np.int64))
    bits = SUB_BYTE_BITS.get(dtype)
    needed = -(-count * bits // 8) if bits else count * np.dtype(dtype).itemsize
    if len(raw) != needed:
        raise ProgramError(f"a {dtype} tensor of shape {list(shape)} needs {needed} bytes, the file has {len(raw)}")
    if bits is None:
        return raw.view(dtype).reshape(shape)
    values = unpack(raw, bits, count).reshape(shape)
    return ((values.astype(np.int8) ^ 8) - np.int8(8)) if dtype == "int4" else values


def unpack(raw: Array, bits: int, count: int) -> Array:
    """Unpack `count` unsigned integers of `bits` bits (at most 8), least significant bit first, to uint8."""
    if bits == 8:
        return raw[:count].view(np.uint8)
    flags = np.unpackbits(raw.view(np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(flags, axis=1, bitorder="little").reshape(count)
