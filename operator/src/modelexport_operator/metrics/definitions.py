"""Every metric of the operator, as ``/metrics`` serves it and ``docs/metrics.md`` lists it. Pure.

Labels never hold names of objects: all values come from closed lists, so the number of series is limited.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The types of Prometheus metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric by the name that queries use (for a histogram without ``_bucket``, ``_sum`` and ``_count``).

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
    "error": (
        "`UnavailableError`, `ConflictError`, `ForbiddenError` or `RejectedError` of the API server, or `Defect` of the"
        " operator"
    ),
    "fault": "who has to act, by the reason: `None`, `User` or `System`",
    "format": "`LiteRT`, `ONNX`, `CoreML`, `PyTorch`, `TensorFlow` or `ExecuTorch`",
    "outcome": "`Succeeded` or `Failed`",
    "precision": "`FP32`, `FP16`, `INT8` or `W8A16`",
    "python": "version of Python",
    "reason": "one of the [closed list](reasons.md)",
    "resource": "`modelexports`, `exportclasses`, `jobs`, `pods` or `nodes`",
    "state": "`New`, `Pending`, `Queued`, `Running` or `Suspended`; for exports `New` or the reason of their Ready "
    "condition, `Other` if that is unknown; `New` means without a status yet",
    "version": "version of the operator",
}
"""The possible values of each label."""

TARGET = ("format", "precision")

BUILD = Metric(
    "modelexport_build_info", Kind.GAUGE, "", "Always 1; its labels are the versions that run", ("version", "python")
)
LEADER = Metric("modelexport_leader", Kind.GAUGE, "", "1 for the leader, 0 for a standby")
EXPORTS = Metric(
    "modelexport_exports", Kind.GAUGE, "ModelExports", "ModelExports by the reason of their Ready condition", ("state",)
)
OPEN_TARGETS = Metric(
    "modelexport_targets",
    Kind.GAUGE,
    "targets",
    "Targets that have not ended, except those that wait for a correction of their ModelExport",
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
    "The converter's own time for a published target, without any waiting; files that already existed do not count",
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
ACCURACY_DROP = Metric(
    "modelexport_target_accuracy_drop",
    Kind.HISTOGRAM,
    "",
    "Loss of accuracy of an evaluated target against the original model: the difference of mAP50-95, mIoU or top-1, "
    "whatever dropType counts; targets that ended as AccuracyLost included, files that already existed not",
    TARGET,
    (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
)
SYNC_SECONDS = Metric(
    "modelexport_sync_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time of one sync of one export",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)
SYNC_ERRORS = Metric(
    "modelexport_sync_errors_total", Kind.COUNTER, "syncs", "Failed syncs, which are retried", ("error",)
)
LAST_SYNC = Metric(
    "modelexport_last_sync_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    "Time of the last successful sync; before the first one, of the start of the operator",
)
QUEUE_DEPTH = Metric("modelexport_queue_depth", Kind.GAUGE, "ModelExports", "Exports in the work queue")
WATCH_LAG = Metric(
    "modelexport_watch_lag_objects",
    Kind.GAUGE,
    "objects",
    "Objects that the API server lists and the watch has not reported",
    ("resource",),
)
KEPT_OBJECTS = Metric(
    "modelexport_kept_objects",
    Kind.GAUGE,
    "objects",
    "Objects in the cache; any user who may label a Pod or a Job as managed by the operator adds to them",
    ("resource",),
)
LAST_WATCH_CHECK = Metric(
    "modelexport_last_watch_check_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    "Time of the last watch check; before the first one, of the start of the operator",
)
OPERATOR = (
    BUILD,
    LEADER,
    EXPORTS,
    OPEN_TARGETS,
    OLDEST_TARGET,
    CONVERSIONS,
    CONVERSION_SECONDS,
    TARGET_SECONDS,
    ACCURACY_DROP,
    SYNC_SECONDS,
    SYNC_ERRORS,
    LAST_SYNC,
    QUEUE_DEPTH,
    WATCH_LAG,
    KEPT_OBJECTS,
    LAST_WATCH_CHECK,
)
PROCESS = (
    Metric("process_cpu_seconds_total", Kind.COUNTER, "seconds", "CPU time that the operator has used"),
    Metric("process_max_fds", Kind.GAUGE, "files", "Files that it may open"),
    Metric("process_open_fds", Kind.GAUGE, "files", "Files that it has open"),
    Metric("process_resident_memory_bytes", Kind.GAUGE, "bytes", "Memory that it holds"),
    Metric("process_start_time_seconds", Kind.GAUGE, "seconds since 1970", "When it started"),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, "bytes", "Address space that it has reserved"),
)
"""The metrics that the Prometheus client exports for every process."""
METRICS = (*OPERATOR, *PROCESS)
