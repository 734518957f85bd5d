"""Writes the part of the page about thousands of exports, from the results of ``operator.scale``, and its plot."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import number, table, verdict

Result = Mapping[str, Any]

MOST_LAG_SECONDS = 2.0
MOST_MB = 400.0
MB_PER_MIB = 1.048576
WIDTH, HEIGHT = 8.0, 3.2

INTRODUCTION = """## Thousands of exports

One operator handles {exports} ModelExports of {each} targets ({jobs} Jobs), at most {at_once} of them in progress,
beside {foreign} Jobs and Pods of others, on the control plane described above{go}.
Each row covers the exports added since the previous row. *p50* and *p99* are from a Job's completion to the status that
reports it, *CPU ms* is the operator's processor time per Job of the row, *RSS* its memory after it.

![Memory and processor time by exports](benchmarks/scale.svg)"""


def scale_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    steps = results["steps"]
    exports, each = steps[-1]["exports"], results["jobs_each"]
    numbers = {"exports": exports, "jobs": exports * each, **{key: results[key] for key in ("at_once", "foreign")}}
    go = ", ".join(f"{name}={value}" for name, value in results.get("go", {}).items())
    yield INTRODUCTION.format(
        each=each, go=f" with {go}" if go else "", **{key: f"{value:,}" for key, value in numbers.items()}
    )
    step_rows = [
        (
            f"{step['exports']:,}",
            number(step["jobs_per_second"]),
            *(number(step[key], 2) for key in ("lag_p50", "lag_p99", "cpu_ms_per_job")),
            *(number(step[key], 0) for key in ("rss_mib", "peak_mib")),
            step["load"],
        )
        for step in steps
    ]
    yield table(("exports", "Jobs/s", "p50 s", "p99 s", "CPU ms", "RSS MiB", "peak MiB", "load"), step_rows)
    yield table(("Target", "Measured", "Result"), list(_targets(steps)))


def _targets(steps: Sequence[Result]) -> Iterator[tuple[str, str, str]]:
    lag = max(step["lag_p99"] for step in steps)
    peak = max(step["peak_mib"] for step in steps) * MB_PER_MIB
    yield ("p99 under 2 s", f"{lag:.2f} s", verdict(lag < MOST_LAG_SECONDS))
    yield (f"under 400 MB with {steps[-1]['exports']:,} exports", f"{peak:.0f} MB", verdict(peak < MOST_MB))


def draw_scale(results: Result, path: Path) -> None:
    """Draw memory and processor time by the number of exports."""
    from matplotlib import pyplot as plt

    steps, each = results["steps"], results["jobs_each"]
    exports = [step["exports"] for step in steps]
    totals = [0.0]
    for before, step in zip((0, *exports), steps, strict=False):
        totals.append(totals[-1] + step["cpu_ms_per_job"] * (step["exports"] - before) * each / 1000)
    with plt.rc_context({"svg.hashsalt": "scale", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, (memory, processor) = plt.subplots(1, 2, figsize=(WIDTH, HEIGHT), layout="constrained")
        memory.plot(exports, [step["rss_mib"] for step in steps], marker="o")
        memory.set(title="Memory of the operator", xlabel=f"exports of {each} targets", ylabel="RSS in MiB")
        processor.plot((0, *exports), totals, marker="o")
        processor.set(title="Its processor time, in all", xlabel=f"exports of {each} targets", ylabel="seconds")
        for axes in (memory, processor):
            axes.set(xlim=(0, None), ylim=(0, None))
            axes.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
