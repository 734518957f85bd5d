"""A cell with its measured numbers, as a record for programs and as texts for tables."""

from collections.abc import Mapping

from modelexport.matrix import MEMORY_STEP_MIB, MOST_MEMORY_MIB, Cell, Precision, Target, lookup
from modelexport.measured import last_run

MIB = 1 << 20
UNKNOWN = "-"
TITLES = (
    "target",
    "level",
    "recipe",
    "accuracy, FP32 → file",
    "agreement",
    "MiB",
    "ratio",
    "seconds",
    "peak MiB",
    "asks MiB",
    "ms",
)
"""Of the texts of a cell."""
TEXT_TITLES = frozenset(TITLES[:4])
"""The titles over words; the others are over numbers."""
EXPLANATION = (
    "Accuracy (mAP50-95, mean IoU or top-1) and agreement are those of a small trained model at the size that it has "
    "learned, on 128 pictures: of the model in FP32, then of the file. The rest is measured on a model as wide as "
    "users have it, of the smallest variant, at the default input size: size and its ratio to the FP32 file of the "
    "format, seconds of the whole conversion, the peak of its memory, and one run of the file on one thread; Core ML "
    "files run in our evaluator, which says nothing about a device. A Job asks for the peak and a quarter more, in "
    f"steps of {MEMORY_STEP_MIB} MiB, and may use up to {MOST_MEMORY_MIB} MiB, so that larger variants have room."
)


def record(cell: Cell) -> dict[str, object]:
    """What is known of a cell, for programs; ``None`` where nothing was measured."""
    trained, full_size, name = cell.numbers.trained, cell.numbers.full_size, cell.architecture.name
    versions = last_run().versions
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
        "accuracyFP32": dict(last_run().references.get(name, {})) or None,
        "accuracy": trained and dict(trained.accuracy),
        "agreement": trained and trained.agreement,
        "inputSize": full_size and full_size.input_size,
        "sizeBytes": full_size and full_size.size_bytes,
        "ratio": ratio(cell),
        "seconds": full_size and full_size.seconds,
        "cores": full_size and full_size.cores,
        "peakMiB": full_size and full_size.peak_mib,
        "latencyMs": full_size and full_size.latency_ms,
        "failures": list(cell.numbers.failures),
        "tools": {tool: versions[tool] for tool in cell.backend.tools if tool in versions} or None,
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
        _number(full_size.peak_mib if full_size else None, 0),
        str(cell.resources.memory_mib),
        _number(full_size.latency_ms if full_size else None, 1),
    )


def explain_failures(cell: Cell) -> list[str]:
    """Why numbers of a cell are missing."""
    return [f"{cell.target} failed: {' '.join(reason.split())}" for reason in cell.numbers.failures]


def ratio(cell: Cell) -> float | None:
    """The size of a cell's file over that of the FP32 file in the same format."""
    full = lookup(cell.architecture.name, Target(cell.target.format, Precision.FP32)).numbers.full_size
    own = cell.numbers.full_size
    return own.size_bytes / full.size_bytes if own and full else None


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
