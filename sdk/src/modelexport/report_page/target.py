"""Reads the parts of a report that the page shows. Reports are untrusted."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelexport import untrusted
from modelexport.api.quantization import MOST_FLOAT_LAYERS
from modelexport.published import Published
from modelexport.reading.facts import read_facts
from modelexport.reading.programs import write_programs

MOST_SAMPLES, MOST_ANSWERS, MOST_NUMBERS = 6, 64, 1 << 14
IMAGE_LIMIT, NAME_LIMIT, LAYER_LIMIT = 1 << 17, 60, 256
GRID = 64
"""Rows and columns of the masks of answers."""
MOST_CLASSES = 20_000
"""Classes that a report may have."""


@dataclass(frozen=True)
class Answer:
    """One answer in a sample: see ``modelexport_converter.verification.samples``."""

    label: int
    score: float
    same: bool
    box: Sequence[float]
    keypoints: Sequence[float]
    runs: Sequence[int]
    corners: Sequence[float] = ()


@dataclass(frozen=True)
class Sample:
    """An image as a JPEG in base64, the (height, width) of the input, and the answers of model and file."""

    image: str
    size: tuple[int, int]
    model: Sequence[Answer]
    file: Sequence[Answer]


@dataclass(frozen=True)
class Target:
    """One target with the parts of its report that the page shows; without a report it has its state alone.

    ``latency`` is the median of seconds per image in the runtime of the file. ``classes`` has the accuracy of the
    original and of the file by class, and ``programs`` a program that opens the file by language.
    """

    published: Published
    class_names: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    seconds: float | None = None
    peak_mib: int | None = None
    versions: Mapping[str, str] | None = None
    facts: Mapping[str, str] | None = None
    float_layers: Sequence[str] = ()
    float_layer_shares: Sequence[float] = ()
    latency: float | None = None
    classes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)


def read_target(published: Published, report: Mapping[str, Any]) -> Target:
    """Read the parts of a report that the page shows, except those that earlier versions did not write.

    Raises:
        ValueError: a part is not of its type or exceeds its limit.
    """
    model, request = (untrusted.record(report.get(key, {}), key) for key in ("model", "request"))
    seconds, peak = untrusted.record(report.get("seconds", {}), "seconds").get("total"), report.get("peakMemoryMiB")
    sources, source = (
        untrusted.record(value or {}, "sources") for value in (report.get("sources"), request.get("model"))
    )
    checkpoint = untrusted.record(source.get("checkpoint", {}), "request.model.checkpoint")
    facts = {
        "architecture": source.get("architecture"),
        "checkpoint": checkpoint.get("uri"),
        "SHA-256 of the checkpoint": sources.get("checkpoint"),
        "SHA-256 of the images": sources.get("calibration"),
        "weights": model.get("weights"),
    }
    versions, latency = untrusted.record(report.get("versions", {}), "versions"), report.get("latency")
    return Target(
        published,
        class_names=untrusted.texts(model.get("classNames", []), "model.classNames", 100_000, NAME_LIMIT),
        samples=[_read_sample(value) for value in untrusted.items(report.get("samples", []), "samples", MOST_SAMPLES)],
        seconds=None if seconds is None else untrusted.number(seconds, "seconds.total", 1e7),
        peak_mib=None if peak is None else untrusted.whole(peak, "peakMemoryMiB"),
        versions={_text(name): _text(value) for name, value in list(versions.items())[:64]},
        facts={name: _text(value) for name, value in facts.items() if value is not None},
        float_layers=untrusted.texts(report.get("floatLayers", []), "floatLayers", MOST_FLOAT_LAYERS, LAYER_LIMIT),
        float_layer_shares=[
            untrusted.number(share, "floatLayerShares", 1)
            for share in untrusted.items(report.get("floatLayerShares", []), "floatLayerShares", MOST_FLOAT_LAYERS)
        ],
        latency=None
        if latency is None
        else untrusted.number(untrusted.record(latency, "latency").get("seconds"), "latency.seconds", 1e7),
        classes=_read_classes(report.get("evaluation", {})),
        programs=write_programs(read_facts(report)) if "input" in model else {},
    )


def _read_classes(value: Any) -> Mapping[str, tuple[float, float]]:
    found = untrusted.record(untrusted.record(value, "evaluation").get("classes", {}), "evaluation.classes")
    if len(found) > MOST_CLASSES:
        raise ValueError(f"evaluation.classes has more than {MOST_CLASSES:,} classes")
    numbers = ((name, untrusted.record(entry, "evaluation.classes")) for name, entry in found.items())
    return {
        untrusted.text(name, "a class", NAME_LIMIT): (
            untrusted.number(entry.get("original"), "evaluation.classes.original", 1),
            untrusted.number(entry.get("value"), "evaluation.classes.value", 1),
        )
        for name, entry in numbers
    }


def _text(value: Any) -> str:
    return untrusted.text(value, "a text", 512)


def _read_sample(value: Any) -> Sample:
    fields = untrusted.record(value, "samples")
    height, width = (
        untrusted.whole(side, "samples.size", 1 << 16) for side in untrusted.items(fields.get("size"), "size", 2)
    )
    image = fields.get("image")
    if not isinstance(image, str) or len(image) > IMAGE_LIMIT:
        raise ValueError(f"samples.image is not a text of at most {IMAGE_LIMIT} characters")
    base64.b64decode(image, validate=True)
    model, file = (_read_answers(fields.get(side), side) for side in ("model", "file"))
    return Sample(image, (max(1, height), max(1, width)), model, file)


def _read_answers(value: Any, name: str) -> Sequence[Answer]:
    def numbers(value: Any, key: str, limit: int, low: float = 0) -> Sequence[float]:
        return [untrusted.number(number, key, 1 << 20, low) for number in untrusted.items(value, key, limit)]

    records = [untrusted.record(item, name) for item in untrusted.items(value, name, MOST_ANSWERS)]
    return [
        Answer(
            label=untrusted.whole(item.get("label"), f"{name}.label"),
            score=untrusted.number(item.get("score"), f"{name}.score", 1),
            same=untrusted.flag(item.get("same"), f"{name}.same"),
            box=numbers(item.get("box"), f"{name}.box", 4),
            keypoints=numbers(item.get("keypoints"), f"{name}.keypoints", 2048),
            runs=[
                untrusted.whole(n, f"{name}.runs", GRID)
                for n in untrusted.items(item.get("runs"), f"{name}.runs", MOST_NUMBERS)
            ],
            corners=numbers(item.get("corners", []), f"{name}.corners", 8, -(1 << 20)),
        )
        for item in records
    ]
