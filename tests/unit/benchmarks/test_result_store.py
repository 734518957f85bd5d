import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.ledger import PARTS, Ledger
from modelexport.matrix import cells

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


def interrupted(path: Path) -> Ledger:
    ledger = Ledger(path, ABOUT, "monday")
    ledger.record(ALL[1], "trained", {"seconds": 2.0})
    ledger.record(ALL[0], "trained", {"failed": "no space"})
    ledger.references["YOLOv8"] = {"box": 0.9}
    ledger.write()
    return ledger


def complete(path: Path, **failed: str) -> None:
    ledger = Ledger(path, ABOUT, "monday")
    for cell in ALL:
        for part in PARTS:
            ledger.record(cell, part, failed if cell is ALL[3] else {})
    ledger.write()


def runs(path: Path) -> set[str]:
    content = json.loads(path.read_text())
    return {result["run"] for cell in content["cells"].values() for result in cell.values()}


def test_an_interrupted_run_goes_on_with_what_is_missing_and_what_had_failed(path: Path) -> None:
    interrupted(path)
    machine = {**MACHINE, "Date": "2026-01-02", "Commit": "2"}
    ledger = Ledger(path, {**ABOUT, "machine": machine}, "tuesday")
    assert ledger.missing(ALL[:3], "trained") == [ALL[0], ALL[2]]
    assert ledger.missing(ALL[:2], "fullSize") == [*ALL[:2]]
    assert ledger.references == {"YOLOv8": {"box": 0.9}}
    ledger.record(ALL[2], "trained", {})
    ledger.write()
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
def test_a_run_in_other_conditions_begins_anew(path: Path, other: Mapping[str, Any]) -> None:
    interrupted(path)
    ledger = Ledger(path, {**ABOUT, **other}, "tuesday")
    assert (ledger.cells, ledger.references, set(ledger.seconds.values())) == ({}, {}, {0.0})
    ledger.record(ALL[0], "trained", {})
    ledger.write()
    assert runs(path) == {f"tuesday {other.get('source', 'abc')}"}


def test_a_run_after_a_complete_one_measures_everything_anew(path: Path) -> None:
    complete(path)
    assert Ledger(path, ABOUT, "tuesday").missing(ALL, "trained") == [*ALL]


def test_a_run_in_which_a_cell_failed_goes_on_with_that_cell(path: Path) -> None:
    complete(path, failed="no space")
    assert Ledger(path, ABOUT, "tuesday").missing(ALL, "trained") == [ALL[3]]


def test_what_is_measured_again_bears_another_run_and_takes_no_time_of_the_first(path: Path) -> None:
    complete(path)
    ledger = Ledger(path, {**ABOUT, "source": "def"}, "tuesday", whole=False)
    ledger.forget([ALL[0]])
    assert ledger.missing(ALL, "trained") == [ALL[0]]
    seconds = dict(ledger.seconds)
    ledger.last -= 10.0
    for part in PARTS:
        ledger.record(ALL[0], part, {"failed": "no space"})
    ledger.write()
    assert ledger.seconds == seconds
    assert runs(path) == {"monday abc", "tuesday def"}
    assert json.loads(path.read_text())["run"] == "monday abc"


def test_a_mixed_file_is_never_gone_on_with(path: Path) -> None:
    interrupted(path)
    ledger = Ledger(path, ABOUT, "tuesday", whole=False)
    ledger.forget([ALL[1]])
    ledger.record(ALL[1], "trained", {})
    ledger.write()
    assert Ledger(path, ABOUT, "wednesday").cells == {}


def test_a_file_that_does_not_name_its_run_is_begun_anew(path: Path) -> None:
    path.write_text(json.dumps({**ABOUT, "cells": {str(ALL[0]): {"trained": {}}}}))
    assert Ledger(path, ABOUT, "tuesday").cells == {}


def test_beside_results_of_other_tools_nothing_is_measured_again(path: Path) -> None:
    complete(path)
    other = {**ABOUT, "versions": {"onnx": "1.1"}}
    assert Ledger(path, other, "tuesday", whole=False).cells == {}


def test_the_file_has_the_order_of_the_matrix_and_the_time_of_each_part_over_all_sittings(path: Path) -> None:
    interrupted(path)
    ledger = Ledger(path, ABOUT, "tuesday")
    ledger.seconds = {"trained": 100.0, "fullSize": 50.0}
    ledger.last -= 10.0
    ledger.record(ALL[0], "fullSize", {"failed": "no memory"})
    ledger.cells["no cell any more"] = {}
    ledger.write()
    content = json.loads(path.read_text())
    assert list(content["cells"]) == [str(ALL[0]), str(ALL[1])]
    assert content["seconds"]["trained"] == 100.0
    assert 60.0 <= content["seconds"]["fullSize"] < 100.0
    assert content["versions"] == ABOUT["versions"]


def test_failures_are_what_failed_and_what_is_missing(path: Path) -> None:
    assert interrupted(path).failures(ALL[:2]) == [
        f"{ALL[0]} trained: no space",
        f"{ALL[0]} fullSize: not measured",
        f"{ALL[1]} fullSize: not measured",
    ]
