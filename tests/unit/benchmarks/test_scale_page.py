from typing import Any

import pytest

from benchmarks.pages.scale import scale_page

STEP = {"jobs_per_second": 20.0, "lag_p50": 0.5, "lag_p99": 1.5, "cpu_ms_per_job": 2.0, "load": "2.0"}
STEP |= {"rss_mib": 90.0, "peak_mib": 100.0}


def results(**changes: Any) -> dict[str, Any]:
    steps = [{**STEP, "exports": 100}, {**STEP, "exports": 300, **changes}]
    return {"at_once": 1000, "foreign": 10000, "jobs_each": 9, "steps": steps}


def test_every_goal_is_marked_met_or_missed() -> None:
    text = "\n".join(scale_page(results()))
    assert text.count("| met |") == 2
    assert "300 ModelExports of 9 targets (2,700 Jobs)" in text
    assert "| 300 | 20.0 | 0.50 | 1.50 | 2.00 | 90 | 100 | 2.0 |" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lag_p99": 2.0}, "| p99 under 2 s | 2.00 s | **missed** |"),
        ({"peak_mib": 390.0}, "| under 400 MB with 300 exports | 409 MB | **missed** |"),
    ],
)
def test_missed_goal_at_scale_is_reported(change: dict[str, Any], words: str) -> None:
    assert words in "\n".join(scale_page(results(**change)))
