import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.matrix.result_store import PARTS, ResultStore
from modelexport.matrix.support import cells

ALL = cells()
MACHINE = {"Processor": "a, 2 cores", "Date": "2026-01-01", "Commit": "1"}
ABOUT: Mapping[str, Any] = {
    "source": "abc",
    "machine": MACHINE,
    "samples": {"trained": 60},
    "cores": 1,
    "versions": {"onnx": "1.0"},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.json"


def interrupted(path: Path) -> ResultStore:
    store = ResultStore(path, ABOUT, "monday")
    store.record(ALL[1], "trained", {"seconds": 2.0})
    store.record(ALL[0], "trained", {"failed": "no space"})
    store.write()
    return store


def complete(path: Path) -> None:
    store = ResultStore(path, ABOUT, "monday")
    for cell in ALL:
        for part in PARTS:
            store.record(cell, part, {})
    store.write()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def runs_of(path: Path) -> dict[str, str]:
    """The run of each accuracy."""
    return {name: cell["trained"]["run"] for name, cell in read(path)["cells"].items()}


def test_interrupted_run_resumes_missing_and_failed_cells(path: Path) -> None:
    interrupted(path)
    machine = {**MACHINE, "Date": "2026-01-02", "Commit": "2"}
    store = ResultStore(path, {**ABOUT, "machine": machine}, "tuesday")
    assert store.missing(ALL[:3], "trained") == [ALL[0], ALL[2]]
    assert store.missing(ALL[:2], "fullSize") == [*ALL[:2]]
    store.record(ALL[2], "trained", {})
    store.write()
    assert set(runs_of(path).values()) == {"monday abc"}
    assert read(path)["runs"]["monday abc"]["machine"]["Date"] == "2026-01-01"


@pytest.mark.parametrize(
    "other",
    [{"source": "def"}, {"samples": {"trained": 8}}, {"cores": 2}, {"machine": {**MACHINE, "Processor": "b"}}],
    ids=lambda other: next(iter(other)),
)
def test_call_in_other_conditions_begins_a_run(path: Path, other: Mapping[str, Any]) -> None:
    complete(path)
    store = ResultStore(path, {**ABOUT, **other}, "tuesday")
    assert store.missing(ALL, "trained") == [*ALL]
    assert set(store.seconds.values()) == {0.0}
    store.record(ALL[0], "trained", {})
    store.write()
    begun = f"tuesday {other.get('source', 'abc')}"
    assert runs_of(path) == {str(cell): begun if cell is ALL[0] else "monday abc" for cell in ALL}
    assert read(path)["runs"].keys() == {"monday abc", begun}


def test_call_in_same_conditions_measures_nothing_twice(path: Path) -> None:
    complete(path)
    store = ResultStore(path, ABOUT, "tuesday")
    assert [store.missing(ALL, part) for part in PARTS] == [[], []]


def test_run_of_other_conditions_in_between_is_resumed_too(path: Path) -> None:
    interrupted(path)
    between = ResultStore(path, {**ABOUT, "cores": 2}, "tuesday")
    between.record(ALL[2], "fullSize", {})
    between.write()
    assert ResultStore(path, ABOUT, "wednesday").missing(ALL[:2], "trained") == [ALL[0]]


def test_again_begins_a_run_that_can_be_resumed(path: Path) -> None:
    complete(path)
    store = ResultStore(path, ABOUT, "tuesday", again=True)
    assert store.missing(ALL[:2], "trained") == [*ALL[:2]]
    store.record(ALL[0], "trained", {})
    store.write()
    assert ResultStore(path, ABOUT, "wednesday").missing(ALL[:2], "trained") == [ALL[1]]


def test_run_without_rows_is_not_listed(path: Path) -> None:
    interrupted(path)
    store = ResultStore(path, {**ABOUT, "source": "def"}, "tuesday")
    for cell in ALL[:2]:
        store.record(cell, "trained", {})
    store.write()
    assert list(read(path)["runs"]) == ["tuesday def"]


def test_results_of_other_tool_versions_are_discarded(path: Path) -> None:
    complete(path)
    store = ResultStore(path, {**ABOUT, "versions": {"onnx": "1.1"}}, "tuesday")
    assert (store.cells, list(store.runs)) == ({}, ["tuesday abc"])


def test_results_are_kept_beside_a_tool_that_was_added(path: Path) -> None:
    complete(path)
    more = {"versions": {"onnx": "1.0", "tensorflow-cpu": "2.21.0"}}
    store = ResultStore(path, {**ABOUT, **more}, "tuesday")
    assert len(store.cells) == len(ALL)
    store.write()
    assert read(path)["versions"] == more["versions"]


def test_file_follows_matrix_order_and_sums_time_per_part(path: Path) -> None:
    interrupted(path)
    store = ResultStore(path, ABOUT, "tuesday")
    store.seconds.update(trained=100.0, fullSize=50.0)
    store.last -= 10.0
    store.record(ALL[0], "fullSize", {"failed": "no memory"})
    store.cells["no cell any more"] = {}
    store.write()
    content = read(path)
    seconds = content["runs"]["monday abc"]["seconds"]
    assert list(content["cells"]) == [str(ALL[0]), str(ALL[1])]
    assert seconds["trained"] == 100.0
    assert 60.0 <= seconds["fullSize"] < 100.0
    assert content["versions"] == ABOUT["versions"]


def test_failures_list_failed_and_missing_cells(path: Path) -> None:
    store = interrupted(path)
    assert store.failures(ALL[:2]) == [
        f"{ALL[0]} trained: no space",
        f"{ALL[0]} fullSize: not measured",
        f"{ALL[1]} fullSize: not measured",
    ]
    assert store.failures(ALL[:2], ["trained"]) == [f"{ALL[0]} trained: no space"]
