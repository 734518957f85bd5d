"""Writes the part of the page about the operator, from the results of ``operator.comparison``."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.pages.tables import number, table, verdict

LEAST_OF_JOBSET = 1.5
LEAST_OF_PLAIN = 0.9
MOST_LAG_SECONDS = 2.0
MOST_PEAK_MB = 150.0
MB_PER_MIB = 1.048576
PLAIN, OURS, JOBSET = "plain Jobs", "ModelExport", "JobSet"
COLUMNS = {
    "created_per_second": "Jobs created/s",
    "completed_per_second": "Jobs created to complete/s",
    "reported_per_second": "... to the final status/s",
    "lag_p50": "p50 s",
    "lag_p99": "p99 s",
    "peak_mib": "peak MiB",
    "cpu_seconds": "CPU s",
    "all_cpu_seconds": "all CPU s",
}
Result = Mapping[str, Any]

INTRODUCTION = """## The operator at scale

{objects} ModelExports of nine targets ({jobs} Jobs) without a converter: Pods run on nodes simulated by KWOK and
answer at once as a converter would. For comparison, one client creates the same Jobs, and {objects} JobSets of nine
replicas (JobSet {jobset}, without its admission webhooks and DNS names, which saves it work). Every measurement has its
own control plane (etcd, API server, controller-manager with 20 Job workers and 500 requests per second, scheduler,
KWOK) on the same cores as everything else; rounds are interleaved.

- Rates count from the first request of the client. *Final status* is `Ready` (or `Completed`) of the last parent.
- *p50* and *p99* are from a Job's completion to the status of its parent that reports it, both as one client receives
  them in its watches.
- *Peak* and *CPU s* are those of the process that creates the Jobs. *All CPU s* adds the control plane: the cost of the
  whole work, which other load on the machine affects less than rates.

Medians, with minimum and maximum; rounds of the operator: {rounds}."""

PROGRAMS = """CPU seconds by program in the last round of each contender, and their share of all {cores} cores. The
measuring client, which is not listed, takes most of the rest. Where the cores are saturated, a contender is as fast as
its requests to the API server are cheap."""


def operator_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    measurements = results["measurements"]
    contenders = {name: [m for m in measurements if m["way"] == name] for name in (PLAIN, OURS, JOBSET)}
    yield INTRODUCTION.format(**results, rounds=len(contenders[OURS]))
    rows = [
        (name, *(_spread(rounds, key) for key in COLUMNS), ", ".join(m["load"] for m in rounds))
        for name, rounds in contenders.items()
    ]
    yield table(("", *COLUMNS.values(), "load"), rows)
    yield table(("Target", "Measured", "Result"), list(_targets(contenders)))
    yield PROGRAMS.format(cores=results["cores"])
    yield _programs(contenders, results["cores"])


def _programs(contenders: Mapping[str, Sequence[Result]], cores: int) -> str:
    """Return the table of processor time by program, in the last round of each contender."""
    last = {name: rounds[-1] for name, rounds in contenders.items()}
    spent = {name: found["cpu_by_program"] for name, found in last.items()}
    programs = {program for found in spent.values() for program in found}
    ordered = sorted(programs, key=lambda program: (-spent[OURS].get(program, 0.0), program))
    rows = [(program, *(number(spent[name].get(program)) for name in contenders)) for program in ordered]
    shares = [100 * found["all_cpu_seconds"] / (cores * found["wall_seconds"]) for found in last.values()]
    return table(("program", *contenders), [*rows, ("share of all cores, %", *(number(share, 0) for share in shares))])


def _spread(rounds: Sequence[Result], key: str) -> str:
    values = [measurement[key] for measurement in rounds if measurement[key] is not None]
    if not values:
        return number(None)
    digits = 2 if key.startswith("lag") else 1
    return f"{number(statistics.median(values), digits)} ({number(min(values), digits)}-{number(max(values), digits)})"


def median_of(rounds: Sequence[Result], key: str) -> float:
    """Return the median of one figure over the rounds."""
    return float(statistics.median(measurement[key] for measurement in rounds))


def _targets(contenders: Mapping[str, Sequence[Result]]) -> Iterator[tuple[str, str, str]]:
    rates = {name: median_of(rounds, "completed_per_second") for name, rounds in contenders.items()}
    finals = {name: median_of(contenders[name], "reported_per_second") for name in (OURS, JOBSET)}
    lag, peak = median_of(contenders[OURS], "lag_p99"), median_of(contenders[OURS], "peak_mib") * MB_PER_MIB
    yield _row("complete/s, at least 1.5 x JobSet", rates[OURS] / rates[JOBSET], LEAST_OF_JOBSET)
    yield _row("final status/s, at least 1.5 x JobSet", finals[OURS] / finals[JOBSET], LEAST_OF_JOBSET)
    yield _row("complete/s, at least 0.9 x plain Jobs", rates[OURS] / rates[PLAIN], LEAST_OF_PLAIN)
    yield ("p99 under 2 s", f"{lag:.2f} s", verdict(lag < MOST_LAG_SECONDS))
    yield ("under 150 MB", f"{peak:.0f} MB", verdict(peak < MOST_PEAK_MB))


def _row(target: str, value: float, least: float) -> tuple[str, str, str]:
    return target, f"{value:.2f}", verdict(value >= least)
