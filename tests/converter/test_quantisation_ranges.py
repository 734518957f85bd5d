"""The ranges in which values become 8-bit integers, and the layers and tensors that stay in float."""

import pytest

from modelexport_converter.backends.activation_ranges import (
    BINS,
    Weights,
    activation_range,
    pick_float_layers,
    trace_to_weights,
)

RARE = [(-1.0, 2.0)] * 63 + [(-4.0, 8.0)]


def test_range_covers_all_values() -> None:
    assert activation_range(RARE, int8_sensitive=False) == (-4, 8)


def test_sensitive_model_clips_rare_values_only() -> None:
    low, high = activation_range(RARE, int8_sensitive=True)
    assert -2 < low <= -1
    assert 2 <= high < 4


def test_value_seen_in_tenth_of_images_keeps_half_its_range() -> None:
    _, high = activation_range([(0.0, 0.0)] * 9 + [(0.0, 8.0)], int8_sensitive=True)
    assert high == pytest.approx(8 * 0.1**0.25)
    assert high > 4


@pytest.mark.parametrize("int8_sensitive", [False, True])
def test_equal_values_in_all_images_set_range(int8_sensitive: bool) -> None:
    assert activation_range([(-1.5, 3.0)] * 8, int8_sensitive) == pytest.approx((-1.5, 3))


def test_sensitive_model_range_includes_zero() -> None:
    assert activation_range([(1.0, 3.0)] * 8, int8_sensitive=True) == pytest.approx((0, 3))


def test_backward_walk_ends_at_last_weights() -> None:
    """Boxes are decoded from one convolution, scores from it and another; the one before both is not reached."""
    sources = {"boxes": ["a", "grid"], "scores": ["sum"], "sum": ["a", "b"], "a": ["stem"], "b": ["stem"], "stem": []}
    assert trace_to_weights(["boxes", "scores"], sources, {"a", "b", "stem"}) == (
        {"boxes", "scores", "sum"},
        {"a", "b"},
    )


def test_output_with_weights_is_last_layer() -> None:
    assert trace_to_weights([2], {2: [1], 1: [0]}, {1, 2}) == (set(), {2})


def test_rare_value_of_little_effect_is_cut_off() -> None:
    weights = Weights(0.0, 8.0)
    weights.squares[: BINS // 4], weights.squares[-1] = 1, 1e-4
    low, high, noise = weights.best_range()
    assert low == 0
    assert 2 <= high < 4
    assert noise > 0


def test_rare_value_of_great_effect_sets_range() -> None:
    weights = Weights(-8.0, 8.0)
    weights.squares[BINS // 2 : BINS * 3 // 4], weights.squares[-1] = 1, 1e6
    low, high, _ = weights.best_range()
    assert low == 0
    assert high == pytest.approx(8, rel=0.01)


def test_noisiest_layers_stay_in_float() -> None:
    noise = {"a": 1.0, "b": 5.0, "c": 2.0}
    layers = {"first": ["a"], "second": ["b"], "third": ["c"]}
    assert list(pick_float_layers(noise, layers, 2)) == ["second", "third"]
    assert pick_float_layers(noise, layers, 0) == {}


def test_neighbour_of_float_layer_bears_rest_of_noise() -> None:
    layers = {"first": ["a", "b"], "second": ["b"], "third": ["c"]}
    assert list(pick_float_layers({"a": 1.0, "b": 2.0, "c": 1.4}, layers, 2)) == ["first", "second"]


def test_layer_without_noise_stays_in_8_bits() -> None:
    assert pick_float_layers({"a": 1.0}, {"first": ["a"], "second": ["unknown"]}, 2) == {"first": 1.0}


def test_shares_of_all_layers_add_up_to_one() -> None:
    layers = {"first": ["a", "b"], "second": ["b", "c"], "third": ["c"]}
    shares = pick_float_layers({"a": 1.0, "b": 2.0, "c": 4.0, "elsewhere": 8.0}, layers, 3)
    assert shares == pytest.approx({"second": 3 / 7, "third": 2 / 7, "first": 2 / 7})
