from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import pytest

from benchmarks.matrix.schedule import Found, choose, grouped, measure_all
from benchmarks.matrix.workspace import MatrixWorkspace
from modelexport.matrix.support import Cell, cells

ALL = cells()


@pytest.fixture
def workspace(tmp_path: Path) -> MatrixWorkspace:
    cores = SimpleQueue[str]()
    cores.put("0")
    cores.put("1")
    return MatrixWorkspace(tmp_path, {}, {}, cores, 1)


def test_any_of_the_texts_chooses_a_cell() -> None:
    assert choose(ALL, []) == [*ALL]
    assert {str(cell) for cell in choose(ALL, ["UNet ONNX/FP", "FCN LiteRT/INT8"])} == {
        *("UNet ONNX/FP32", "UNet ONNX/FP16", "FCN LiteRT/INT8")
    }


def test_only_accuracies_share_an_export_by_architecture() -> None:
    asked = choose(ALL, ["UNet ONNX/FP", "FCN LiteRT/INT8"])
    assert sorted(len(group) for group in grouped(asked, "trained")) == [1, 2]
    assert [len(group) for group in grouped(asked, "fullSize")] == [1, 1, 1]


def test_results_come_while_others_of_the_group_are_measured(workspace: MatrixWorkspace) -> None:
    seen = Event()

    def measure(_: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[Found]:
        yield asked[0], {"order": 1}
        assert seen.wait(30)
        yield asked[1], {"order": 2}

    found = measure_all(workspace, measure, [ALL[:2]])
    assert next(found) == (ALL[0], {"order": 1})
    seen.set()
    assert list(found) == [(ALL[1], {"order": 2})]


def test_groups_are_measured_beside_each_other(workspace: MatrixWorkspace) -> None:
    second = Event()

    def measure(_: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[Found]:
        if asked[0] is ALL[0]:
            assert second.wait(30)
        second.set()
        yield asked[0], {}

    assert [cell for cell, _ in measure_all(workspace, measure, [ALL[:1], ALL[1:2]])] == [ALL[1], ALL[0]]


def test_failure_is_that_of_the_cells_without_result(workspace: MatrixWorkspace) -> None:
    def measure(_: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[Found]:
        yield asked[0], {"accuracy": 1}
        raise RuntimeError("no space")

    failed = {"failed": "no space"}
    assert list(measure_all(workspace, measure, [ALL[:3]])) == [
        *((ALL[0], {"accuracy": 1}), (ALL[1], failed), (ALL[2], failed))
    ]


def test_defect_of_a_measurement_ends_the_run(workspace: MatrixWorkspace) -> None:
    def measure(_: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[Found]:
        yield asked[0], {}
        raise KeyError("scheme")

    found = measure_all(workspace, measure, [ALL[:2]])
    assert next(found) == (ALL[0], {})
    with pytest.raises(KeyError, match="scheme"):
        list(found)
