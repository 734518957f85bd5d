"""In which range values become 8-bit integers, and which operators are the last with weights."""

import pytest

from modelexport_converter.backends.ranges import find_range, trace_back

RARE = [(-1.0, 2.0)] * 63 + [(-4.0, 8.0)]


def test_a_range_holds_all_values() -> None:
    assert find_range(RARE, delicate=False) == (-4, 8)


def test_a_rare_value_is_clipped_in_a_delicate_model_and_no_usual_one() -> None:
    low, high = find_range(RARE, delicate=True)
    assert -2 < low <= -1
    assert 2 <= high < 4


def test_what_one_picture_in_ten_shows_keeps_half_of_its_reach() -> None:
    _, high = find_range([(0.0, 0.0)] * 9 + [(0.0, 8.0)], delicate=True)
    assert high == pytest.approx(8 * 0.1**0.25)
    assert high > 4


@pytest.mark.parametrize("delicate", [False, True])
def test_values_that_are_alike_in_all_pictures_give_their_own_range(delicate: bool) -> None:
    assert find_range([(-1.5, 3.0)] * 8, delicate) == pytest.approx((-1.5, 3))


def test_a_delicate_models_range_holds_zero_where_no_value_is_below() -> None:
    assert find_range([(1.0, 3.0)] * 8, delicate=True) == pytest.approx((0, 3))


def test_going_back_from_the_outputs_ends_at_the_last_weights() -> None:
    """Boxes are decoded from one convolution, scores from it and another; the one before both is not reached."""
    sources = {"boxes": ["a", "grid"], "scores": ["sum"], "sum": ["a", "b"], "a": ["stem"], "b": ["stem"], "stem": []}
    assert trace_back(["boxes", "scores"], sources, {"a", "b", "stem"}) == ({"boxes", "scores", "sum"}, {"a", "b"})


def test_an_output_that_has_weights_itself_is_the_last() -> None:
    assert trace_back([2], {2: [1], 1: [0]}, {1, 2}) == (set(), {2})
