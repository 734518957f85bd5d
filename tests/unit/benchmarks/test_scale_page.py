from typing import Any

import pytest

from benchmarks.pages.scale import scale_page

STEP = {"jobs_per_second": 20.0, "lag_p50": 0.5, "lag_p99": 1.5, "cpu_ms_per_job": 2.0, "load": "2.0"}


def results(**changes: Any) -> dict[str, Any]:
    steps = [{**STEP, "exports": exports, "rss_mib": 90.0, "peak_mib": 100.0} for exports in (100, 300)]
    restart = {"exports": 300, "ready_seconds": 9.0, "ready_cpu_seconds": 5.0, "idle_percent": 0.5}
    restart |= {"rss_mib": 90.0, "peak_mib": 95.0}
    churn = {"deleted": 1000, "rss_mib": 99.0, "fresh_rss_mib": 95.0}
    found = {**steps[-1], **restart, **churn, **changes}
    return {
        "at_once": 1000,
        "foreign": 10000,
        "jobs_each": 9,
        "steps": [steps[0], {key: found[key] for key in steps[1]}],
        "restarts": [{key: found[key] for key in restart}],
        "churn": [{key: found[key] for key in churn}],
    }


def test_every_goal_is_marked_met_or_missed() -> None:
    text = "\n".join(scale_page(results(rss_mib=90.0)))
    assert text.count("| met |") == 5
    assert "| 300 | 20.0 | 0.50 | 1.50 | 2.00 | 90 | 95 | 2.0 |" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lag_p99": 2.0}, "| p99 under 2 s | 2.00 s | **missed** |"),
        ({"peak_mib": 390.0}, "| under 400 MB with 300 exports | 409 MB | **missed** |"),
        ({"ready_seconds": 20.1}, "| ready within 20 s with 300 | 20.1 s | **missed** |"),
        ({"idle_percent": 1.0}, "| idle under 1 % of a core with 300 | 1.00 % | **missed** |"),
        ({"fresh_rss_mib": 80.0}, "| after a churn within 10 % of a fresh process | 1.24 | **missed** |"),
    ],
)
def test_missed_goal_at_scale_is_reported(change: dict[str, Any], words: str) -> None:
    assert words in "\n".join(scale_page(results(**change)))


def test_interrupted_measurement_gives_a_page() -> None:
    text = "\n".join(scale_page({**results(), "restarts": [], "churn": []}))
    assert "300 ModelExports of 9 targets (2,700 Jobs)" in text
    assert text.count("| met |") == 2
