"""Writes the part of the page about watches from the results of ``watches.cost``."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.pages.tables import number, table

Result = Mapping[str, Any]
WAYS = {"own": "own watch and cache", "handlers": "kopf's handlers, own cache", "indices": "kopf's indices"}

INTRODUCTION = """## Watches beside kopf's

One process watches Jobs and Pods by the operator's own watch, one by kopf's `on.event` handlers in front of the same
cache, and one keeps them in kopf's indices, all against a fake API server. A new process lists Jobs and Pods that have
ended. Then {living} new Jobs run from creation to end, each with one Pod: eight events a Job. Rounds are interleaved;
ratios compare processor time with our own watch. A dash: the start was given up after {limit:.0f} CPU s.
[ADR 4](adr/0004-kopf.md) draws the conclusion."""

FAULTS = """While no watch was open, {changed} Jobs and {changed} Pods changed, and as many were deleted. The table
shows the seconds until a process with {jobs:,} Jobs had noticed them all, or the changes that it had missed after
{limit:.0f} s."""

COLUMNS = (
    *("", "Jobs", "ready s", "start CPU s", "ratio", "start peak MiB"),
    *("CPU ms for an event", "ratio", "RSS MiB", "rounds", "load"),
)


def watch_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    measurements = results["measurements"]
    cases = list(dict.fromkeys((found["jobs"], found["way"]) for found in measurements))
    rounds = {case: [m for m in measurements if (m["jobs"], m["way"]) == case] for case in cases}
    yield INTRODUCTION.format(living=results["living"], limit=results["time_limit_seconds"])
    yield table(
        COLUMNS, [(WAYS[way], f"{jobs:,}", *_row(rounds[jobs, way], rounds[jobs, "own"])) for jobs, way in cases]
    )
    least = cases[0][0]
    yield FAULTS.format(jobs=least, changed=results["changed"], limit=results["fault_seconds"])
    yield table(
        ("how the watches ended", *WAYS.values()),
        [(fault, *(_fault(rounds[least, way], fault) for way in WAYS)) for fault in measurements[0]["faults"]],
    )


def _row(found: Sequence[Result], ours: Sequence[Result]) -> Iterator[str]:
    start, least = _median(found, "start", "cpu_seconds"), _median(ours, "start", "cpu_seconds")
    is_ready = all(measurement["life"] for measurement in found)
    yield number(_median(found, "start", "seconds") if is_ready else None)
    yield f"{'' if is_ready else '> '}{number(start)}"
    yield f"{'' if is_ready else '> '}{number(start / least)}"
    yield number(_median(found, "start", "peak_mib"), 0)
    if is_ready:
        spent, least = _median(found, "life", "cpu_seconds"), _median(ours, "life", "cpu_seconds")
        yield number(1000 * spent / found[0]["life"]["events"], 2)
        yield number(spent / least)
        yield number(_median(found, "life", "rss_mib"), 0)
    else:
        yield from 3 * (number(None),)
    yield str(len(found))
    yield ", ".join(measurement["load"] for measurement in found)


def _fault(rounds: Sequence[Result], fault: str) -> str:
    found = [measurement["faults"][fault] for measurement in rounds]
    lost = [f"{most} {what}" for what in ("changes", "deletions") if (most := max(one[what] for one in found))]
    if lost:
        return f"**{' and '.join(lost)} unknown**"
    return f"{number(statistics.median(one['seconds'] for one in found))} s"


def _median(found: Sequence[Result], part: str, key: str) -> float:
    return float(statistics.median(one[part][key] for one in found))
