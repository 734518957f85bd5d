"""Summary of a local run: the table of results, the failures, and the same as JSON."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelexport.api.result import Accuracy, Artifact, Verification
from modelexport.api.rungs import QuantizationResult
from modelexport.local.conversions import Conversion
from modelexport.local.display import STYLES
from modelexport.matrix.support import Format, Precision

MIB = 1 << 20
_COLUMNS = (
    "Target",
    "Recipe",
    "MiB",
    "Ratio",
    "SHA-256",
    "Verification",
    "Fidelity",
    "Reference",
    "Seconds",
    "Peak MiB",
    "State",
)


def show(console: Console, conversions: Sequence[Conversion], place: Callable[[Artifact], str]) -> None:
    """Print the results of every target, then the ``place`` of each file."""
    console.print(results_table(conversions))
    for conversion in conversions:
        if conversion.result and conversion.result.artifact:
            line = f"{conversion.label:<14} {place(conversion.result.artifact)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    show_origin(console, [(c.label, c.result.verification) for c in conversions if c.succeeded and c.result])
    show_accuracy(console, [(c.label, c.result.accuracy) for c in conversions if c.result])
    show_quantization(console, [(c.label, c.result.quantization) for c in conversions if c.result])


def show_origin(console: Console, verified: Iterable[tuple[str, Verification | None]]) -> None:
    """Print fidelity, the assumptions about the original models and the warnings, each once with its targets."""
    lines: dict[tuple[str, str], list[str]] = {}
    for label, verification in verified:
        if verification and verification.fidelity:
            lines.setdefault(("", f"fidelity {verification.fidelity}"), []).append(label)
        elif verification and verification.fidelity_absent:
            lines.setdefault(("", f"no fidelity: {verification.fidelity_absent}"), []).append(label)
        if verification and verification.assumptions:
            assumed = f"compared with a rebuilt network; assumed: {', '.join(verification.assumptions)}"
            lines.setdefault(("", assumed), []).append(label)
        for warning in verification.warnings if verification else ():
            lines.setdefault(("bold yellow", f"warning: {warning}"), []).append(label)
    for (style, line), labels in lines.items():
        named = labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"
        console.print(f"{named}: {line}", style=style, highlight=False, markup=False, soft_wrap=True)


def show_accuracy(console: Console, measured: Iterable[tuple[str, Accuracy | None]]) -> None:
    """Print the accuracies of the evaluated targets, with the original's, the drop and its interval, as a table."""
    rows = [(label, accuracy) for label, accuracy in measured if accuracy]
    if not rows:
        return
    table = Table("Accuracy", "Metric", box=None, pad_edge=False)
    for name in ("Original", "File", "Drop", "95 % interval", "Allowed", "Images"):
        table.add_column(name, justify="right")
    for label, one in rows:
        low, high = one.interval
        numbers = (one.original, one.value, one.drop, f"{low} to {high}", one.max_drop, str(one.images))
        style = "" if one.kept else "bold red"
        table.add_row(*map(Text, (label, one.metric)), *(Text(number, style) for number in numbers))
    console.print(table)


def show_quantization(console: Console, made: Iterable[tuple[str, QuantizationResult | None]]) -> None:
    """Print the rungs that were tried for each target that took more than the first, as a table."""
    rows = [(label, result) for label, result in made if result and not result.is_plain]
    if not rows:
        return
    table = Table("Quantization", "Rung", box=None, pad_edge=False)
    for name in ("Layers in float", "Drop", "Fidelity", "Agreement", "Ratio", "Seconds"):
        table.add_column(name, justify="right")
    for label, result in rows:
        for rung in result.rungs:
            measured = (found or "-" for found in (rung.drop, rung.fidelity, rung.agreement))
            cells = (label, rung.rung, str(rung.float_layers), *measured, rung.size_ratio, str(rung.seconds))
            made_here = (rung.rung, rung.float_layers) == (result.effort, result.float_layers)
            table.add_row(*(Text(cell, "bold" if made_here else "") for cell in cells))
    console.print(table)
    for label, result in rows:
        if result.stopped:
            console.print(f"{label}: {result.stopped}", highlight=False, markup=False, soft_wrap=True)


