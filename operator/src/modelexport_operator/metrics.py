"""Prometheus metrics, and the only import of its client. No metric is labelled by the name of an object."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from modelexport_operator.observe import State, TargetState
from modelexport_operator.pods import Object
from modelexport_operator.status import READY, find_condition, status_of

CONVERSION_BUCKETS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0)
SYNC_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TARGET = ("format", "precision")
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._syncs = Histogram(
            "modelexport_sync_seconds", "Time of one sync of one export", buckets=SYNC_BUCKETS, registry=self._registry
        )
        self._errors = CounterMetric(
            "modelexport_sync_errors", "Syncs that have to be repeated", ["error"], registry=self._registry
        )
        self._conversions = CounterMetric(
            "modelexport_conversions", "Targets that ended", [*TARGET, "outcome", "reason"], registry=self._registry
        )
        self._seconds = Histogram(
            "modelexport_conversion_seconds",
            "Time from the start to the end of the Job of a published target",
            TARGET,
            buckets=CONVERSION_BUCKETS,
            registry=self._registry,
        )
        self._lag = Gauge(
            "modelexport_watch_lag_objects",
            "Objects that the API server lists and the watch has not told",
            ["resource"],
            registry=self._registry,
        )

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Expose how many keys wait."""
        gauge = Gauge("modelexport_queue_depth", "Exports that wait to be synced", registry=self._registry)
        gauge.set_function(depth)

    def watch_exports(self, exports: Callable[[], list[Object]]) -> None:
        """Expose how many exports there are in each state."""
        self._registry.register(_ExportCollector(exports))

    def watch_leadership(self, is_leading: Callable[[], bool]) -> None:
        """Expose whether this process writes."""
        gauge = Gauge(
            "modelexport_leader", "1 for the operator that writes, 0 for one that waits", registry=self._registry
        )
        gauge.set_function(is_leading)

    def record_sync(self, seconds: float, error: str | None = None) -> None:
        """Record one sync."""
        self._syncs.observe(seconds)
        if error:
            self._errors.labels(error).inc()

    def record_lag(self, resource: str, objects: int) -> None:
        """Record how far a watch is behind."""
        self._lag.labels(resource).set(objects)

    def record_conversion(self, state: TargetState) -> None:
        """Record a target that ended."""
        target = (str(state.target.format), str(state.target.precision))
        self._conversions.labels(*target, str(state.state), str(state.reason)).inc()
        if state.state is State.SUCCEEDED and state.start_time and state.completion_time:
            took = datetime.fromisoformat(state.completion_time) - datetime.fromisoformat(state.start_time)
            self._seconds.labels(*target).observe(took.total_seconds())

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)


class _ExportCollector(Collector):
    """Counts when it is asked: no number can drift from what is there."""

    def __init__(self, exports: Callable[[], list[Object]]) -> None:
        self._exports = exports

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "modelexport_exports", "ModelExports by the reason of their Ready condition", labels=["state"]
        )
        states = Counter(find_condition(status_of(body), READY).get("reason", "New") for body in self._exports())
        for state, count in sorted(states.items()):
            family.add_metric([state], count)
        yield family
