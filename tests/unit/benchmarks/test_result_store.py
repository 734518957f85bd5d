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
    store.references["YOLOv8"] = {"box": 0.9}
    store.write()
    return store


def complete(path: Path, **failed: str) -> None:
    store = ResultStore(path, ABOUT, "monday")
    for cell in ALL:
        for part in PARTS:
            store.record(cell, part, failed if cell is ALL[3] else {})
    store.write()


def runs(path: Path) -> set[str]:
    content = json.loads(path.read_text())
    return {result["run"] for cell in content["cells"].values() for result in cell.values()}


def test_interrupted_run_resumes_missing_and_failed_cells(path: Path) -> None:
    interrupted(path)
    machine = {**MACHINE, "Date": "2026-01-02", "Commit": "2"}
    store = ResultStore(path, {**ABOUT, "machine": machine}, "tuesday")
    assert store.missing(ALL[:3], "trained") == [ALL[0], ALL[2]]
    assert store.missing(ALL[:2], "fullSize") == [*ALL[:2]]
    assert store.references == {"YOLOv8": {"box": 0.9}}
    store.record(ALL[2], "trained", {})
    store.write()
    assert runs(path) == {"monday abc"}
    assert json.loads(path.read_text())["machine"]["Date"] == "2026-01-01"


@pytest.mark.parametrize(
    "other",
    [
        {"source": "def"},
        {"versions": {"onnx": "1.1"}},
        {"samples": {"trained": 8}},
        {"cores": 2},
        {"machine": {**MACHINE, "Processor": "b"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_run_in_other_conditions_starts_over(path: Path, other: Mapping[str, Any]) -> None:
    interrupted(path)
    store = ResultStore(path, {**ABOUT, **other}, "tuesday")
    assert (store.cells, store.references, set(store.seconds.values())) == ({}, {}, {0.0})
    store.record(ALL[0], "trained", {})
    store.write()
    assert runs(path) == {f"tuesday {other.get('source', 'abc')}"}


def test_run_after_complete_run_measures_everything(path: Path) -> None:
    complete(path)
    assert ResultStore(path, ABOUT, "tuesday").missing(ALL, "trained") == [*ALL]


def test_failed_cell_is_measured_again(path: Path) -> None:
    complete(path, failed="no space")
    assert ResultStore(path, ABOUT, "tuesday").missing(ALL, "trained") == [ALL[3]]


def test_remeasured_cell_belongs_to_new_run(path: Path) -> None:
    complete(path)
    store = ResultStore(path, {**ABOUT, "source": "def"}, "tuesday", whole=False)
    store.forget([ALL[0]])
    assert store.missing(ALL, "trained") == [ALL[0]]
    seconds = dict(store.seconds)
    store.last -= 10.0
    for part in PARTS:
        store.record(ALL[0], part, {"failed": "no space"})
    store.write()
    assert store.seconds == seconds
    assert runs(path) == {"monday abc", "tuesday def"}
    assert json.loads(path.read_text())["run"] == "monday abc"


def test_mixed_file_is_never_resumed(path: Path) -> None:
    interrupted(path)
    store = ResultStore(path, ABOUT, "tuesday", whole=False)
    store.forget([ALL[1]])
    store.record(ALL[1], "trained", {})
    store.write()
    assert ResultStore(path, ABOUT, "wednesday").cells == {}


def test_file_without_run_id_is_started_over(path: Path) -> None:
    path.write_text(json.dumps({**ABOUT, "cells": {str(ALL[0]): {"trained": {}}}}))
    assert ResultStore(path, ABOUT, "tuesday").cells == {}


def test_results_of_other_tool_versions_are_discarded(path: Path) -> None:
    complete(path)
    other = {**ABOUT, "versions": {"onnx": "1.1"}}
    assert ResultStore(path, other, "tuesday", whole=False).cells == {}


def test_results_are_kept_beside_a_tool_that_was_added(path: Path) -> None:
    complete(path)
    more = {"versions": {"onnx": "1.0", "tensorflow-cpu": "2.21.0"}}
    store = ResultStore(path, {**ABOUT, **more}, "tuesday", whole=False)
    assert len(store.cells) == len(ALL)
    store.write()
    assert json.loads(path.read_text())["versions"] == more["versions"]


def test_file_follows_matrix_order_and_sums_time_per_part(path: Path) -> None:
    interrupted(path)
    store = ResultStore(path, ABOUT, "tuesday")
    store.seconds = {"trained": 100.0, "fullSize": 50.0}
    store.last -= 10.0
    store.record(ALL[0], "fullSize", {"failed": "no memory"})
    store.cells["no cell any more"] = {}
    store.write()
    content = json.loads(path.read_text())
    assert list(content["cells"]) == [str(ALL[0]), str(ALL[1])]
    assert content["seconds"]["trained"] == 100.0
    assert 60.0 <= content["seconds"]["fullSize"] < 100.0
    assert content["versions"] == ABOUT["versions"]


def test_failures_list_failed_and_missing_cells(path: Path) -> None:
    assert interrupted(path).failures(ALL[:2]) == [
        f"{ALL[0]} trained: no space",
        f"{ALL[0]} fullSize: not measured",
        f"{ALL[1]} fullSize: not measured",
    ]
