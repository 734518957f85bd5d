"""Reads the records of a ``.pt2`` archive after checking the names and sizes of all.

Records are read by torch's own reader, which also returns their sizes, so a crafted zip file cannot be read in two
ways. torch compresses nothing; so an archive cannot unpack to more bytes than it has.
"""

import re
from pathlib import Path
from typing import Any

import torch

from modelexport_converter.programs.errors import EXPORT_AGAIN, shown, unfit, unreadable, unsafe
from modelexport_converter.programs.json_fields import Json, parse

GRAPH = "models/model.json"
CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}

RECORDS_LIMIT = 50_000
JSON_LIMIT = 64 << 20
"""Bytes; the graph of a Swin v2 takes 4 MB."""

_RECORDS = re.compile(
    rf"{re.escape(GRAPH)}|data/sample_inputs/model\.pt|{'|'.join(map(re.escape, CONFIGS.values()))}"
    r"|data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}|extra/[^/]{1,200}"
    r"|archive_format|archive_version|byteorder|version|\.data/\w{1,50}"
)
_EARLIER = re.compile(r"data/(weights|constants)/model\.pt|serialized_\w+\.(json|pt)")
"""Records of weights before torch 2.9, which are pickles."""
_PAYLOADS = {
    kind: re.compile(rf"{prefix}_\d{{1,9}}") for kind, prefix in (("weights", "weight"), ("constants", "tensor"))
}


class ProgramArchive:
    """An archive whose record names are those of ``torch.export.save``, each once, and that is not compressed.

    Raises:
        Failure: ``CheckpointUnreadable`` or ``CheckpointUnsafe``, naming the records.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._reader: Any = torch._C.PyTorchFileReader(str(path))
            names = self._reader.get_all_records()
        except (RuntimeError, UnicodeDecodeError) as error:
            raise unreadable("it is not an archive that torch can read") from error
        if len(names) > RECORDS_LIMIT:
            raise unreadable(f"it has {len(names):,} records, the limit is {RECORDS_LIMIT:,}")
        self._sizes = {name: self._read(self._reader.get_record_size, name) for name in names}
        if len(self._sizes) != len(names):
            raise unreadable("two of its records have one name")
        if earlier := [name for name in self._sizes if _EARLIER.fullmatch(name)]:
            raise unreadable(f"an earlier torch wrote it, with pickles such as {shown(earlier[0])}")
        if odd := sorted(name for name in self._sizes if not _RECORDS.fullmatch(name)):
            raise unsafe(f"records that are not accepted: {', '.join(map(shown, odd[:5]))}")
        unpacked, size = sum(self._sizes.values()), path.stat().st_size
        if unpacked > size:
            raise unreadable(f"its {size:,} bytes unpack to {unpacked:,}; torch.export.save compresses nothing")
        if "byteorder" in self._sizes and self._record("byteorder", 100) != b"little":
            raise unfit("its numbers are big-endian", EXPORT_AGAIN.replace("again", "again on a little-endian machine"))

    def json(self, name: str) -> Json:
        """Return the content of a record that is a JSON object."""
        return parse(self._record(name, JSON_LIMIT), name)

    @staticmethod
    def check_payload(kind: str, name: str) -> str:
        """Return the name of a record of raw bytes among ``weights`` or ``constants``; objects are refused."""
        if not _PAYLOADS[kind].fullmatch(name):
            raise unsafe(f"objects that are not accepted: {shown(name)}")
        return name

    def payload(self, kind: str, name: str) -> torch.Tensor:
        """Return the bytes of a tensor among ``weights`` or ``constants``, as uint8 (count,)."""
        record = f"data/{kind}/{self.check_payload(kind, name)}"
        size = self._size(record)
        raw = torch.empty(0, dtype=torch.uint8)
        if size:
            storage = self._read(lambda name: self._reader.get_storage_from_record(name, size, torch.uint8), record)
            raw.set_(storage.untyped_storage(), 0, (size,), (1,))
        return raw

    def _size(self, name: str) -> int:
        if name not in self._sizes:
            raise unreadable(f"it has no record {name}")
        size: int = self._sizes[name]
        return size

    def _record(self, name: str, limit: int) -> bytes:
        if self._size(name) > limit:
            raise unreadable(f"its record {name} has {self._size(name):,} bytes, the limit is {limit:,}")
        content: bytes = self._read(self._reader.get_record, name)
        return content

    @staticmethod
    def _read(read: Any, name: str) -> Any:
        try:
            return read(name)
        except RuntimeError as error:
            raise unreadable(f"its record {shown(name)} is damaged") from error
