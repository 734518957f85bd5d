"""The stopwatch of latencies."""

import time

import pytest

from modelexport_converter.runtime.stopwatch import Stopwatch


def test_median_leaves_out_the_first_run() -> None:
    pauses = iter((0.2, 0.01, 0.03, 0.02))

    def run(answer: int) -> int:
        time.sleep(next(pauses))
        return answer

    watch = Stopwatch(run)
    assert [watch(index) for index in range(4)] == [0, 1, 2, 3]
    assert watch.counted == 3
    assert 0.02 <= watch.median() < 0.2


def test_a_single_run_tells_no_latency() -> None:
    watch = Stopwatch(str)
    with pytest.raises(ValueError, match="one call tells no latency"):
        watch.median()
    watch(1)
    assert watch.counted == 0
    with pytest.raises(ValueError, match="call at least twice"):
        watch.median()
