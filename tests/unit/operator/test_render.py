from pathlib import Path

import pytest

from modelexport.render import write_files
from modelexport_operator.catalogue import METRICS, Metric
from modelexport_operator.render import render_all, render_metrics

ROOT = Path(__file__).parents[3]


def test_the_generated_files_are_what_the_code_says() -> None:
    assert write_files("render", render_all(), ["--check", str(ROOT)]) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_has_a_row_with_type_labels_unit_and_meaning(metric: Metric) -> None:
    labels = ", ".join(metric.labels)
    row = f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.meaning} |"
    assert row in render_metrics().splitlines()
