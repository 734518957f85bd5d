"""The part of the page about an operator that finds thousands of finished exports."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.pages.tables import number, table, verdict

MOST_READY_SECONDS = 20.0
MOST_IDLE_PERCENT = 1.0
MOST_CHURN_RATIO = 1.1

INTRODUCTION = """## Thousands of finished exports

A new process finds ModelExports of {each} targets that have ended, with their Jobs and Pods, beside {foreign} Jobs
and Pods of others, on a real API server. It is *ready* when its cache has every object. *Idle* is its share of one core
after it has synced everything, checks of the watches included."""

CHURN = """After {deleted} exports, Jobs and Pods were deleted, a process that knew them has {rss:.0f} MiB; a
fresh process with the remaining objects has {fresh:.0f} MiB. Both have synced everything and checked every watch."""

Result = Mapping[str, Any]


def finished_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    restarts, churns = results["restarts"], results["churn"]
    yield INTRODUCTION.format(each=results["jobs_each"], foreign=f"{results['foreign']:,}")
    rows = [
        (
            f"{restart['exports']:,}",
            *(number(restart[key]) for key in ("ready_seconds", "ready_cpu_seconds")),
            *(number(restart[key], 0) for key in ("rss_mib", "peak_mib")),
            number(restart["idle_percent"], 2),
            restart["load"],
        )
        for restart in restarts
    ]
    yield table(("exports", "ready s", "CPU s", "RSS MiB", "peak MiB", "idle %", "load"), rows)
    for churn in churns:
        yield CHURN.format(deleted=f"{churn['deleted']:,}", rss=churn["rss_mib"], fresh=churn["fresh_rss_mib"])
    yield table(("Target", "Measured", "Result"), list(_targets(restarts, churns)))


def _targets(restarts: Sequence[Result], churns: Sequence[Result]) -> Iterator[tuple[str, str, str]]:
    ready, exports = restarts[0]["ready_seconds"], restarts[0]["exports"]
    yield (f"ready within 20 s with {exports:,}", f"{ready:.1f} s", verdict(ready <= MOST_READY_SECONDS))
    idle, exports = restarts[-1]["idle_percent"], restarts[-1]["exports"]
    yield (f"idle under 1 % of a core with {exports:,}", f"{idle:.2f} %", verdict(idle < MOST_IDLE_PERCENT))
    for churn in churns:
        ratio = churn["rss_mib"] / churn["fresh_rss_mib"]
        yield ("after a churn within 10 % of a fresh process", f"{ratio:.2f}", verdict(ratio <= MOST_CHURN_RATIO))
