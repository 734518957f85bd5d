"""Writes the operator's generated files, as ``modelexport.render``, which must not know them, does the contract's."""

import sys
from collections.abc import Mapping

from modelexport.reference import NOTE, page, table
from modelexport.render import write_files
from modelexport_operator.catalogue import LABELS, METRICS, Metric
from modelexport_operator.dashboard import render_dashboard


def render_all() -> Mapping[str, str]:
    """Every file by its path in the repository."""
    return {
        "docs/metrics.md": render_metrics(),
        "helm/modelexport-operator/files/dashboard.json": render_dashboard(),
    }


def render_metrics() -> str:
    """Every metric with its type, labels, unit and meaning, and what the labels hold."""
    intro = (
        "`/metrics` on port 8080. No label holds the name of an object. Of a histogram there are `_bucket`, `_sum` and "
        "`_count`. With several replicas gauges are compared by `max` and counters added by `sum`: only the one that "
        "leads counts."
    )
    metrics = table(("metric", "type", "labels", "unit", "meaning"), map(_row, METRICS))
    labels = table(("label", "values"), ((f"`{name}`", values) for name, values in LABELS.items()))
    return page([NOTE, "# Metrics", intro, metrics, "## Labels", labels])


def _row(metric: Metric) -> tuple[str, ...]:
    return f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.unit, metric.meaning


if __name__ == "__main__":
    sys.exit(write_files("python -m modelexport_operator.render", render_all(), sys.argv[1:]))
