"""Writes docs/faults.md: each fault, the reaction of the operator, and the measurements of the last long run."""

from collections.abc import Sequence

from benchmarks.pages.tables import table
from faults.catalogue import FAULTS
from faults.runner import HEADERS, Row
from testcluster.layout import REPOSITORY

PAGE = REPOSITORY / "docs/faults.md"
INTRODUCTION = """# Faults

Written by `make faults`, which runs each fault against a real API server, etcd and Job controller with 20 exports of
nine targets; not by hand. `make test-faults`, a part of `make test`, runs most of them with four exports.

Half of the exports are ordered before the fault and half within it. A witness that watches the API server by itself
keeps every state of every ModelExport, Job and Pod, and judges at the end:

- *lost*: a target that never got an end, or an export that was deleted before its time;
- *double*: a target that was converted twice;
- *wrong*: a last status that differs from what has happened;
- *untrue*: any status in between that was not true when it was written;
- *unreported*: a final event that is missing, or a conversion that no metric counts;
- *ended*: an operator that ended by itself where it should not, or did not end where it should;
- *seconds*: from the end of the fault until every Job was made, every end was reported and an operator was ready. Its
  bound holds on a machine five times slower than a common one.

Pods are played, except in the faults of the store: there, `fetch` and `publish` of each Pod are the converter's own
processes, and the store is versitygw; only the conversion between them is played, and leaves 4 MiB. Each export has
three targets then. *Wrong* also counts a file that is not in the store as its status says, or that is there and in no
status; *seconds* also covers every step that the fault interrupted.

`make faults ONLY=killed` runs some of them and keeps the rows of the others. A fault with dashes was not measured
yet."""
ADVICE = """## What happens, and what to do

Alerts lead to [runbooks](operator.md#health-and-metrics); none of these faults needs anything that is not said here."""


def build_page(rows: Sequence[Row]) -> str:
    """Build the page; a fault without a measurement has dashes."""
    by_name = {row.fault: row.cells() for row in rows}
    unknown = ["-"] * (len(HEADERS) - 2)
    results = [by_name.get(fault.name, [fault.name, *unknown, f"{fault.bound:.0f}"]) for fault in FAULTS]
    advice = ["| fault | the operator | you |", "|---|---|---|"]
    advice += [f"| {fault.name} | {fault.does} | {fault.advice} |" for fault in FAULTS]
    return "\n\n".join((INTRODUCTION, table(HEADERS, results), ADVICE, "\n".join(advice))) + "\n"


def read_page(text: str) -> list[Row]:
    """Read the measured rows of a page."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [Row.read(cells) for cells in lines if len(cells) == len(HEADERS) and cells[1].isdecimal()]


def write_page(rows: Sequence[Row]) -> None:
    """Write the page; faults that were not run keep the rows that they have there."""
    PAGE.write_text(build_page([*read_page(PAGE.read_text()), *rows]))
