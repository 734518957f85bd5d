"""What a conversion leaves for its publication: one file and the draft of its report. Neither is trusted.

The step that converts opens what strangers wrote, so its folder may hold anything. Nothing is followed, nothing but
regular files is opened, and what is published is a copy that nobody else can reach, with its digest from that copy.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from modelexport import untrusted
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.result import Verification, read_verification
from modelexport.text import clean
from modelexport_converter.checks import each, mapping, number, optional, record, simple, text, whole
from modelexport_converter.failures import Failure
from modelexport_converter.progress import Effort
from modelexport_converter.report import REMARK_LIMIT, REMARKS
from modelexport_converter.stores import CHUNK

DRAFT_FILE = "draft.json"
DRAFT_LIMIT = 2 << 20
"""Bytes of a draft: the names of 20,000 classes take a fifth of it."""
GROWTH, ALLOWANCE = 4, 256 << 20
"""A file in FP32 is twice its checkpoint in half precision; the allowance is for constants that were computed."""
LARGEST = 4 << 30
WEEK = 7 * 24 * 3600.0
_COUNT = 1 << 53
_AXES = each(text(64), 16)
_SHAPE = each(whole(1 << 31), 16)

_check_draft = record(
    verification=read_verification,
    agreements=mapping(number(1), 1024),
    pictures=record(
        source=text(64),
        calibrated=whole(1 << 20),
        apart=untrusted.flag,
        unreadable=each(text(4096), 1024),
        repeated=whole(1 << 20),
        verified=whole(1 << 20),
        withEvidence=whole(1 << 20),
    ),
    remarks=each(text(REMARK_LIMIT), REMARKS),
    model=record(
        input=record(name=text(256), shape=_SHAPE, axes=_AXES),
        preprocessing=simple(3),
        outputs=each(record(name=text(256), shape=optional(_SHAPE), axes=_AXES, meaning=text(4096)), 1024),
        classNames=each(text(256), 100_000),
        weights=text(256),
        metadata=mapping(text(4096), 256),
        weightTypes=mapping(whole(_COUNT), 64),
        opTypes=mapping(whole(_COUNT), 4096),
        normalisation=optional(
            record(
                **dict.fromkeys(("mean", "spread", "firstSpread", "worstMean"), optional(number(1e308))),
                worstLayer=text(256),
                layers=whole(1 << 20),
                pictures=whole(1 << 20),
            )
        ),
    ),
    effort=record(seconds=mapping(number(WEEK), 64), total=number(WEEK), peak_memory_mib=whole(1 << 24)),
)


@dataclass(frozen=True)
class Handover:
    """A file of ours with what the conversion made, its SHA-256 (64 hex digits) and bytes, and what is said of it."""

    path: Path
    sha256: str
    size_bytes: int
    verification: Verification
    effort: Effort
    findings: Mapping[str, Any]


def write_draft(folder: Path, verification: Verification, effort: Effort, findings: Mapping[str, Any]) -> None:
    """Leave the draft of a report beside the converted file; names of the model are cleaned as they are written."""
    draft = {"verification": verification.to_dict(), "effort": asdict(effort), **findings}
    (folder / DRAFT_FILE).write_text(json.dumps(_cleaned(draft), ensure_ascii=False), encoding="utf-8")


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def take(folder: Path, request: ConversionRequest, checkpoint_bytes: int, scratch: Path) -> Handover:
    """Take over what the conversion of a request left in ``folder``; copy its file to ``scratch``.

    Raises:
        Failure: ``OutputRefused``, it is not what a conversion leaves.
    """
    try:
        return _take(folder, request, min(LARGEST, GROWTH * checkpoint_bytes + ALLOWANCE), scratch)
    except ValueError as error:
        message = f"what the conversion left is refused: {clean(str(error), 300)}; nothing is published"
        raise Failure(Reason.OUTPUT_REFUSED, message) from error


def _take(folder: Path, request: ConversionRequest, limit: int, scratch: Path) -> Handover:
    name = request.artifact_name
    _check_names(folder, {name, DRAFT_FILE})
    with _opened(folder, DRAFT_FILE, DRAFT_LIMIT) as file:
        draft = _read_draft(file)
    verification = read_verification(draft.pop("verification"))
    _check_verification(verification, request)
    effort = Effort(**draft.pop("effort"))
    with _opened(folder, name, limit) as source, (scratch / "artifact").open("xb") as copy:
        sha256, size = _copy(source, copy, limit)
    if not size:
        raise ValueError(f"{name} is empty")
    return Handover(scratch / "artifact", sha256, size, verification, effort, draft)


def _check_names(folder: Path, expected: set[str]) -> None:
    found = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in expected:
                raise ValueError(f"its folder holds {entry.name!r}, which nobody asked for")
            found.add(entry.name)
    if missing := expected - found:
        raise ValueError(f"its folder lacks {' and '.join(sorted(missing))}")


@contextmanager
def _opened(folder: Path, name: str, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file that has no other name, of at most ``limit`` bytes. A pipe does not make us wait."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / name, flags)
    except OSError as error:
        raise ValueError(f"{name} cannot be opened as a file: {error.strerror}") from error
    try:
        _check_file(os.fstat(descriptor), name, limit)
    except ValueError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _check_file(status: os.stat_result, name: str, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is no regular file")
    if status.st_nlink != 1:
        raise ValueError(f"{name} is a hard link")
    if status.st_size > limit:
        raise ValueError(f"{name} has {status.st_size:,} bytes, at most {limit:,} are taken")


def _read_draft(file: BinaryIO) -> dict[str, Any]:
    draft = untrusted.load(file.read(DRAFT_LIMIT).decode(), DRAFT_LIMIT)
    _check_draft(draft, "draft")
    return dict(draft)


def _check_verification(found: Verification, request: ConversionRequest) -> None:
    """What is published must have reached what was asked; that it really has, only its conversion knows."""
    asked, value = request.threshold, float(found.value)
    if not asked.minimum <= value <= 1:
        raise ValueError(f"draft.verification.value is {found.value}, {asked.minimum:g} to 1 is asked")
    if found.reference is None:
        raise ValueError("draft.verification has no reference")
    expected = replace(found, metric=asked.metric, value=f"{value:.6f}", threshold=f"{asked.minimum:g}")
    if found != expected:
        raise ValueError(f"draft.verification is {found}, not {expected}")


def _copy(source: BinaryIO, copy: BinaryIO, limit: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > limit:
            raise ValueError("it grows while it is read")
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest(), size
