import json
from pathlib import Path

from bench.ledger import Ledger
from modelexport.matrix import cells

ALL = cells()
VERSIONS = {"onnx": "1.0"}


def measured(path: Path) -> Ledger:
    ledger = Ledger(path, VERSIONS)
    ledger.record(ALL[1], "trained", {"seconds": 2.0})
    ledger.record(ALL[0], "trained", {"failed": "no space"})
    ledger.references["YOLOv8"] = {"box": 0.9}
    ledger.write({"samples": {"trained": 64}})
    return ledger


def test_an_interrupted_run_goes_on_with_what_is_missing_and_what_had_failed(tmp_path: Path) -> None:
    measured(tmp_path / "a.json")
    ledger = Ledger(tmp_path / "a.json", VERSIONS)
    assert ledger.missing(ALL[:3], "trained") == [ALL[0], ALL[2]]
    assert ledger.missing(ALL[:2], "fullSize") == [*ALL[:2]]
    assert ledger.references == {"YOLOv8": {"box": 0.9}}


def test_results_of_other_tools_are_dropped(tmp_path: Path) -> None:
    measured(tmp_path / "a.json")
    ledger = Ledger(tmp_path / "a.json", {"onnx": "1.1"})
    assert (ledger.cells, ledger.references, ledger.seconds_before) == ({}, {}, 0.0)


def test_what_is_measured_again_is_forgotten_and_the_rest_is_kept(tmp_path: Path) -> None:
    ledger = measured(tmp_path / "a.json")
    ledger.forget([ALL[0]])
    assert list(ledger.cells) == [str(ALL[1])]
    ledger.seconds_before = 5.0
    ledger.forget(ALL)
    assert ledger.seconds_before == 0.0


def test_the_file_has_the_order_of_the_matrix_and_the_time_of_all_sessions(tmp_path: Path) -> None:
    ledger = measured(tmp_path / "a.json")
    ledger.seconds_before = 100.0
    ledger.record(ALL[0], "fullSize", {"failed": "no memory"})
    ledger.cells["no cell any more"] = {}
    ledger.write({"samples": {}})
    content = json.loads((tmp_path / "a.json").read_text())
    assert list(content["cells"]) == [str(ALL[0]), str(ALL[1])]
    assert content["seconds"] >= 100.0
    assert content["versions"] == VERSIONS


def test_failures_are_what_failed_and_what_is_missing(tmp_path: Path) -> None:
    assert measured(tmp_path / "a.json").failures(ALL[:2]) == [
        f"{ALL[0]} trained: no space",
        f"{ALL[0]} fullSize: not measured",
        f"{ALL[1]} fullSize: not measured",
    ]
