"""Writes the generated files of the operator; ``modelexport.crds.render`` writes those of the SDK."""

import sys
from collections.abc import Mapping

from modelexport.crds.reference import NOTE, page, table
from modelexport.crds.render import write_files
from modelexport_operator.metrics.dashboard import render_dashboard
from modelexport_operator.metrics.definitions import LABELS, METRICS


def render_all() -> Mapping[str, str]:
    """Return every generated file by its path in the repository."""
    return {
        "docs/metrics.md": render_metrics(),
        "helm/modelexport-operator/files/dashboard.json": render_dashboard(),
    }


def render_metrics() -> str:
    """Return the page with every metric, its type, labels, unit and meaning, and the values of the labels."""
    intro = (
        "`/metrics` on port 8080. No label holds the name of an object. Of a histogram there are `_bucket`, `_sum` and "
        "`_count`. With several replicas gauges are compared by `max` and counters added by `sum`: only the one that "
        "leads counts."
    )
    rows = ((f"`{one.name}`", one.kind, ", ".join(one.labels), one.unit, one.meaning) for one in METRICS)
    metrics = table(("metric", "type", "labels", "unit", "meaning"), rows)
    labels = table(("label", "values"), ((f"`{name}`", values) for name, values in LABELS.items()))
    return page([NOTE, "# Metrics", intro, metrics, "## Labels", labels])


if __name__ == "__main__":
    sys.exit(write_files("python -m modelexport_operator.metrics.render", render_all(), sys.argv[1:]))
