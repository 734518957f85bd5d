"""The Prometheus metrics, and the only import of the client library; ``definitions`` lists the metrics."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from modelexport import __version__
from modelexport.api.reasons import Fault, Reason
from modelexport.matrix.support import ARCHITECTURES, TARGETS
from modelexport.untrusted import moment
from modelexport_operator.jobs.state import State, TargetState
from modelexport_operator.kube.clock import now
from modelexport_operator.kube.objects import ModelExportObject
from modelexport_operator.metrics import definitions
from modelexport_operator.metrics.definitions import Kind, Metric
from modelexport_operator.metrics.open_targets import NEW, OpenTarget, open_targets
from modelexport_operator.status.conditions import READY, find_condition, status_of

CONTENT_TYPE = CONTENT_TYPE_LATEST
OPEN_STATES: Mapping[str, Reason] = {
    NEW: Reason.PENDING,
    State.PENDING: Reason.PENDING,
    State.QUEUED: Reason.QUEUED,
    State.RUNNING: Reason.RUNNING,
    Reason.SUSPENDED: Reason.SUSPENDED,
}
"""The states of a target that has not ended, each with its plain reason."""
OTHER = "Other"
"""Replaces every unknown value: one series per value that users write would exhaust the memory."""
_EXPORT_REASONS = frozenset((NEW, *Reason))
_KINDS: dict[Kind, Any] = {Kind.COUNTER: prometheus.Counter, Kind.GAUGE: prometheus.Gauge}
_ENDS_NO_TARGET = (
    Reason.CLASS_NOT_ALLOWED,
    Reason.CLASS_NOT_FOUND,
    Reason.FILES_REMAIN,
    Reason.INADMISSIBLE,
    Reason.INVALID_SPEC,
    Reason.NO_SUITABLE_NODE,
    Reason.SOURCE_NOT_ALLOWED,
    Reason.TARGETS_FAILED,
    Reason.UNSUPPORTED_TARGET,
)

# Timestamps of creation would double the number of series, and nothing here reads them.
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one operator process.

    Args:
        clock: the time of the API server, because Prometheus compares it with its own: a node's clock may be far off.
    """

    def __init__(self, clock: Callable[[], datetime] = now) -> None:
        self._clock = clock
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._build(definitions.BUILD).labels(__version__, platform.python_version()).set(1)
        self._sync_seconds = self._build(definitions.SYNC_SECONDS)
        self._sync_errors = self._build(definitions.SYNC_ERRORS)
        self._last_sync = self._build(definitions.LAST_SYNC)
        self._last_sync.set(self._clock().timestamp())
        self._conversions = self._build(definitions.CONVERSIONS)
        self._conversion_seconds = self._build(definitions.CONVERSION_SECONDS)
        self._target_seconds = self._build(definitions.TARGET_SECONDS)
        self._accuracy_drop = self._build(definitions.ACCURACY_DROP)
        self._lag = self._build(definitions.WATCH_LAG)
        self._kept = self._build(definitions.KEPT_OBJECTS)
        self._last_watch_check = self._build(definitions.LAST_WATCH_CHECK)
        self._last_watch_check.set(self._clock().timestamp())
        # For Prometheus a series that begins at 1 has not increased, so every counter exists before it counts.
        faults = [reason for reason in Reason if reason.policy.fault is not Fault.NONE]
        for target, reason in product(TARGETS, [Reason.SUCCEEDED, *faults]):
            outcome = State.SUCCEEDED if reason is Reason.SUCCEEDED else State.FAILED
            if reason not in _ENDS_NO_TARGET:
                self._conversions_of(TargetState(target, outcome, reason, ""))
        for error in ("UnavailableError", "ConflictError", "RejectedError", "Defect"):
            self._sync_errors.labels(error)

    def _build(self, metric: Metric) -> Any:
        if metric.kind is Kind.HISTOGRAM:
            return prometheus.Histogram(
                metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=self._registry
            )
        return _KINDS[metric.kind](metric.name, metric.meaning, metric.labels, registry=self._registry)

    def _conversions_of(self, state: TargetState) -> Any:
        target = state.target
        return self._conversions.labels(
            target.format, target.precision, state.state, state.reason, state.reason.policy.fault
        )

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Expose how many keys wait."""
        self._build(definitions.QUEUE_DEPTH).set_function(depth)

    def watch_exports(self, exports: Callable[[], list[ModelExportObject]], clock: Callable[[], datetime]) -> None:
        """Expose how many exports are in each state, and their open targets."""
        self._registry.register(_ExportCollector(exports, clock))

    def watch_leadership(self, is_leading: Callable[[], bool]) -> None:
        """Expose whether this process is the leader."""
        self._build(definitions.LEADER).set_function(is_leading)

    def record_sync(self, seconds: float, error: str | None = None) -> None:
        """Record one sync."""
        self._sync_seconds.observe(seconds)
        if error:
            self._sync_errors.labels(error).inc()
        else:
            self._last_sync.set(self._clock().timestamp())

    def record_watch_check(self) -> None:
        """Record that the cache was compared with a list."""
        self._last_watch_check.set(self._clock().timestamp())

    def record_lag(self, resource: str, objects: int) -> None:
        """Record how far a watch is behind."""
        self._lag.labels(resource).set(objects)

    def record_kept(self, resource: str, objects: int) -> None:
        """Record how many objects are cached."""
        self._kept.labels(resource).set(objects)

    def record_conversion(self, architecture: str, state: TargetState) -> None:
        """Record a target that ended."""
        self._conversions_of(state).inc()
        if state.result and state.result.accuracy and not state.result.reused:
            drop = state.result.accuracy.absolute_drop
            self._accuracy_drop.labels(state.target.format, state.target.precision).observe(drop)
        if state.state is not State.SUCCEEDED:
            return
        target = (state.target.format, state.target.precision)
        started, ended = moment(state.start_time), moment(state.completion_time)
        if started and ended:
            self._target_seconds.labels(*target).observe(max((ended - started).total_seconds(), 0.0))
        if state.result and state.result.seconds is not None and not state.result.reused:
            architecture = architecture if architecture in ARCHITECTURES else OTHER
            self._conversion_seconds.labels(architecture, *target).observe(state.result.seconds)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return prometheus.generate_latest(self._registry)


class _ExportCollector(Collector):
    """Counts exports on every scrape, so no number can drift."""

    def __init__(self, exports: Callable[[], list[ModelExportObject]], clock: Callable[[], datetime]) -> None:
        self._exports = exports
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        exports = self._exports()
        targets = list(open_targets(exports, self._clock()))
        reasons = (find_condition(status_of(export), READY).get("reason", NEW) for export in exports)
        states = ((reason if isinstance(reason, str) and reason in _EXPORT_REASONS else OTHER,) for reason in reasons)
        yield _family(definitions.EXPORTS, Counter(states))
        yield _family(definitions.OPEN_TARGETS, _count_targets(targets))
        yield _family(definitions.OLDEST_TARGET, _oldest_targets(targets))


def _count_targets(targets: Sequence[OpenTarget]) -> Mapping[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {
        (target.format, target.precision, state): 0 for target in TARGETS for state in OPEN_STATES
    }
    for found in targets:
        counts[found.target.format, found.target.precision, found.state] += 1
    return counts


def _oldest_targets(targets: Sequence[OpenTarget]) -> Mapping[tuple[str, ...], float]:
    """Return the age of the oldest target by state and reason; plain reasons exist even without a target."""
    ages = dict.fromkeys(OPEN_STATES.items(), 0.0)
    for found in targets:
        key = found.state, found.reason
        ages[key] = max(ages.get(key, 0.0), found.age_seconds)
    return {(state, reason, reason.policy.fault): age for (state, reason), age in ages.items()}


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
