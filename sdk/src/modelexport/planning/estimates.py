"""Measured numbers of cells, as records for programs and as strings for tables."""

from modelexport.api.spec import DEFAULT_SAMPLES
from modelexport.matrix.measured import measurements
from modelexport.matrix.support import (
    MEMORY_STEP_MIB,
    MOST_MEMORY_MIB,
    TARGETS,
    Cell,
    Precision,
    Recipe,
    Target,
    cells,
    lookup,
)

MIB = 1 << 20
UNKNOWN = "-"
MOST_SECONDS = 120
"""Maximum seconds of a full-size conversion with the calibration images of ``make matrix``."""
TITLES = (
    "target",
    "level",
    "recipe",
    "accuracy, FP32 → file",
    "drop",
    "95 % interval",
    "images",
    "agreement",
    "fidelity",
    "MiB",
    "ratio",
    "seconds",
    "s/image",
    "peak MiB",
    "asks MiB",
    "ms",
    "runs",
)
"""Column titles for ``texts``."""
TEXT_TITLES = frozenset(TITLES[:4])
"""Titles of the text columns; the other columns are numeric."""
EXPLANATION = (
    "Accuracy, agreement and fidelity are measured on a small trained model at the input size of its training. "
    "spec.evaluation measures the accuracy: that of the FP32 model, then that of the file, what the file loses, the "
    "limits between which the loss lies in 95 of 100 such sets of images, and the number of labelled images. No layer "
    "stays in float because of a loss. The outputs of Custom have no known meaning; its files are those of a "
    "classifier, which the same code measures outside the export. The other columns are measured on a full-size model "
    "at the default input size (variant and weights are listed with the architecture): file size, its ratio to the "
    "FP32 file of the format, seconds of the whole conversion, seconds per calibration image (INT8 and W8A16), peak "
    "memory, and milliseconds of one run of the file on one thread. Core ML files run in our evaluator, whose latency "
    f"says nothing about a device. A Job requests the peak and a quarter more, in steps of {MEMORY_STEP_MIB} MiB, and "
    f"may use up to {MOST_MEMORY_MIB} MiB, which leaves room for larger variants. The last column names the run."
)


def record(cell: Cell) -> dict[str, object]:
    """Return the record of a cell for programs; values are ``None`` if they were not measured."""
    trained, full_size, versions = cell.numbers.trained, cell.numbers.full_size, measurements().versions
    return {
        "architecture": cell.architecture.name,
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
        "accuracyFP32": trained and dict(trained.original),
        "accuracy": trained and dict(trained.accuracy),
        "accuracyDrop": trained and trained.drop,
        "accuracyInterval": trained and trained.interval,
        "accuracyImages": trained and trained.images,
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
        "tools": {tool: versions[tool] for tool in cell.tools if tool in versions} or None,
        "accuracyRun": trained and trained.run,
        "run": full_size and full_size.run,
    }


def texts(cell: Cell) -> tuple[str, ...]:
    """Return the numbers of a cell as strings, in the order of ``TITLES``."""
    trained, full_size = cell.numbers.trained, cell.numbers.full_size
    agreement = _number(trained.agreement if trained else None, 4)
    fidelity = _number(trained.fidelity if trained else None, 4)
    interval = trained and trained.interval
    return (
        str(cell.target),
        cell.level,
        cell.recipe(calibrated=True),
        _accuracy(cell),
        _number(trained.drop if trained else None, 4),
        " to ".join(_number(limit, 4) for limit in interval) if interval else UNKNOWN,
        str(trained.images) if trained and trained.images else UNKNOWN,
        f"{agreement} ≥ {cell.threshold.minimum}",
        UNKNOWN if cell.fidelity is None else f"{fidelity} ≥ {cell.fidelity}",
        _number(full_size.size_bytes / MIB if full_size else None, 1),
        _number(ratio(cell), 2),
        _number(full_size.seconds if full_size else None, 1),
        _number(seconds_per_image(cell), 2),
        _number(full_size.peak_mib if full_size else None, 0),
        str(cell.resources.memory_mib),
        _number(full_size.latency_ms if full_size else None, 1),
        _runs(cell),
    )


def explain_runs() -> list[str]:
    """Return a line for each run: its number in the column ``runs``, and how many rows it measured when and where."""
    measured, lines = measurements().cells.values(), []
    for number, run in enumerate(measurements().runs.values(), 1):
        trained = [one.trained for one in measured if one.trained and one.trained.run == run.name]
        full_size = [one.full_size for one in measured if one.full_size and one.full_size.run == run.name]
        machine = ", ".join(run.machine[key] for key in ("Date", "Processor", "Memory", "Kernel"))
        parts = []
        if trained:
            parts.append(f"accuracy of {len(trained)} rows in {run.seconds['trained'] / 60:.0f} min")
        if full_size:
            cores = "/".join(map(str, sorted({one.cores for one in full_size})))
            took = f"{run.seconds['fullSize'] / 60:.0f} min with {cores} of the cores for each conversion"
            parts.append(f"full size of {len(full_size)} rows in {took}")
        lines.append(f"Run {number} ({run.name}), {machine}: {', '.join(parts)}.")
    return lines


def explain_older() -> str:
    """Explain how an earlier version measured the rows without an interval; empty if there are no such rows."""
    older = [one.trained for one in measurements().cells.values() if one.trained and one.trained.images is None]
    if not older:
        return ""
    return (
        f"The accuracy of {len(older)} rows with a dash as interval was measured by an earlier version: on 128 images, "
        "in a process of its own."
    )


def explain_unmeasured() -> list[str]:
    """Return a line for each set of architectures that lack the measurements of the same targets."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for cell in cells():
        parts = {"accuracy": cell.numbers.trained, "full size": cell.numbers.full_size}
        if absent := " and ".join(what for what, numbers in parts.items() if numbers is None):
            lacking.setdefault((cell.architecture.name, absent), []).append(str(cell.target))
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, absent), targets in lacking.items():
        alike.setdefault((absent, tuple(targets)), []).append(name)
    return [
        f"Not measured yet: {absent} of {', '.join(names)}: "
        f"{'all targets' if len(targets) == len(TARGETS) else ', '.join(targets)}."
        for (absent, targets), names in alike.items()
    ]


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
    if full_size is None or full_size.run is None or not Recipe(full_size.recipe).needs_calibration:
        return None
    return measurements().runs[full_size.run].samples["fullSize"]


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
    if trained is None:
        return UNKNOWN
    return ", ".join(
        f"{metric} {_number(trained.original.get(metric), 3)} → {value:.3f}"
        for metric, value in trained.accuracy.items()
    )


def _runs(cell: Cell) -> str:
    """Return the number of the run of the accuracy and of that of the other columns; one number if it is the same."""
    numbers = {name: str(number) for number, name in enumerate(measurements().runs, 1)}
    parts = [part and part.run for part in (cell.numbers.trained, cell.numbers.full_size)]
    found = [numbers.get(name, UNKNOWN) if name else UNKNOWN for name in parts]
    return found[0] if found[0] == found[1] else ", ".join(found)


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # without the sign of -0.0
