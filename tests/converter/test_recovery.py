"""Which files recovery tries, in which order, and which one it returns."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelexport.api.quantization import Effort, Quantization
from modelexport_converter.recovery import Candidate, Recovered, climb


@dataclass(frozen=True)
class Drop:
    """A file's loss, of which .01 is allowed."""

    drop: float

    @property
    def kept(self) -> bool:
        return self.drop <= 0.01

    @property
    def rank(self) -> tuple[bool, float]:
        return True, -self.drop

    @property
    def reached(self) -> Mapping[str, str]:
        return {"agreement": "0.9", "drop": f"{self.drop:g}"}


@dataclass
class Bench:
    """Makes files whose loss and size follow from their layers in float; ``layers`` is how many there are."""

    folder: Path
    drops: Mapping[int, float]
    ratios: Mapping[int, float] = field(default_factory=dict)
    layers: int = 1024
    made: list[int] = field(default_factory=list)
    left: Callable[[], float] = lambda: math.inf

    def __call__(self, effort: Effort = Effort.AUTO, most: int = 16, ratio: float = 0.4) -> Recovered[Drop]:
        return climb(Quantization(effort, most, ratio), self.quantise, self.measure, self.left)

    def quantise(self, count: int) -> Candidate:
        self.made.append(count)
        path = self.folder / f"{count}.onnx"
        path.write_bytes(b"file")
        chosen = {str(index): 0.01 for index in range(min(count, self.layers))}
        return Candidate(path, chosen, self.ratios.get(count, 0.3))

    def measure(self, candidate: Candidate) -> Drop:
        return Drop(self.drops[len(candidate.float_layers)])


LOST = {0: 0.04, 4: 0.02, 8: 0.03, 16: 0.025, 32: 0.022}


def tried(found: Recovered[Drop]) -> Sequence[tuple[str, int, str | None]]:
    return [(rung.rung, rung.float_layers, rung.drop) for rung in found.result.rungs]


def test_first_rung_is_the_only_one_if_it_keeps_accuracy(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {0: 0.01})
    found = bench()
    assert (bench.made, found.result.effort, found.result.stopped) == ([0], "Ranges", "")
    assert found.result.is_plain


@pytest.mark.parametrize(("kept", "made"), [(4, [0, 4]), (8, [0, 4, 8]), (16, [0, 4, 8, 16])], ids=["4", "8", "16"])
def test_layers_double_until_accuracy_is_kept(tmp_path: Path, kept: int, made: list[int]) -> None:
    bench = Bench(tmp_path, {**LOST, kept: 0.005})
    found = bench()
    assert bench.made == made
    assert (found.result.effort, found.result.float_layers, found.measured) == ("MixedPrecision", kept, Drop(0.005))
    assert tried(found)[-1] == ("MixedPrecision", kept, "0.005")
    assert [path.name for path in tmp_path.iterdir()] == [f"{kept}.onnx"]


def test_best_file_remains_if_no_rung_keeps_accuracy(tmp_path: Path) -> None:
    found = Bench(tmp_path, LOST)()
    assert (found.result.float_layers, found.measured, found.result.stopped) == (4, Drop(0.02), "maxFloatLayers is 16")
    assert [path.name for path in tmp_path.iterdir()] == ["4.onnx"]
    assert found.result.describe() == (
        "tried Ranges (drop 0.04, 0.3000 of the bytes of FP32), then MixedPrecision with 4 layers in float (drop 0.02, "
        "0.3000 of the bytes of FP32), then MixedPrecision with 8 layers in float (drop 0.03, 0.3000 of the bytes of "
        "FP32), then MixedPrecision with 16 layers in float (drop 0.025, 0.3000 of the bytes of FP32); maxFloatLayers "
        "is 16"
    )


@pytest.mark.parametrize(
    ("effort", "most", "made"),
    [
        (Effort.RANGES, 16, [0]),
        (Effort.AUTO, 0, [0]),
        (Effort.AUTO, 6, [0, 4, 6]),
        (Effort.AUTO, 4, [0, 4]),
        (Effort.MIXED_PRECISION, 1, [1]),
        (Effort.MIXED_PRECISION, 32, [4, 8, 16, 32]),
    ],
)
def test_effort_and_limit_choose_the_rungs(tmp_path: Path, effort: Effort, most: int, made: list[int]) -> None:
    bench = Bench(tmp_path, {**LOST, 1: 0.04, 6: 0.04})
    bench(effort, most)
    assert bench.made == made


def test_file_above_size_limit_is_not_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**LOST, 8: 0.0}, ratios={8: 0.41})
    found = bench()
    assert bench.made == [0, 4, 8]
    assert (found.result.float_layers, found.result.stopped) == (4, "0.4100 is more than maxSizeRatio 0.4")
    assert found.result.rungs[-1].to_dict() == {
        "rung": "MixedPrecision",
        "floatLayers": 8,
        "sizeRatio": "0.4100",
        "seconds": 0,
    }
    assert found.result.describe().endswith(
        "(not measured, 0.4100 of the bytes of FP32); 0.4100 is more than maxSizeRatio 0.4"
    )


def test_ranges_remain_if_no_mixed_file_is_small_enough(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, ratios={4: 0.5, 0: 0.45})
    found = bench(Effort.MIXED_PRECISION)
    assert (bench.made, found.result.effort, found.result.size_ratio) == ([4, 0], "Ranges", "0.4500")


def test_climb_ends_with_the_last_layer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**LOST, 5: 0.03}, layers=5)
    found = bench(most=64)
    assert bench.made == [0, 4, 8, 16]
    assert [rung.float_layers for rung in found.result.rungs] == [0, 4, 5]
    assert found.result.stopped == "no more than 5 layers have a known noise"


def test_no_rung_begins_without_time_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # each file takes 10 seconds
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    left = iter([20.0, 19.9])
    bench = Bench(tmp_path, LOST, left=lambda: next(left))
    found = bench()
    assert bench.made == [0, 4]
    assert found.result.stopped == "the deadline of the Job leaves no time for another rung"
