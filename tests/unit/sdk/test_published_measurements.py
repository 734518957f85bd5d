"""The published numbers are complete: `make matrix` ran to its end with the locked tools."""

import re
from pathlib import Path

import pytest

from modelexport.matrix.measured import last_run
from modelexport.matrix.support import MOST_MEMORY_MIB, Cell, Format, Precision, cells
from modelexport.planning.estimates import MOST_SECONDS

LOCK = Path(__file__).parents[3] / "requirements/converter.txt"


ADDED = {Format.PYTORCH, Format.TENSORFLOW, Precision.W8A16, "YOLO11", "YOLO11-SEG", "YOLO11-CLS", "YOLO11-Pose"}
"""Formats, precisions and architectures that came after the last whole run; the next one measures their cells."""
ADDED_TOOLS = {"jax", "onnx-ir"}
"""Tools that the last whole run did not record; the lock had them."""


def is_measured(cell: Cell) -> bool:
    return ADDED.isdisjoint({cell.target.format, cell.target.precision, cell.architecture.name})


@pytest.mark.parametrize("cell", [cell for cell in cells() if is_measured(cell)], ids=str)
def test_every_cell_was_measured_on_both_models_without_failure(cell: Cell) -> None:
    numbers = cell.numbers
    assert numbers.failures == ()
    assert numbers.trained is not None
    assert numbers.full_size is not None
    assert numbers.trained.accuracy.keys() == last_run().references[cell.architecture.name].keys()


def test_numbers_come_from_locked_tool_versions() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+?)(?:-cpu)?==([^ ;]+)", LOCK.read_text(), re.MULTILINE))
    measured = {name: version for name, version in last_run().versions.items() if name != "modelexport"}
    assert measured == {name: locked[name] for name in measured}
    tools = {tool for cell in cells() if cell.numbers.full_size for tool in cell.tools}
    assert measured.keys() >= tools - ADDED_TOOLS


def test_no_conversion_exceeds_job_memory() -> None:
    peaks = {str(cell): cell.numbers.full_size.peak_mib for cell in cells() if cell.numbers.full_size}
    assert {name: peak for name, peak in peaks.items() if peak > MOST_MEMORY_MIB} == {}


def test_no_full_size_conversion_exceeds_two_minutes() -> None:
    seconds = {str(cell): cell.numbers.full_size.seconds for cell in cells() if cell.numbers.full_size}
    assert {name: taken for name, taken in seconds.items() if taken > MOST_SECONDS} == {}


def test_all_rows_belong_to_one_run() -> None:
    assert last_run().run is not None
    assert last_run().apart == ()


def test_readme_counts_measured_cells() -> None:
    readme = (LOCK.parents[1] / "README.md").read_text()
    measured = sum(cell.numbers.trained is not None for cell in cells())
    assert f"{measured} of the {len(cells())} cells on trained models" in readme
