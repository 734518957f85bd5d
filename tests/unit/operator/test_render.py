from pathlib import Path

import pytest

from modelexport.crds.render import write_files
from modelexport_operator.metrics.definitions import METRICS, Metric
from modelexport_operator.metrics.render import render_all, render_metrics

ROOT = Path(__file__).parents[3]


def test_generated_files_match_code() -> None:
    assert write_files("render", render_all(), ["--check", str(ROOT)]) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_has_complete_row(metric: Metric) -> None:
    labels = ", ".join(metric.labels)
    row = f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.meaning} |"
    assert row in render_metrics().splitlines()
