"""Measured numbers of cells, as records for programs and as strings for tables."""

from collections.abc import Mapping

from modelexport.api.spec import DEFAULT_SAMPLES
from modelexport.matrix.measured import last_run
from modelexport.matrix.support import MEMORY_STEP_MIB, MOST_MEMORY_MIB, Cell, Precision, Recipe, Target, cells, lookup

MIB = 1 << 20
UNKNOWN = "-"
MOST_SECONDS = 120
"""Maximum seconds of a full-size conversion with the calibration images of ``make matrix``."""
TITLES = (
    "target",
    "level",
    "recipe",
    "accuracy, FP32 → file",
    "agreement",
    "fidelity",
    "MiB",
    "ratio",
    "seconds",
    "s/image",
    "peak MiB",
    "asks MiB",
    "ms",
)
"""Column titles for ``texts``."""
TEXT_TITLES = frozenset(TITLES[:4])
"""Titles of the text columns; the other columns are numeric."""
EXPLANATION = (
    "Accuracy (mAP50-95, mean IoU or top-1), agreement and fidelity are measured on a small trained model at the input "
    "size of its training; accuracy on 128 images, that of the FP32 model, then that of the file. The other columns "
    "are measured on a full-size model at the default input size (variant and weights are listed with the "
    "architecture): file size, its ratio to the FP32 file of the format, seconds of the whole conversion, seconds per "
    "calibration image (INT8 and W8A16), peak memory, and milliseconds of one run of the file on one thread. Core ML "
    "files run in our evaluator, whose latency says nothing about a device. A Job requests the peak and a quarter "
    f"more, in steps of {MEMORY_STEP_MIB} MiB, and may use up to {MOST_MEMORY_MIB} MiB, which leaves room for larger "
    "variants."
)


def record(cell: Cell) -> dict[str, object]:
    """Return the record of a cell for programs; values are ``None`` if they were not measured."""
    trained, full_size, name = cell.numbers.trained, cell.numbers.full_size, cell.architecture.name
    run = last_run()
    return {
        "architecture": name,
        "task": cell.architecture.task,
        "format": cell.target.format,
        "precision": cell.target.precision,
        "level": cell.level,
        "scheme": cell.recipe(calibrated=False),
        "calibrated": cell.recipe(calibrated=True),
        "threshold": f"{cell.threshold.metric} >= {cell.threshold.minimum}",
        "fidelityThreshold": cell.fidelity,
        "cpu": " ".join(cell.backend.cpu_architectures),
        "suits": cell.backend.recommended_hardware[cell.target.precision],
        "memoryRequestMiB": cell.resources.memory_mib,
        "memoryLimitMiB": cell.resources.memory_limit_mib,
        "accuracyFP32": dict(run.references.get(name, {})) or None,
        "accuracy": trained and dict(trained.accuracy),
        "agreement": trained and trained.agreement,
        "fidelity": trained and trained.fidelity,
        "variant": full_size and full_size.variant,
        "randomWeights": full_size and full_size.random_weights,
        "inputSize": full_size and full_size.input_size,
        "sizeBytes": full_size and full_size.size_bytes,
        "ratio": ratio(cell),
        "seconds": full_size and full_size.seconds,
        "calibrationImages": images(cell),
        "secondsPerImage": seconds_per_image(cell),
        "cores": full_size and full_size.cores,
        "peakMiB": full_size and full_size.peak_mib,
        "latencyMs": full_size and full_size.latency_ms,
        "failures": list(cell.numbers.failures),
        "tools": {tool: run.versions[tool] for tool in cell.tools if tool in run.versions} or None,
        "run": cell.numbers.run,
        "ofOneRun": bool(run.cells) and not run.apart,
    }


def texts(cell: Cell) -> tuple[str, ...]:
    """Return the numbers of a cell as strings, in the order of ``TITLES``."""
    trained, full_size = cell.numbers.trained, cell.numbers.full_size
    agreement = _number(trained.agreement if trained else None, 4)
    fidelity = _number(trained.fidelity if trained else None, 4)
    return (
        str(cell.target),
        cell.level,
        cell.recipe(calibrated=True),
        _accuracy(cell),
        f"{agreement} ≥ {cell.threshold.minimum}",
        UNKNOWN if cell.fidelity is None else f"{fidelity} ≥ {cell.fidelity}",
        _number(full_size.size_bytes / MIB if full_size else None, 1),
        _number(ratio(cell), 2),
        _number(full_size.seconds if full_size else None, 1),
        _number(seconds_per_image(cell), 2),
        _number(full_size.peak_mib if full_size else None, 0),
        str(cell.resources.memory_mib),
        _number(full_size.latency_ms if full_size else None, 1),
    )


def explain_run() -> str:
    """Return whether all rows come from one run, and the exceptions."""
    run = last_run()
    if run.run is None:
        return "The results do not record whether they come from one run."
    if run.apart:
        return f"Not all rows come from the run {run.run}; the exceptions are {', '.join(run.apart)}."
    return f"All rows come from the run {run.run} (start time, and digest of the measured sources)."


def explain_failures(cell: Cell) -> list[str]:
    """Return the reasons for missing numbers of a cell."""
    return [f"{cell.target} failed: {' '.join(reason.split())}" for reason in cell.numbers.failures]


def ratio(cell: Cell) -> float | None:
    """Return the file size of a cell relative to the FP32 file of the same format."""
    full = lookup(cell.architecture.name, Target(cell.target.format, Precision.FP32)).numbers.full_size
    own = cell.numbers.full_size
    return own.size_bytes / full.size_bytes if own and full else None


def images(cell: Cell) -> int | None:
    """Return the number of calibration images of the full-size file; ``None`` if its recipe needs none."""
    full_size = cell.numbers.full_size
    return last_run().samples.get("fullSize") if full_size and Recipe(full_size.recipe).needs_calibration else None


def seconds_per_image(cell: Cell) -> float | None:
    """Return the seconds per calibration image at full size: an upper bound, from the whole quantisation."""
    full_size, count = cell.numbers.full_size, images(cell)
    return full_size.stages["quantise"] / count if full_size and count else None


def explain_images() -> str:
    """Return how the duration of INT8 grows with the images; empty if nothing was measured."""
    measured = [cell for cell in cells() if cell.numbers.full_size]
    slowest = max(measured, key=_usual_seconds, default=None)
    if slowest is None or not images(slowest):
        return ""
    slow = sum(_usual_seconds(cell) > MOST_SECONDS for cell in measured)
    return (
        f"INT8 was calibrated on {images(slowest)} images; the default of an export is {DEFAULT_SAMPLES}. Each further "
        f"image costs the seconds in the column s/image. With {DEFAULT_SAMPLES} images, {slow} of {len(measured)} "
        f"cells would take more than {MOST_SECONDS} s; the slowest is {slowest} with "
        f"{_usual_seconds(slowest):.0f} s."
    )


def _usual_seconds(cell: Cell) -> float:
    """Return the seconds of a full-size conversion with the default number of calibration images."""
    full_size, each, count = cell.numbers.full_size, seconds_per_image(cell) or 0.0, images(cell) or 0
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
