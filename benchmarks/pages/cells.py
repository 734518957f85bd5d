"""Writes the part of the page about conversions, from the results of ``conversions.cells``."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.pages.tables import number, share, table, verdict
from modelexport.matrix.support import cells

MIB = 1 << 20
MOST_RATIO = {"INT8": 0.28, "FP16": 0.53}
MOST_PEAK_MIB = 2560
MOST_WHOLE_SECONDS = 180
STAGES = ("fetch", "start", "load", "convert", "quantise", "inspect", "verify", "publish")
PROOF = ("inspect", "verify")
"""The stages without a counterpart in ultralytics."""
Result = Mapping[str, Any]

INTRODUCTION = """## Conversions

Each cell is a separate conversion (`modelexport run` with one target), a process measured from start to end. Then
`ultralytics` exports the same checkpoint, also in a separate process. Detection, segmentation and pose run at 640 x 640
pixels, classification at 224 x 224. INT8 is calibrated on 64 images, mosaics of images like those of the training;
ultralytics gets the same ones.

- *Proof* is our inspection and verification of the produced file, which ultralytics does not do. The target: a cell
  takes no longer than ultralytics' export plus our proof.
- *CPU s* are processor seconds, which other work on the machine affects less than wall seconds. Both are compared.
- *Peak* is the largest resident set of a process. *Ratio* is the size divided by that of our FP32 file in the same
  format.
- *Latency* is the minimum and the median of {runs} runs of the produced file on one thread. LiteRT and ONNX files run
  in their runtimes; **a Core ML file runs in our evaluator, which says nothing about a device.**"""


def cells_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    known = {name: results["cells"][name] for name in map(str, cells()) if name in results["cells"]}
    runs = {str(cell["ours"]["latency"]["runs"]) for cell in known.values() if "latency" in cell["ours"]}
    yield INTRODUCTION.format(runs="/".join(sorted(runs)))
    yield _targets(known, results.get("whole"))
    yield "### Time and memory compared with ultralytics"
    headers = ("Cell", "wall s", "its wall s", "proof s", "", "CPU s", "its CPU s", "", "peak MiB", "its peak", "load")
    yield table(headers, [(label, *_compare(cell), cell["load"]) for label, cell in known.items()])
    yield from _refusals(known)
    yield "### Seconds by stage"
    rows = [
        (label, *(number(cell["ours"]["stages"].get(stage)) for stage in STAGES))
        for label, cell in known.items()
        if "stages" in cell["ours"]
    ]
    yield table(("Cell", *STAGES), rows)
    yield "### Size and latency"
    sizes = ("Cell", "scheme", "MiB", "ratio", "its MiB", "latency ms", "median ms", "agreement", "at least")
    yield table(sizes, [(label, *_size(known, label)) for label, cell in known.items() if "bytes" in cell["ours"]])
    if "whole" in results:
        yield from _whole(results["whole"])


def _targets(known: Mapping[str, Result], whole: Result | None) -> str:
    rows = [
        ("no more wall seconds than ultralytics plus proof", _share_within(known, "wall_seconds")),
        ("no more CPU seconds than ultralytics plus proof", _share_within(known, "cpu_seconds")),
        *(
            (f"{name} files at most {most} of FP32", _share_small(known, name, most))
            for name, most in MOST_RATIO.items()
        ),
        ("peak under 2.5 GiB", share([cell["ours"]["peak_mib"] < MOST_PEAK_MIB for cell in known.values()])),
        ("nine YOLOv8n targets in one run under 180 s", _whole_verdict(whole)),
        ("published, so verified", share(["failed" not in cell["ours"] for cell in known.values()])),
    ]
    return table(("Target", "Result"), rows)


def _share_within(known: Mapping[str, Result], unit: str) -> str:
    compared = (is_within(cell, unit) for cell in known.values())
    return share([is_met for is_met in compared if is_met is not None])


def is_within(cell: Result, unit: str) -> bool | None:
    """Return whether a cell takes no longer than ultralytics plus our proof; ``None`` if one of them made no file."""
    ours, peer = cell["ours"], cell["peer"]
    if "stages" not in ours or "bytes" not in peer:
        return None
    return bool(ours[unit] <= peer[unit] + proof_seconds(cell))


def proof_seconds(cell: Result) -> float:
    """Return the seconds that a conversion spent on proving its file."""
    return float(sum(cell["ours"]["stages"].get(stage, 0.0) for stage in PROOF))


def _share_small(known: Mapping[str, Result], precision: str, most: float) -> str:
    ratios = (ratio_of(known, label) for label in known if label.endswith(precision))
    return share([ratio <= most for ratio in ratios if ratio is not None])


def ratio_of(known: Mapping[str, Result], label: str) -> float | None:
    """Return the size of a file divided by the FP32 file in its format; ``None`` if one of them is missing."""
    full = known.get(label.rpartition("/")[0] + "/FP32", {"ours": {}})["ours"].get("bytes")
    size = known[label]["ours"].get("bytes")
    return size / full if size and full else None


def _compare(cell: Result) -> Iterator[str]:
    ours, peer = cell["ours"], cell["peer"]
    made = "bytes" in peer
    yield from (number(ours["wall_seconds"]), number(peer["wall_seconds"] if made else None))
    yield number(proof_seconds(cell) if "stages" in ours else None)
    yield verdict(is_within(cell, "wall_seconds"))
    yield from (number(ours["cpu_seconds"]), number(peer["cpu_seconds"] if made else None))
    yield verdict(is_within(cell, "cpu_seconds"))
    yield from (number(ours["peak_mib"], 0), number(peer["peak_mib"] if made else None, 0))


def _refusals(known: Mapping[str, Result]) -> Iterator[str]:
    ours = [(label, cell["ours"]["failed"]) for label, cell in known.items() if "failed" in cell["ours"]]
    theirs = [(label, cell["peer"]["refused"]) for label, cell in known.items() if "refused" in cell["peer"]]
    lines = [
        *(f"- {label} is not published: {words}" for label, words in ours),
        *(f"- {label} by ultralytics: {words}" for label, words in theirs),
    ]
    if lines:
        yield "\n".join(lines)


def _size(known: Mapping[str, Result], label: str) -> Iterator[str]:
    ours, peer = known[label]["ours"], known[label]["peer"]
    mark = " (evaluator)" if "CoreML" in label else ""
    yield ours["scheme"]
    yield from (number(ours["bytes"] / MIB, 2), number(ratio_of(known, label), 3))
    yield number(peer["bytes"] / MIB if "bytes" in peer else None, 2)
    yield from (number(ours["latency"]["min_ms"]) + mark, number(ours["latency"]["median_ms"]))
    yield from (ours["verification"]["value"], ours["verification"]["threshold"])


def _whole_verdict(whole: Result | None) -> str:
    if whole is None:
        return "-"
    is_met = whole["wall_seconds"] < MOST_WHOLE_SECONDS and whole["published"] == len(whole["targets"])
    return f"{verdict(is_met)} ({whole['wall_seconds']:.0f} s, {whole['cpu_seconds']:.0f} CPU s)"


def _whole(whole: Result) -> Iterator[str]:
    yield "### Nine targets of YOLOv8n in one run"
    published = f"{whole['published']} of {len(whole['targets'])} published"
    yield (
        f"`modelexport run` with all nine targets: {whole['wall_seconds']:.1f} s wall, "
        f"{whole['cpu_seconds']:.1f} CPU s, {published} (load {whole['load']} before). Each target took:"
    )
    yield table(("Target", "seconds"), [(name, number(seconds)) for name, seconds in whole["targets"].items()])
