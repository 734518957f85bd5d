"""How a local run ended: the table of files and numbers, what failed and why, and the same as JSON."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelexport.cli.conversions import Conversion
from modelexport.cli.display import STYLES
from modelexport.matrix import Format, Precision
from modelexport.result import Verification

MIB = 1 << 20


def show(console: Console, conversions: Sequence[Conversion], store: str) -> None:
    """Print the numbers of every target, then where the files are."""
    console.print(results_table(conversions))
    for conversion in conversions:
        if conversion.result and conversion.result.artifact:
            place = place_of(conversion.result.artifact.uri, store)
            console.print(f"{conversion.label:<14} {place}", highlight=False, markup=False, soft_wrap=True)
    tell_origin(console, [(c.label, c.result.verification) for c in conversions if c.succeeded and c.result])


def tell_origin(console: Console, verified: Iterable[tuple[str, Verification | None]]) -> None:
    """Print what was assumed of the original models, and every warning, each once with the targets that it is of."""
    lines: dict[tuple[str, str], list[str]] = {}
    for label, verification in verified:
        if verification and verification.assumptions:
            assumed = f"compared with a rebuilt network; assumed: {', '.join(verification.assumptions)}"
            lines.setdefault(("", assumed), []).append(label)
        for warning in verification.warnings if verification else ():
            lines.setdefault(("bold yellow", f"warning: {warning}"), []).append(label)
    for (style, line), labels in lines.items():
        named = labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"
        console.print(f"{named}: {line}", style=style, highlight=False, markup=False, soft_wrap=True)


def place_of(uri: str, store: str) -> str:
    """Return where the user finds a file: its path in a directory store, else its URI."""
    return uri if "://" in store else os.path.relpath(f"{store}/{uri.removeprefix('s3://')}")


def as_json(conversions: Sequence[Conversion]) -> str:
    """Return what is known of every target as a list in JSON."""
    sizes = full_sizes(conversions)
    return json.dumps([_record(conversion, sizes) for conversion in conversions], indent=2, ensure_ascii=False)


def _record(conversion: Conversion, sizes: Mapping[tuple[str, Format], int]) -> dict[str, object]:
    result = asdict(conversion.result) if conversion.result else {}
    return {
        "export": conversion.request.export,
        "target": str(conversion.request.target),
        "state": conversion.phase,
        "attempts": conversion.attempts,
        **result,
        "seconds": round(conversion.seconds, 3),
        "ratio": ratio(conversion, sizes),
    }


def tell_failures(console: Console, conversions: Sequence[Conversion]) -> None:
    """Print reason, message and way out of every target that failed."""
    for conversion in conversions:
        if conversion.result and not conversion.succeeded:
            reason = conversion.result.reason
            console.print(f"\n{conversion.label}: {reason}", style="bold red", highlight=False, markup=False)
            for line in (conversion.result.message, reason.policy.advice, f"Log: {conversion.log}"):
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def tell_interrupted(console: Console, conversions: Sequence[Conversion]) -> None:
    """Print what an interrupted run leaves, and how to go on."""
    finished = sum(conversion.succeeded for conversion in conversions)
    console.print(
        f"\nInterrupted: {finished} of {len(conversions)} targets are finished and in the store, the others left "
        "nothing. Run the same command again to go on."
    )


def results_table(conversions: Sequence[Conversion]) -> Table:
    """Return the numbers of every target as a table."""
    table = Table(box=None, pad_edge=False)
    names = ("Target", "Scheme", "MiB", "Ratio", "SHA-256", "Verification", "Reference", "Seconds", "Peak MiB", "State")
    for name in names:
        numeric = name in ("MiB", "Ratio", "Seconds", "Peak MiB")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name == "Target")
    sizes = full_sizes(conversions)
    for conversion in conversions:
        table.add_row(*map(Text, _cells(conversion, sizes)), Text(conversion.phase, STYLES.get(conversion.phase, "")))
    return table


def full_sizes(conversions: Sequence[Conversion]) -> Mapping[tuple[str, Format], int]:
    """Return the bytes of the FP32 file of every export and format that has one in this run."""
    return {
        (conversion.request.export, conversion.request.target.format): conversion.result.artifact.size_bytes
        for conversion in conversions
        if conversion.result and conversion.result.artifact
        if conversion.request.target.precision is Precision.FP32
    }


def ratio(conversion: Conversion, sizes: Mapping[tuple[str, Format], int]) -> float | None:
    """Return the size of an artifact over that of the FP32 file in its format, where both are there."""
    full = sizes.get((conversion.request.export, conversion.request.target.format))
    if not full or conversion.result is None or conversion.result.artifact is None:
        return None
    return conversion.result.artifact.size_bytes / full


def _cells(conversion: Conversion, sizes: Mapping[tuple[str, Format], int]) -> tuple[str, ...]:
    result, scheme = conversion.result, str(conversion.request.scheme)
    if result is None:
        return conversion.label, scheme, *[""] * 7
    artifact, verification, share = result.artifact, result.verification, ratio(conversion, sizes)
    return (
        conversion.label,
        scheme,
        f"{artifact.size_bytes / MIB:.2f}" if artifact else "",
        f"{share:.3f}" if share else "",
        artifact.sha256[:12] if artifact else "",
        f"{verification.metric} {verification.value} >= {verification.threshold}" if verification else "",
        str(verification.reference or "") if verification else "",
        f"{conversion.seconds:.1f}",
        str(result.peak_memory_mib or ""),
    )
