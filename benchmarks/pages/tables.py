"""Markdown tables."""

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns except the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, rule, *rows))


def number(value: float | None, digits: int = 1) -> str:
    """Return a number as text, or a dash if there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def verdict(is_met: bool | None) -> str:
    """Return whether a target is met, or a dash if nothing was compared."""
    return "-" if is_met is None else ("met" if is_met else "**missed**")


def share(met: Sequence[bool]) -> str:
    """Return how many of several cases meet a target."""
    return f"{verdict(all(met)) if met else '-'} ({sum(met)} of {len(met)})"
