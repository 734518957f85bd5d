"""Every metric of the operator: what ``/metrics`` serves and ``docs/metrics.md`` lists. Pure.

A label never holds the name of an object: all values come from closed lists, so the number of series is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Prometheus' types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric by the name that queries use (of a histogram without ``_bucket``, ``_sum`` and ``_count``).

    ``buckets`` are the upper limits of a histogram, in its unit.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


LABELS: Mapping[str, str] = {
    "architecture": "architecture of the model: a row of the support matrix, or `Other`",
    "error": "`UnavailableError`, `ConflictError` or `RefusedError` of the API server, or `Defect`: ours",
    "fault": "who has to act, by the reason: `None`, `User` or `System`",
    "format": "`LiteRT`, `ONNX` or `CoreML`",
    "outcome": "`Succeeded` or `Failed`",
    "precision": "`FP32`, `FP16` or `INT8`",
    "python": "version of Python",
    "reason": "a word of the [closed list](reasons.md)",
    "resource": "`modelexports`, `exportclasses`, `jobs`, `pods` or `nodes`",
    "state": "`New`, `Pending`, `Queued`, `Running` or `Suspended`; of exports `New` or the reason of their Ready "
    "condition, `Other` where that is no word of ours; `New` is of what the operator has told nothing yet",
    "version": "version of the operator",
}
"""What the values of a label are."""

TARGET = ("format", "precision")

BUILD = Metric("modelexport_build_info", Kind.GAUGE, "", "Always 1; its labels say what runs", ("version", "python"))
LEADER = Metric("modelexport_leader", Kind.GAUGE, "", "1 for the operator that writes, 0 for one that waits")
EXPORTS = Metric(
    "modelexport_exports", Kind.GAUGE, "ModelExports", "ModelExports by the reason of their Ready condition", ("state",)
)
OPEN_TARGETS = Metric(
    "modelexport_targets",
    Kind.GAUGE,
    "targets",
    "Targets that have not ended, but for those that wait for a correction of their ModelExport",
    (*TARGET, "state"),
)
OLDEST_TARGET = Metric(
    "modelexport_oldest_target_seconds",
    Kind.GAUGE,
    "seconds",
    "Age of the oldest target of those in modelexport_targets, by its state and reason: since its Job started, or else "
    "since the Ready or the Reconciling condition of its ModelExport last changed",
    ("state", "reason", "fault"),
)
CONVERSIONS = Metric(
    "modelexport_conversions_total",
    Kind.COUNTER,
    "targets",
    "Targets whose end was recorded while this operator led; verification failures are those with the reason "
    "VerificationFailed or InspectionFailed",
    (*TARGET, "outcome", "reason", "fault"),
)
CONVERSION_SECONDS = Metric(
    "modelexport_conversion_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "The converter's own time for a published target, without any waiting; files that were there already do not count",
    ("architecture", *TARGET),
    (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0),
)
TARGET_SECONDS = Metric(
    "modelexport_target_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "From the start to the end of the Job of a published target: waiting for a node, pulling the image and every "
    "attempt included",
    TARGET,
    (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0),
)
SYNC_SECONDS = Metric(
    "modelexport_sync_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time of one sync of one export",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)
SYNC_ERRORS = Metric(
    "modelexport_sync_errors_total", Kind.COUNTER, "syncs", "Syncs that have to be repeated", ("error",)
)
LAST_SYNC = Metric(
    "modelexport_last_sync_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    "When a sync succeeded last; before the first one, when the operator started",
)
QUEUE_DEPTH = Metric("modelexport_queue_depth", Kind.GAUGE, "ModelExports", "Exports that wait to be synced")
WATCH_LAG = Metric(
    "modelexport_watch_lag_objects",
    Kind.GAUGE,
    "objects",
    "Objects that the API server lists and the watch has not told",
    ("resource",),
)
KEPT_OBJECTS = Metric(
    "modelexport_kept_objects",
    Kind.GAUGE,
    "objects",
    "Objects of which the operator keeps what it reads; whoever may label a Pod or a Job as ours adds to them",
    ("resource",),
)
LAST_AUDIT = Metric(
    "modelexport_last_audit_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    "When the watches were compared with what the API server lists last; before the first time, when the operator "
    "started",
)
OWN = (
    BUILD,
    LEADER,
    EXPORTS,
    OPEN_TARGETS,
    OLDEST_TARGET,
    CONVERSIONS,
    CONVERSION_SECONDS,
    TARGET_SECONDS,
    SYNC_SECONDS,
    SYNC_ERRORS,
    LAST_SYNC,
    QUEUE_DEPTH,
    WATCH_LAG,
    KEPT_OBJECTS,
    LAST_AUDIT,
)
PROCESS = (
    Metric("process_cpu_seconds_total", Kind.COUNTER, "seconds", "Processor time that the operator has used"),
    Metric("process_max_fds", Kind.GAUGE, "files", "Files that it may open"),
    Metric("process_open_fds", Kind.GAUGE, "files", "Files that it has open"),
    Metric("process_resident_memory_bytes", Kind.GAUGE, "bytes", "Memory that it holds"),
    Metric("process_start_time_seconds", Kind.GAUGE, "seconds since 1970", "When it started"),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, "bytes", "Address space that it has reserved"),
)
"""What the Prometheus client tells of every process."""
METRICS = (*OWN, *PROCESS)
