"""Takes over the output of the convert step: one file and the draft of its report. Neither is trusted.

The convert step opens untrusted files, so its folder may hold anything. No link is followed, only regular files are
opened, and the published file is a private copy whose digest was computed while copying.
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
from modelexport.api.quantization import MOST_FLOAT_LAYERS
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Accuracy, Fidelity, Verification, read_accuracy, read_verification
from modelexport.api.rungs import QuantizationResult, read_quantization
from modelexport.api.spec import DropType, OnDrop
from modelexport.matrix.support import ARCHITECTURES, lookup
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.publishing.json_checks import (
    Check,
    each,
    mapping,
    number,
    optional,
    record,
    simple,
    text,
    whole,
)
from modelexport_converter.publishing.original import FILE_LIMIT, HANDED_OVER
from modelexport_converter.publishing.report import LAYER_LIMIT, REMARK_LIMIT, REMARKS
from modelexport_converter.runtime.progress import Effort
from modelexport_converter.stores import CHUNK

DRAFT_FILE = "draft.json"
DRAFT_LIMIT = 2 << 20
"""Bytes of a draft: the names of 20,000 classes take a fifth of it."""
GROWTH, ALLOWANCE = 4, 256 << 20
"""An FP32 file has twice the size of a half-precision checkpoint; the allowance is for computed constants."""
LARGEST = 4 << 30
WEEK = 7 * 24 * 3600.0
_COUNT = 1 << 53
ROUNDING = 3e-6
"""Difference of numbers that are written with six digits."""
_AXES = each(text(64), 16)
_SHAPE = each(optional(whole(1 << 31)), 16)

_SIDE = each(
    record(
        label=whole(1 << 20),
        score=number(1),
        same=untrusted.flag,
        box=each(number(1 << 20), 4),
        keypoints=each(number(1 << 20), 2048),
        runs=each(whole(1 << 12), 1 << 14),
        corners=each(number(1 << 20, -(1 << 20)), 8),
    ),
    64,
)

_DRAFT: Mapping[str, Check] = dict(  # noqa: C408 - as the calls of record
    verification=read_verification,
    agreements=mapping(number(1), 1024),
    floatLayers=each(text(LAYER_LIMIT), MOST_FLOAT_LAYERS),
    floatLayerShares=each(number(1), MOST_FLOAT_LAYERS),
    quantization=optional(read_quantization),
    images=record(
        source=text(64),
        calibrated=whole(1 << 20),
        apart=untrusted.flag,
        unreadable=each(text(4096), 1024),
        repeated=whole(1 << 20),
        verified=whole(1 << 20),
        withEvidence=whole(1 << 20),
    ),
    latency=optional(record(seconds=number(WEEK), images=whole(1 << 20))),
    device=text(64),
    remarks=each(text(REMARK_LIMIT), REMARKS),
    samples=each(
        record(image=text(1 << 17), size=each(whole(1 << 16), 2), difference=number(1), model=_SIDE, file=_SIDE), 6
    ),
    model=record(
        input=record(
            name=text(256),
            shape=_SHAPE,
            type=text(64),
            axes=_AXES,
            inputSize=optional(each(whole(1 << 24), 2)),
            quantization=optional(record(scale=number(1e6), zeroPoint=untrusted.int8)),
        ),
        preprocessing=simple(3),
        outputs=each(record(name=text(256), shape=_SHAPE, type=text(64), axes=_AXES, meaning=text(4096)), 1024),
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
                images=whole(1 << 20),
            )
        ),
    ),
    effort=record(seconds=mapping(number(WEEK), 64), total=number(WEEK), peak_memory_mib=whole(1 << 24)),
)
_EVALUATION = record(
    labels=text(64),
    matchedBy=text(64),
    dropType=text(64),
    onDrop=text(64),
    available=whole(1 << 20),
    chosen=whole(1 << 20),
    calibrating=whole(1 << 20),
    unreadable=each(text(4096), 1024),
    digest=untrusted.digest,
    resamples=whole(1 << 20),
    sigmas=each(number(1e6), 1024),
    recorded=optional(number(1)),
    classes=mapping(record(original=number(1), value=number(1)), 20_000),
)
_check_draft = record(**_DRAFT)
_check_evaluated_draft = record(**_DRAFT, accuracy=read_accuracy, evaluation=_EVALUATION)


@dataclass(frozen=True)
class ConvertedOutput:
    """A private copy of the converted file, its SHA-256 (64 hex digits) and bytes, and the parts of its report.

    ``original`` is a private copy of the evaluation of the original, if this conversion measured it.
    """

    path: Path
    sha256: str
    size_bytes: int
    verification: Verification
    accuracy: Accuracy | None
    quantization: QuantizationResult | None
    effort: Effort
    findings: Mapping[str, Any]
    original: Path | None = None


def write_draft(
    folder: Path,
    verification: Verification,
    accuracy: Accuracy | None,
    effort: Effort,
    findings: Mapping[str, Any],
    *,
    quantization: QuantizationResult | None = None,
) -> None:
    """Write the draft of a report beside the converted file; names from the model are cleaned."""
    draft = {"verification": verification.to_dict(), "effort": asdict(effort), **findings}
    draft["quantization"] = quantization and quantization.to_dict()
    if accuracy:
        draft["accuracy"] = accuracy.to_dict()
    (folder / DRAFT_FILE).write_text(json.dumps(_cleaned(draft), ensure_ascii=False), encoding="utf-8")


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def take_output(folder: Path, request: ConversionRequest, checkpoint_bytes: int, scratch: Path) -> ConvertedOutput:
    """Check the draft in ``folder``, and copy the converted file to ``scratch``.

    Raises:
        Failure: ``OutputRefused``, it is not the output of a conversion.
    """
    try:
        limit = min(LARGEST, GROWTH * checkpoint_bytes + ALLOWANCE)
        name = request.artifact_name
        _check_names(folder, {name, DRAFT_FILE}, {HANDED_OVER} if request.evaluation else set())
        with _opened(folder, DRAFT_FILE, DRAFT_LIMIT) as file:
            content = untrusted.load(file.read(DRAFT_LIMIT).decode(), DRAFT_LIMIT)
        (_check_evaluated_draft if request.evaluation else _check_draft)(content, "draft")
        draft = dict(content)
        verification = read_verification(draft.pop("verification"))
        _check_verification(verification, request)
        accuracy = read_accuracy(draft.pop("accuracy")) if request.evaluation else None
        if accuracy:
            _check_accuracy(accuracy, request)
        quantization = _take_quantization(draft, request)
        effort = Effort(**draft.pop("effort"))
        with _opened(folder, name, limit) as source, (scratch / "artifact").open("xb") as copy:
            sha256, size = _copy(source, copy, limit)
        if not size:
            raise ValueError(f"{name} is empty")
        original = _take_original(folder, scratch)
        artifact = scratch / "artifact"
        return ConvertedOutput(artifact, sha256, size, verification, accuracy, quantization, effort, draft, original)
    except ValueError as error:
        message = f"the output of the conversion is refused: {clean(str(error), 300)}; nothing is published"
        raise Failure(Reason.OUTPUT_REFUSED, message) from error


def _take_original(folder: Path, scratch: Path) -> Path | None:
    """Copy the evaluation of the original to ``scratch`` if the conversion handed one over."""
    if not os.path.lexists(folder / HANDED_OVER):
        return None
    with _opened(folder, HANDED_OVER, FILE_LIMIT) as source, (scratch / HANDED_OVER).open("xb") as copy:
        _copy(source, copy, FILE_LIMIT)
    return scratch / HANDED_OVER


def _check_names(folder: Path, expected: set[str], allowed: set[str]) -> None:
    found = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in expected | allowed:
                raise ValueError(f"its folder holds the unexpected file {entry.name!r}")
            found.add(entry.name)
    if missing := expected - found:
        raise ValueError(f"its folder lacks {' and '.join(sorted(missing))}")


@contextmanager
def _opened(folder: Path, name: str, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file without other hard links, of at most ``limit`` bytes. A pipe does not block."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / name, flags)
    except OSError as error:
        raise ValueError(f"{name} cannot be opened as a file: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name} is not a regular file")
        if status.st_nlink != 1:
            raise ValueError(f"{name} is a hard link")
        if status.st_size > limit:
            raise ValueError(f"{name} has {status.st_size:,} bytes, at most {limit:,} are taken")
    except ValueError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _check_verification(found: Verification, request: ConversionRequest) -> None:
    """Check that the verification meets the request. Whether its numbers are true, only the conversion knows."""
    asked, value = request.threshold, float(found.value)
    if not asked.minimum <= value <= 1:
        raise ValueError(f"draft.verification.value is {found.value}, must be {asked.minimum:g} to 1")
    if found.reference is None:
        raise ValueError("draft.verification has no reference")
    expected = replace(found, metric=asked.metric, value=f"{value:.6f}", threshold=f"{asked.minimum:g}")
    if found != expected:
        raise ValueError(f"draft.verification is {found}, not {expected}")
    if found.fidelity:
        _check_fidelity(found.fidelity, lookup(request.model.architecture, request.target).fidelity)


def _check_fidelity(found: Fidelity, minimum: float | None) -> None:
    if minimum is None:
        raise ValueError("draft.verification.fidelity is of outputs without a known meaning")
    asked = minimum if found.threshold else 0.0
    if found.threshold not in (None, f"{minimum:g}") or not asked <= float(found.value) <= 1:
        raise ValueError(f"draft.verification.fidelity is {found}, must be {minimum:g} to 1")


def _check_accuracy(found: Accuracy, request: ConversionRequest) -> None:
    """Check that the accuracy meets the request and that its numbers agree with each other."""
    asked = request.evaluation
    assert asked is not None
    before, after, drop = float(found.original), float(found.value), float(found.drop)
    expected = (ARCHITECTURES[request.model.architecture].task.metric, f"{asked.max_drop:g}")
    if (found.metric, found.max_drop) != expected or not found.images:
        raise ValueError(f"draft.accuracy is {found}, not of {' and '.join(expected)}")
    if not (0 < before <= 1 and 0 <= after <= 1):
        raise ValueError(f"draft.accuracy is {found}, must be 0 to 1")
    unit = before if asked.drop_type is DropType.RELATIVE else 1.0
    if abs((before - after) / unit - drop) > ROUNDING / unit:
        raise ValueError(f"draft.accuracy.drop is {found.drop}, not {(before - after) / unit:.6f}")
    if asked.on_drop is OnDrop.FAIL and not found.kept:
        raise ValueError(f"draft.accuracy.drop is {found.drop}, at most {found.max_drop} is allowed")


def _take_quantization(draft: dict[str, Any], request: ConversionRequest) -> QuantizationResult | None:
    """Take how the file was made out of the draft, and check that it meets the request."""
    written, layers = draft.pop("quantization"), draft["floatLayers"]
    if (written is not None) != request.recipe.takes_float_layers:
        raise ValueError(f"draft.quantization is {'missing' if written is None else 'not of this recipe'}")
    found = None if written is None else read_quantization(written)
    expected = found.float_layers if found else 0
    if not len(layers) == len(draft["floatLayerShares"]) == expected:
        raise ValueError(f"draft.floatLayers has {len(layers)} layers, not {expected}")
    asked = request.quantization
    if found and found.float_layers > asked.max_float_layers:
        raise ValueError(f"draft.quantization has {expected} layers in float, more than {asked.max_float_layers}")
    if found and expected and float(found.size_ratio) > asked.max_size_ratio:
        raise ValueError(f"draft.quantization.sizeRatio is {found.size_ratio}, more than {asked.max_size_ratio:g}")
    return found


def _copy(source: BinaryIO, copy: BinaryIO, limit: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > limit:
            raise ValueError("it grows while it is read")
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest(), size