def describe_verification(verification: Verification | None) -> tuple[str, str, str]:
    """Return the cells of a table: agreement, fidelity, and the origin of the model."""
    if verification is None:
        return "", "", ""
    fidelity = verification.fidelity
    return (
        f"{verification.metric} {verification.value} >= {verification.threshold}",
        f"{fidelity.metric} {fidelity.value}" if fidelity else "-",
        str(verification.reference or ""),
    )


def place_of(uri: str, store: str) -> str:
    """Return the location of a file: its path in a directory store, else its URI."""
    return uri if "://" in store else os.path.relpath(f"{store}/{uri.removeprefix('s3://')}")


def as_json(conversions: Sequence[Conversion]) -> str:
    """Return the results of every target as a JSON list."""
    return json.dumps(records(conversions), indent=2, ensure_ascii=False)


def records(conversions: Sequence[Conversion]) -> list[dict[str, object]]:
    """Return the results of every target as plain data."""
    sizes = full_sizes(conversions)
    return [
        {
            "export": conversion.request.export,
            "target": str(conversion.request.target),
            "state": conversion.phase,
            "attempts": conversion.attempts,
            **(conversion.result.to_dict() if conversion.result else {}),
            "seconds": round(conversion.seconds, 3),
            "ratio": ratio(conversion, sizes),
        }
        for conversion in conversions
    ]


def show_failures(console: Console, conversions: Sequence[Conversion]) -> None:
    """Print reason, message and advice for every failed target."""
    for conversion in conversions:
        if conversion.result and not conversion.succeeded:
            reason = conversion.result.reason
            console.print(f"\n{conversion.label}: {reason}", style="bold red", highlight=False, markup=False)
            for line in (conversion.result.message, reason.policy.advice, f"Log: {conversion.log}"):
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def show_interrupted(console: Console, conversions: Sequence[Conversion]) -> None:
    """Print the state of an interrupted run, and how to resume it."""
    finished = sum(conversion.succeeded for conversion in conversions)
    console.print(
        f"\nInterrupted: {finished} of {len(conversions)} targets are finished and in the store; the others left "
        "no files. Run the same command again to resume."
    )


def results_table(conversions: Sequence[Conversion]) -> Table:
    """Return the results of every target as a table."""
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        numeric = name in ("MiB", "Ratio", "Seconds", "Peak MiB")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name == "Target")
    sizes = full_sizes(conversions)
    for conversion in conversions:
        table.add_row(*map(Text, _cells(conversion, sizes)), Text(conversion.phase, STYLES.get(conversion.phase, "")))
    return table


def full_sizes(conversions: Sequence[Conversion]) -> Mapping[tuple[str, Format], int]:
    """Return the size in bytes of the FP32 file of every export and format in this run."""
    return {
        (conversion.request.export, conversion.request.target.format): conversion.result.artifact.size_bytes
        for conversion in conversions
        if conversion.result and conversion.result.artifact
        if conversion.request.target.precision is Precision.FP32
    }


def ratio(conversion: Conversion, sizes: Mapping[tuple[str, Format], int]) -> float | None:
    """Return the size of an artifact relative to the FP32 file of its format, or ``None`` if one is missing."""
    full = sizes.get((conversion.request.export, conversion.request.target.format))
    if not full or conversion.result is None or conversion.result.artifact is None:
        return None
    return conversion.result.artifact.size_bytes / full


def _cells(conversion: Conversion, sizes: Mapping[tuple[str, Format], int]) -> tuple[str, ...]:
    result, recipe = conversion.result, str(conversion.request.recipe)
    if result is None:
        return conversion.label, recipe, *[""] * (len(_COLUMNS) - 3)
    artifact, verification, share = result.artifact, result.verification, ratio(conversion, sizes)
    return (
        conversion.label,
        recipe,
        f"{artifact.size_bytes / MIB:.2f}" if artifact else "",
        f"{share:.3f}" if share else "",
        artifact.sha256[:12] if artifact else "",
        *describe_verification(verification),
        f"{conversion.seconds:.1f}",
        str(result.peak_memory_mib or ""),
    )
