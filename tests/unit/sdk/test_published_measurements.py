"""The published numbers: every row names its run, all come from the locked tools, and what is missing is listed."""

import re
from pathlib import Path

import pytest

from modelexport.crds.reference import render_matrix
from modelexport.matrix.measured import measurements
from modelexport.matrix.support import MOST_MEMORY_MIB, Cell, cells
from modelexport.planning.estimates import MOST_SECONDS, explain_unmeasured

LOCK = Path(__file__).parents[3] / "requirements/converter.txt"
MEASURED = [cell for cell in cells() if str(cell) in measurements().cells]
REFUSED = {"FasterRCNN ExecuTorch/FP16", "YOLOv4 ExecuTorch/FP16"}
"""Cells whose trained file verification refuses: decision 19 says why."""
ADDED_TOOLS = {"jax", "onnx-ir"}
"""Tools that the first run did not record; the lock had them."""


def test_only_known_cells_are_refused() -> None:
    failures = {str(cell): cell.numbers.failures for cell in MEASURED if cell.numbers.failures}
    assert failures.keys() == REFUSED
    for (failure,) in failures.values():
        assert failure.startswith("VerificationFailed: ")


@pytest.mark.parametrize("cell", MEASURED, ids=str)
def test_every_result_names_its_run(cell: Cell) -> None:
    numbers = cell.numbers
    assert {part.run for part in (numbers.trained, numbers.full_size) if part} <= measurements().runs.keys()


@pytest.mark.parametrize("cell", [cell for cell in MEASURED if cell.numbers.trained], ids=str)
def test_every_accuracy_is_that_of_file_and_original(cell: Cell) -> None:
    trained = cell.numbers.trained
    assert trained is not None
    assert trained.accuracy.keys() == trained.original.keys()
    if trained.interval is None:
        return
    ((metric, value),) = trained.accuracy.items()
    assert trained.drop == pytest.approx(trained.original[metric] - value, abs=2e-4)
    assert trained.interval[0] <= trained.interval[1]
    assert trained.images is not None
    assert trained.images >= 512


def test_page_has_every_run_and_every_unmeasured_cell() -> None:
    page, runs = render_matrix(), measurements().runs
    counted = dict.fromkeys(runs, 0)
    for numbers in measurements().cells.values():
        for run in {part.run for part in (numbers.trained, numbers.full_size) if part and part.run}:
            counted[run] += 1
    assert set(counted.values()).isdisjoint({0})
    assert [name for name in runs if name not in page] == []
    assert [line for line in explain_unmeasured() if line not in page] == []


def test_numbers_come_from_locked_tool_versions() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+?)(?:-cpu)?==([^ ;]+)", LOCK.read_text(), re.MULTILINE))
    measured = {name: version for name, version in measurements().versions.items() if name != "modelexport"}
    assert measured == {name: locked[name] for name in measured}
    tools = {tool for cell in cells() if cell.numbers.full_size for tool in cell.tools}
    assert measured.keys() >= tools - ADDED_TOOLS


def test_no_conversion_exceeds_job_memory() -> None:
    peaks = {str(cell): cell.numbers.full_size.peak_mib for cell in cells() if cell.numbers.full_size}
    assert {name: peak for name, peak in peaks.items() if peak > MOST_MEMORY_MIB} == {}


def test_no_full_size_conversion_exceeds_two_minutes() -> None:
    seconds = {str(cell): cell.numbers.full_size.seconds for cell in cells() if cell.numbers.full_size}
    assert {name: taken for name, taken in seconds.items() if taken > MOST_SECONDS} == {}


def test_readme_counts_measured_cells() -> None:
    readme = (LOCK.parents[1] / "README.md").read_text()
    measured = sum(cell.numbers.trained is not None for cell in cells())
    assert f"{measured} of the {len(cells())} cells on trained models" in readme
