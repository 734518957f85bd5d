"""Keeps the records of the original in a file, which all conversions of an export share through its store.

A file is one line of JSON and the arrays behind it, as bytes. The line names what was measured (the key) and the digest
of the arrays. Whoever can write to the store can write such a file, so nothing of it is taken before key, digest,
types, shapes and values fit. It holds numbers only, and is never unpickled or unpacked.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelexport import untrusted
from modelexport.logs import announce
from modelexport.text import clean
from modelexport_converter.evaluation.records import OVERLAPS, Flags, Hits, Matches, Overlaps, Records
from modelexport_converter.publishing.original import FILE_LIMIT
from modelexport_converter.publishing.report import REMARK_LIMIT

SCHEMA_VERSION = 1
LEAST_SHARED = 100
"""Images that an evaluation which ended early must have for others to use it: of fewer, another machine may do more."""
_HEADER_LIMIT = 1 << 16
_MOST_OBJECTS, _MOST_PIXELS = 1 << 20, 1 << 40
"""Objects, or pixels, of one class in one image: more than an image may have."""
_KINDS = {kind.__name__: kind for kind in (Matches, Overlaps, Hits)}
_TYPES = {"int64": np.dtype("<i8"), "float64": np.dtype("<f8"), "bool": np.dtype("?")}
_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """The records that a file must have: its key (64 hex digits), at most so many images, and the number of classes."""

    key: str
    images: int
    classes: int

    def serves(self, records: Records) -> bool:
        """Return whether records are of all images, or of enough of them for other conversions to use."""
        return records.count >= min(self.images, LEAST_SHARED)


def write_records(path: Path, records: Records, key: str) -> None:
    """Write records to a file under the key of what was measured."""
    arrays = {one.name: np.asarray(getattr(records, one.name)) for one in fields(records)}  # type: ignore[arg-type]
    content = b"".join(array.astype(_TYPES[str(array.dtype)]).tobytes() for array in arrays.values())
    header = {
        "schemaVersion": SCHEMA_VERSION,
        "key": key,
        "kind": type(records).__name__,
        "images": records.count,
        "arrays": {name: [str(array.dtype), *array.shape] for name, array in arrays.items()},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.write_bytes(json.dumps(header).encode() + b"\n" + content)


def read_records(path: Path, expected: Expected, limit: int = FILE_LIMIT) -> Records:
    """Read the records of ``write_records``.

    Args:
        path: the file.
        expected: what its records must be of.
        limit: bytes of its arrays; a file that never left this machine may have more than one of a store.

    Raises:
        ValueError: they are of something else, or no such records.
    """
    with path.open("rb") as file:
        line = file.readline(_HEADER_LIMIT)
        content = file.read(limit + 1)
    header = untrusted.record(untrusted.parse(line), "the header")
    if (header.get("schemaVersion"), header.get("key")) != (SCHEMA_VERSION, expected.key):
        raise ValueError("it is the evaluation of another model, of other images or by another version")
    if len(content) > limit or header.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ValueError("its content has not the SHA-256 of its header")
    kind = _KINDS.get(str(header.get("kind")))
    if kind is None:
        raise ValueError("its kind is not known")
    arrays = _split(content, untrusted.record(header.get("arrays"), "arrays"))
    if list(arrays) != [one.name for one in fields(kind)]:
        raise ValueError(f"it holds {', '.join(arrays)}, not the arrays of {kind.__name__}")
    images = untrusted.whole(header.get("images"), "images", expected.images)
    _CHECKS[kind](arrays, images, expected.classes)
    return kind(**arrays)


def read_shared(paths: Iterable[Path], expected: Expected) -> Records | None:
    """Return the records that other conversions of the export left in its store, unless they do not fit."""
    for path in paths:
        if not path.is_file():
            continue
        try:
            found = read_records(path, expected)
            if not expected.serves(found):
                raise ValueError(f"it has {found.count} of {expected.images} images")
        except ValueError as error:
            announce("shared evaluation refused", name=path.name, message=clean(str(error), REMARK_LIMIT))
        else:
            announce("evaluated original", made=False, shared=path.name)
            return found
    return None


def _split(content: bytes, described: Mapping[str, object]) -> dict[str, _Array]:
    """Return the arrays in the content by their types and shapes, which must fill it exactly."""
    arrays, start = {}, 0
    for name, value in described.items():
        if not isinstance(value, list) or len(value) not in (2, 3):
            raise ValueError("an array has no type and one or two sizes")
        kind = _TYPES.get(str(value[0]))
        if kind is None:
            raise ValueError("an array has an unknown type")
        shape = tuple(untrusted.whole(size, "a size", FILE_LIMIT) for size in value[1:])
        end = start + kind.itemsize * int(np.prod(shape, dtype=object))
        if end > len(content):
            raise ValueError("an array is larger than the content")
        raw = content[start:end]
        if kind.kind == "b" and raw.strip(b"\0\1"):
            raise ValueError("a flag is neither 0 nor 1")
        arrays[name], start = np.frombuffer(raw, kind).reshape(shape), end
    if start != len(content):
        raise ValueError("its content is larger than its arrays")
    return arrays


def _require(arrays: Mapping[str, _Array], name: str, dtype: str, shape: tuple[int, ...], most: float = 1) -> None:
    """Check that an array has a type and a shape, and numbers from 0 to ``most``."""
    array = arrays[name]
    if array.dtype != _TYPES[dtype] or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    within: Flags = (array >= 0) & (array <= most)  # NaN is not within
    if not within.all():
        raise ValueError(f"{name} has numbers outside of 0 to {most}")


def _check_matches(arrays: Mapping[str, _Array], images: int, classes: int) -> None:
    rows = arrays["image"].shape[:1]
    _require(arrays, "image", "int64", rows, images - 1)
    _require(arrays, "label", "int64", rows, classes - 1)
    _require(arrays, "score", "float64", rows)
    _require(arrays, "matched", "bool", (*rows, len(OVERLAPS)))
    _require(arrays, "ignored", "bool", (*rows, len(OVERLAPS)))
    _require(arrays, "truths", "int64", (images, classes), _MOST_OBJECTS)


def _check_overlaps(arrays: Mapping[str, _Array], images: int, classes: int) -> None:
    for name in ("shared", "labelled", "found"):
        _require(arrays, name, "int64", (images, max(2, classes)), _MOST_PIXELS)
    if (arrays["shared"] > np.minimum(arrays["labelled"], arrays["found"])).any():
        raise ValueError("shared has more pixels than labelled or found")


def _check_hits(arrays: Mapping[str, _Array], images: int, classes: int) -> None:
    _require(arrays, "label", "int64", (images,), classes - 1)
    _require(arrays, "hit", "bool", (images,))


_CHECKS = {Matches: _check_matches, Overlaps: _check_overlaps, Hits: _check_hits}
