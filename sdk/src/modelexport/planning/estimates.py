"""A cell with its measured numbers, as a record for programs and as texts for tables."""

from collections.abc import Mapping

from modelexport.matrix import MEMORY_STEP_MIB, MOST_MEMORY_MIB, Cell, Precision, Scheme, Target, cells, lookup
from modelexport.measured import last_run
from modelexport.spec import DEFAULT_SAMPLES

MIB = 1 << 20
UNKNOWN = "-"
MOST_SECONDS = 120
"""What a full-size conversion may take, with as many calibration pictures as ``make matrix`` has."""
TITLES = (
    "target",
    "level",
    "recipe",
    "accuracy, FP32 → file",
    "agreement",
    "MiB",
    "ratio",
    "seconds",
    "s/picture",
    "peak MiB",
    "asks MiB",
    "ms",
)
"""Of the texts of a cell."""
TEXT_TITLES = frozenset(TITLES[:4])
"""The titles over words; the others are over numbers."""
EXPLANATION = (
    "Accuracy (mAP50-95, mean IoU or top-1) and agreement are those of a small trained model at the size that it has "
    "learned, on 128 pictures: of the model in FP32, then of the file. The rest is measured on a full-size model, "
    "whose variant and weights stand with its architecture, at the default input size: size and its ratio to the FP32 "
    "file of the format, seconds of the whole conversion, in INT8 the seconds in them for each calibration picture, "
    "the peak of its memory, and one run of the file on one thread; Core ML files run in our evaluator, which says "
    "nothing about a device. A Job asks for the peak and a quarter more, in "
    f"steps of {MEMORY_STEP_MIB} MiB, and may use up to {MOST_MEMORY_MIB} MiB, so that larger variants have room."
)


def record(cell: Cell) -> dict[str, object]:
    """What is known of a cell, for programs; ``None`` where nothing was measured."""
    trained, full_size, name = cell.numbers.trained, cell.numbers.full_size, cell.architecture.name
    run = last_run()
    return {
        "architecture": name,
        "task": cell.architecture.task,
        "format": cell.target.format,
        "precision": cell.target.precision,
        "level": cell.level,
        "scheme": cell.scheme(calibrated=False),
        "calibrated": cell.scheme(calibrated=True),
        "threshold": f"{cell.threshold.metric} >= {cell.threshold.minimum}",
        "cpu": " ".join(cell.backend.cpu_architectures),
        "suits": cell.backend.suits[cell.target.precision],
        "memoryRequestMiB": cell.resources.memory_mib,
        "memoryLimitMiB": cell.resources.memory_limit_mib,
        "accuracyFP32": dict(run.references.get(name, {})) or None,
        "accuracy": trained and dict(trained.accuracy),
        "agreement": trained and trained.agreement,
        "variant": full_size and full_size.variant,
        "madeUpWeights": full_size and full_size.made_up,
        "inputSize": full_size and full_size.input_size,
        "sizeBytes": full_size and full_size.size_bytes,
        "ratio": ratio(cell),
        "seconds": full_size and full_size.seconds,
        "calibrationPictures": pictures(cell),
        "secondsPerPicture": seconds_per_picture(cell),
        "cores": full_size and full_size.cores,
        "peakMiB": full_size and full_size.peak_mib,
        "latencyMs": full_size and full_size.latency_ms,
        "failures": list(cell.numbers.failures),
        "tools": {tool: run.versions[tool] for tool in cell.backend.tools if tool in run.versions} or None,
        "run": cell.numbers.run,
        "ofOneRun": bool(run.cells) and not run.apart,
    }


def texts(cell: Cell) -> tuple[str, ...]:
    """What is known of a cell as texts, in the order of ``TITLES``."""
    trained, full_size = cell.numbers.trained, cell.numbers.full_size
    agreement = _number(trained.agreement if trained else None, 4)
    return (
        str(cell.target),
        cell.level,
        cell.scheme(calibrated=True),
        _accuracy(cell),
        f"{agreement} ≥ {cell.threshold.minimum}",
        _number(full_size.size_bytes / MIB if full_size else None, 1),
        _number(ratio(cell), 2),
        _number(full_size.seconds if full_size else None, 1),
        _number(seconds_per_picture(cell), 2),
        _number(full_size.peak_mib if full_size else None, 0),
        str(cell.resources.memory_mib),
        _number(full_size.latency_ms if full_size else None, 1),
    )


def explain_run() -> str:
    """Whether all rows are of one run, and which are not."""
    run = last_run()
    if run.run is None:
        return "The file of the results does not tell whether they are of one run."
    if run.apart:
        return f"They are not of one run: apart from that of {run.run} were measured {', '.join(run.apart)}."
    return f"All are of the run {run.run}: its start, and a digest of the sources that it measured."


def explain_failures(cell: Cell) -> list[str]:
    """Why numbers of a cell are missing."""
    return [f"{cell.target} failed: {' '.join(reason.split())}" for reason in cell.numbers.failures]


def ratio(cell: Cell) -> float | None:
    """The size of a cell's file over that of the FP32 file in the same format."""
    full = lookup(cell.architecture.name, Target(cell.target.format, Precision.FP32)).numbers.full_size
    own = cell.numbers.full_size
    return own.size_bytes / full.size_bytes if own and full else None


def pictures(cell: Cell) -> int | None:
    """How many pictures have calibrated the full-size file; ``None`` where its scheme needs none."""
    full_size = cell.numbers.full_size
    return last_run().samples.get("fullSize") if full_size and Scheme(full_size.scheme).needs_calibration else None


def seconds_per_picture(cell: Cell) -> float | None:
    """Seconds for each calibration picture at full size, at most: those of the whole quantisation are divided."""
    full_size, count = cell.numbers.full_size, pictures(cell)
    return full_size.stages["quantise"] / count if full_size and count else None


def explain_pictures() -> str:
    """How the seconds of INT8 grow with the pictures, and how long that makes them; empty where none was measured."""
    measured = [cell for cell in cells() if cell.numbers.full_size]
    slowest = max(measured, key=_usual_seconds, default=None)
    if slowest is None or not pictures(slowest):
        return ""
    slow = sum(_usual_seconds(cell) > MOST_SECONDS for cell in measured)
    return (
        f"INT8 was calibrated on {pictures(slowest)} pictures, not on the {DEFAULT_SAMPLES} that an export has by "
        f"default: each further one costs the seconds under s/picture. With {DEFAULT_SAMPLES}, {slow} of "
        f"{len(measured)} cells would take more than {MOST_SECONDS} s, {slowest} the most: "
        f"{_usual_seconds(slowest):.0f} s."
    )


def _usual_seconds(cell: Cell) -> float:
    """Seconds of a full-size conversion with as many pictures as an export has by default."""
    full_size, each, count = cell.numbers.full_size, seconds_per_picture(cell) or 0.0, pictures(cell) or 0
    return full_size.seconds + (DEFAULT_SAMPLES - count) * each if full_size else 0.0


def _accuracy(cell: Cell) -> str:
    if cell.numbers.failures:
        return "failed"
    trained = cell.numbers.trained
    original: Mapping[str, float] = last_run().references.get(cell.architecture.name, {})
    if trained is None:
        return UNKNOWN
    return ", ".join(
        f"{measure} {_number(original.get(measure), 3)} → {value:.3f}" for measure, value in trained.accuracy.items()
    )


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
