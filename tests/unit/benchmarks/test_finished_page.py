from typing import Any

import pytest

from benchmarks.pages.finished import finished_page

RESTART: dict[str, Any] = {"exports": 300, "ready_seconds": 9.0, "ready_cpu_seconds": 5.0, "idle_percent": 0.5}
RESTART |= {"rss_mib": 90.0, "peak_mib": 95.0, "load": "2.0"}
CHURN = {"deleted": 1000, "rss_mib": 99.0, "fresh_rss_mib": 95.0}


def results(**changes: Any) -> dict[str, Any]:
    restart, churn = ({key: changes.get(key, found[key]) for key in found} for found in (RESTART, CHURN))
    return {"foreign": 10000, "jobs_each": 9, "restarts": [restart], "churn": [churn]}


def test_every_goal_is_marked_met_or_missed() -> None:
    text = "\n".join(finished_page(results()))
    assert text.count("| met |") == 3
    assert "| 300 | 9.0 | 5.0 | 90 | 95 | 0.50 | 2.0 |" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ready_seconds": 20.1}, "| ready within 20 s with 300 | 20.1 s | **missed** |"),
        ({"idle_percent": 1.0}, "| idle under 1 % of a core with 300 | 1.00 % | **missed** |"),
        ({"fresh_rss_mib": 80.0}, "| after a churn within 10 % of a fresh process | 1.24 | **missed** |"),
    ],
)
def test_missed_goal_with_finished_exports_is_reported(change: dict[str, Any], words: str) -> None:
    assert words in "\n".join(finished_page(results(**change)))


def test_interrupted_measurement_gives_a_page() -> None:
    assert "\n".join(finished_page({**results(), "churn": []})).count("| met |") == 2
