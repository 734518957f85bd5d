"""The published numbers are whole: `make matrix` was run to its end with the tools that are locked."""

import re
from pathlib import Path

import pytest

from modelexport.matrix import MOST_MEMORY_MIB, Cell, cells
from modelexport.measured import last_run
from modelexport.numbers import MOST_SECONDS

LOCK = Path(__file__).parents[3] / "requirements/converter.txt"


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_every_cell_was_measured_on_the_trained_and_on_the_full_size_model_and_none_failed(cell: Cell) -> None:
    numbers = cell.numbers
    assert numbers.failures == ()
    assert numbers.trained is not None
    assert numbers.full_size is not None
    assert numbers.trained.accuracy.keys() == last_run().references[cell.architecture.name].keys()


def test_the_numbers_come_from_the_locked_versions_of_the_tools() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", LOCK.read_text(), re.MULTILINE))
    measured = {name: version for name, version in last_run().versions.items() if name != "modelexport"}
    assert measured == {name: locked[name] for name in measured}
    assert measured.keys() >= {tool for cell in cells() for tool in cell.backend.tools}


def test_no_conversion_needs_more_memory_than_a_job_may_have() -> None:
    peaks = {str(cell): cell.numbers.full_size.peak_mib for cell in cells() if cell.numbers.full_size}
    assert {name: peak for name, peak in peaks.items() if peak > MOST_MEMORY_MIB} == {}


def test_no_full_size_conversion_takes_longer_than_two_minutes() -> None:
    seconds = {str(cell): cell.numbers.full_size.seconds for cell in cells() if cell.numbers.full_size}
    assert {name: taken for name, taken in seconds.items() if taken > MOST_SECONDS} == {}


def test_all_rows_are_of_one_run() -> None:
    assert last_run().run is not None
    assert last_run().apart == ()
