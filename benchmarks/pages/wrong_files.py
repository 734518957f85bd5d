"""Writes the part of the page about wrong files from the results of ``conversions.wrong_files``."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.pages.tables import table
from modelexport.matrix.support import TARGETS, Format, Precision, lookup

Result = Mapping[str, Any]
NO_PRECISION = "-"

INTRODUCTION = """## Wrong files

What verification finds in files that are known to be wrong. A trained model plays each of them, with one defect and in
eager FP32, on {images} evaluation images: *agreement* / *fidelity*, and the precisions in which an ONNX file like this
would still be published. A defect that changes no answer is no failure of verification: the shapes in these images have
any colour, so that red and blue may be exchanged, and a class does not move with an image. A weak defect in one layer
passes where the others outvote it."""


def wrong_files_page(results: Result) -> Iterator[str]:
    """Yield the paragraphs and the table."""
    scores: Mapping[str, Mapping[str, Result]] = results["scores"]
    defects = list(next(iter(scores.values())))
    yield INTRODUCTION.format(images=results["images"])
    yield table(
        ("network", *defects),
        [(name, *(_cell(name, found[defect]) for defect in defects)) for name, found in scores.items()],
    )


def published_precisions(architecture: str, found: Result) -> list[Precision]:
    """Return the precisions in which an ONNX file with these measurements would be published."""
    cells = (lookup(architecture, target) for target in TARGETS if target.format is Format.ONNX)
    fidelity = math.inf if found["fidelity"] is None else float(found["fidelity"])
    return [
        cell.target.precision
        for cell in cells
        if float(found["agreement"]) >= cell.threshold.minimum and fidelity >= (cell.fidelity or 0.0)
    ]


def _cell(architecture: str, found: Result) -> str:
    published = ", ".join(published_precisions(architecture, found)) or NO_PRECISION
    return f"{found['agreement']} / {found['fidelity'] or '-'} {published}"
