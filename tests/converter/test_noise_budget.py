"""How much the outputs react to each tensor: found by extremes, measured by one backward pass, without labels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from modelexport_converter.backends import Array, noise_budget
from modelexport_converter.backends.activation_ranges import BINS, Extremes
from modelexport_converter.backends.measurement import Measurement, find_tensors
from modelexport_converter.backends.noise_budget import measure_outputs, measure_weights, plan_ranges
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.runtime.artifact_cache import ArtifactCache

IMAGES = [np.random.default_rng(seed).random((1, 3, 8, 8), np.float32) for seed in range(4)]


class Network(nn.Module):
    """A convolution, an activation, and the average of each channel."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.activation = nn.Conv2d(3, 4, 3, padding=1), activation or nn.SiLU()
        nn.init.normal_(self.convolution.weight)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 4)."""
        return (self.activation(self.convolution(image)).mean((2, 3)),)

    def tensors(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a file computes: image, convolution, activation, and one tensor that the network has not."""
        before = self.convolution(image)
        return {"image": image, "before": before, "after": functional.silu(before), "other": before * 7}


def model_of(module: nn.Module, *outputs: Output) -> LoadedModel:
    described = outputs or (Output("scores", ("batch", "class"), ""),)
    return LoadedModel(module.eval().requires_grad_(False), (8, 8), described, (), Preprocessing("stretch"))


def extremes(network: Network, images: Sequence[Array] = IMAGES) -> dict[str, Extremes]:
    found: dict[str, list[tuple[float, float]]] = {}
    for image in images:
        for name, values in network.tensors(torch.from_numpy(image)).items():
            found.setdefault(name, []).append((values.min().item(), values.max().item()))
    return dict(found)


@torch.no_grad()
def measured_noise(network: Network, low: float, high: float) -> float:
    """The squared error of the outputs when the activation is rounded to 8 bits of a range, over all images."""
    total, step = 0.0, (high - low) / 255
    for image in map(torch.from_numpy, IMAGES):
        exact = network.tensors(image)["after"]
        rounded = torch.fake_quantize_per_tensor_affine(exact, step, round(-low / step), 0, 255)
        total += float((rounded - exact).mean((2, 3)).square().sum())
    return total


def test_tensors_are_found_by_their_extremes() -> None:
    network = Network().eval()
    assert set(measure_weights(model_of(network), IMAGES, extremes(network))) == {"image", "before", "after"}


class ChannelsLast(nn.Module):
    """A SiLU whose operand and result have the channels last in memory, as results of oneDNN have them."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(...) to (...)."""
        return functional.silu(values.contiguous(memory_format=torch.channels_last))


class Weighted(Network):
    """A network that cares for each channel differently."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 4)."""
        return (super().forward(image)[0] * torch.arange(1, 5),)


def test_order_in_memory_changes_no_weights() -> None:
    networks = Weighted().eval(), Weighted(ChannelsLast()).eval()
    expected, found = (measure_weights(model_of(one), IMAGES, extremes(networks[0])) for one in networks)
    for name in ("before", "after"):
        assert np.allclose(found[name].squares, expected[name].squares, rtol=1e-4)


def test_program_has_weights_of_its_network() -> None:
    network = Network().eval()
    program = torch.export.export(network, (torch.from_numpy(IMAGES[0]),)).module(check_guards=False)
    program.training = False
    expected = measure_weights(model_of(network), IMAGES, extremes(network))
    found = measure_weights(
        LoadedModel(program, (8, 8), model_of(network).outputs, (), Preprocessing("stretch")), IMAGES, extremes(network)
    )
    assert set(found) == set(expected)
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name].squares, weights.squares, rtol=1e-4, atol=1e-9)


def test_values_overwritten_by_an_activation_keep_their_weights() -> None:
    network = Network(nn.SiLU(inplace=True)).eval()
    expected = measure_weights(model_of(Network().eval()), IMAGES, extremes(network))
    found = measure_weights(model_of(network), IMAGES, extremes(network))
    np.testing.assert_allclose(found["before"].squares, expected["before"].squares)


def test_values_cut_by_a_relu_have_no_weights() -> None:
    network = Network(nn.ReLU(inplace=True)).eval()
    assert "before" not in measure_weights(model_of(network), IMAGES, extremes(network))


def test_predicted_noise_is_near_measured_noise() -> None:
    network = Network().eval()
    budget = plan_ranges(model_of(network), IMAGES, {"after": extremes(network)["after"]})
    scale = sum(max(1.0, float(network(image)[0].square().sum())) for image in map(torch.from_numpy, IMAGES)) / 4
    assert budget.noise["after"] * scale == pytest.approx(measured_noise(network, *budget.ranges["after"]), rel=0.5)


def test_values_without_effect_are_cut_off() -> None:
    """SiLU of -20 is 0, whatever the value is exactly."""
    network = Network().eval()
    nn.init.constant_(network.convolution.get_parameter("bias")[:1], -20)
    low, high = extremes(network)["before"][0]
    ranges = plan_ranges(model_of(network), IMAGES, extremes(network)).ranges
    assert low < -20 < -10 < ranges["before"][0]
    assert ranges["before"][1] > high / 2


class Detector(nn.Module):
    """Two anchors, of which the model is certain of the first only."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, 3, 8, 8) to boxes (1, 4, 2) and scores (1, 1, 2)."""
        sure, unsure = image[:, :1, 0, :4] + 1, image[:, 1:2, 0, :4] + 2
        return torch.stack([sure[0, 0], unsure[0, 0]], 1)[None], torch.tensor([[[1.0, 0.0]]])


def test_anchors_that_detect_nothing_weigh_nothing() -> None:
    boxes = Output("boxes", ("batch", "coordinate", "anchor"), "")
    scores = Output("scores", ("batch", "class", "anchor"), "")
    parts = {"sure": [], "unsure": []}  # type: dict[str, list[tuple[float, float]]]
    for image in IMAGES:
        for channel, name in enumerate(parts):
            values = image[0, channel, 0, :4] + np.float32(channel + 1)
            parts[name].append((float(values.min()), float(values.max())))
    assert set(measure_weights(model_of(Detector(), boxes, scores), IMAGES, dict(parts))) == {"sure"}


class Scored(nn.Module):
    """Scores of eight detections, most of which are certain."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to scores (1, 8)."""
        return ((image[:, 0, 0] * 9).sigmoid(),)


def test_certain_detections_keep_their_order() -> None:
    """A range that ends at 5 costs probabilities less than a hundredth, and makes all above equal."""
    logits = [image[0, 0, 0] * np.float32(9) for image in IMAGES]
    found = {"logits": [(float(values.min()), float(values.max())) for values in logits]}
    model = model_of(Scored(), Output("scores", ("batch", "detection"), ""))
    assert plan_ranges(model, IMAGES, found).ranges["logits"][1] > 0.9 * max(high for _, high in found["logits"])


class Branches(nn.Module):
    """Boxes from one channel of an image and scores from another."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, 3, 8, 8) to boxes (1, 4, 2) and scores (1, 1, 2)."""
        boxes, scores = image[:, 0, :4, :2] * 2, (image[:, 1:2, 0, :2] * 3).sigmoid()
        return boxes, scores


def test_noise_of_each_output_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_budget, "NOISY", 0)
    boxes = Output("boxes", ("batch", "coordinate", "anchor"), "")
    scores = Output("scores", ("batch", "class", "anchor"), "")
    values = {
        "places": [image[0, 0, :4, :2] * np.float32(2) for image in IMAGES],
        "logits": [image[0, 1, 0, :2] * np.float32(3) for image in IMAGES],
    }
    found = {name: [(float(one.min()), float(one.max())) for one in parts] for name, parts in values.items()}
    model = model_of(Branches(), boxes, scores)
    noise = measure_outputs(model, IMAGES, found, plan_ranges(model, IMAGES, found), found)
    assert noise["boxes"]["places"] > 0 == noise["boxes"]["logits"]
    assert noise["scores"]["logits"] > 0 == noise["scores"]["places"]


def test_outputs_with_little_noise_are_not_measured_alone() -> None:
    network, found = Network().eval(), extremes(Network().eval())
    budget = plan_ranges(model_of(network), IMAGES, found)
    assert 0 < budget.noise["before"] / len(IMAGES) < noise_budget.NOISY
    assert measure_outputs(model_of(network), IMAGES, found, budget, ["before"]) == {}


def test_outputs_without_known_meaning_are_not_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_budget, "NOISY", 0)
    network, found = Network().eval(), extremes(Network().eval())
    model = model_of(network, Output("values", ("batch", noise_budget.UNKNOWN), ""))
    assert measure_outputs(model, IMAGES, found, plan_ranges(model, IMAGES, found), ["before"]) == {}


def test_network_too_large_keeps_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_budget, "MOST_BYTES", 3000)
    network, found = Network().eval(), extremes(Network().eval())
    budget = plan_ranges(model_of(network), IMAGES, found)
    assert budget.noise == {}
    assert budget.ranges["after"] == (min(low for low, _ in found["after"]), max(high for _, high in found["after"]))


class Overwriting(Network):
    """Overwrites what its derivative needs, as inference may."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 4)."""
        return (self.convolution(image).sigmoid().mul_(2).mean((2, 3)),)


def test_network_without_derivative_keeps_extremes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "modelexport")
    network = Overwriting().eval()
    assert plan_ranges(model_of(network), IMAGES, extremes(network)).noise == {}
    assert caplog.messages == ["ranges cover all values"]


def test_masks_have_no_weights() -> None:
    network = Network().eval()
    found = {**extremes(network), "mask": [(-np.inf, 0.0)] * len(IMAGES)}
    budget = plan_ranges(model_of(network), IMAGES, found)
    assert budget.ranges["mask"] == (-np.inf, 0)
    assert set(budget.noise) == {"image", "before", "after"}


def test_no_tensors_have_no_ranges() -> None:
    assert plan_ranges(model_of(Network().eval()), IMAGES, {}).ranges == {}


class Halves(Network):
    """Reads the first half of what its convolution computes, which has the extremes of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution.weight.data[:2] *= 10

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 2)."""
        read, _ = self.convolution(image).chunk(2, 1)
        return (functional.silu(read).mean((2, 3)),)

    def tensors(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Both halves."""
        return dict(zip(("read", "unread"), self.convolution(image).chunk(2, 1), strict=True))


def test_part_that_nothing_reads_has_no_weights() -> None:
    network = Halves().eval()
    assert set(measure_weights(model_of(network), IMAGES, extremes(network))) == {"read"}


def provide_in(folder: Path) -> Callable[[Callable[[Path], None]], tuple[Path, bool]]:
    """Keep one file, as the conversions of a local run do."""
    return lambda build: ArtifactCache(folder).provide("kept", build)


def forbid(*_: object) -> None:
    raise AssertionError("the network runs again")


def test_second_file_takes_gradients_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, provide = Network().eval(), provide_in(tmp_path)
    first = measure_weights(model_of(network), IMAGES, extremes(network), provide)
    known = {"x.2": extremes(network)["after"], "x.3": extremes(network)["other"], "x.1": extremes(network)["before"]}
    monkeypatch.setattr(noise_budget, "_measure", forbid)
    second = measure_weights(model_of(network), IMAGES, known, provide)
    assert list(second) == ["x.2", "x.1"]
    for mine, its in (("x.1", "before"), ("x.2", "after")):
        np.testing.assert_array_equal(second[mine].squares, first[its].squares)


def test_file_with_further_tensors_measures_them(tmp_path: Path) -> None:
    network, provide = Network().eval(), provide_in(tmp_path)
    measure_weights(model_of(network), IMAGES, {"after": extremes(network)["after"]}, provide)
    found = measure_weights(model_of(network), IMAGES, extremes(network), provide)
    expected = measure_weights(model_of(network), IMAGES, extremes(network))
    assert set(found) == set(expected) == {"image", "before", "after"}
    for name, weights in expected.items():
        np.testing.assert_array_equal(found[name].squares, weights.squares)


def test_tensor_is_the_result_with_its_extremes_on_most_images() -> None:
    whole, part = [[0.0, 2.0], [0.0, 2.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    seen = np.array([whole, part]).transpose(1, 0, 2)
    assert find_tensors(np.array([part]), seen).tolist() == [-1, 0], "two images have the extremes of the whole"
    assert find_tensors(np.array([part, whole]), seen).tolist() == [1, 0]
    assert find_tensors(np.array([part, part]), seen).tolist() == [1, 0], "copies of values, as a transposition makes"


def test_tensor_is_no_result_with_its_extremes_on_few_images() -> None:
    seen = np.array([[[0.0, 1.0]], [[0.0, 2.0]]])
    assert find_tensors(np.array([[[0.0, 1.0], [0.0, 7.0]]]), seen).tolist() == [-1]


class Parts(Network):
    """Reads both halves of what its convolution computes, of which either one has the extremes of the whole."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 2)."""
        first, second = functional.relu(self.convolution(image)).chunk(2, 1)
        return (torch.cat([first * 2, second]).mean((2, 3)),)

    def tensors(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """The whole and its halves."""
        whole = functional.relu(self.convolution(image))
        return {"whole": whole, **dict(zip(("first", "second"), whole.chunk(2, 1), strict=True))}


def test_part_takes_the_same_gradients_with_and_without_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, provide = Parts().eval(), provide_in(tmp_path)
    found = extremes(network)
    assert {found["first"] == found["whole"], found["second"] == found["whole"]} == {False}
    assert all(
        whole in parts for whole, *parts in zip(*(found[name] for name in ("whole", "first", "second")), strict=True)
    )
    parts = {name: found[name] for name in ("first", "second")}
    alone = measure_weights(model_of(network), IMAGES, parts)
    measure_weights(model_of(network), IMAGES, found, provide)
    monkeypatch.setattr(noise_budget, "_measure", forbid)
    shared = measure_weights(model_of(network), IMAGES, parts, provide)
    assert set(shared) == set(alone) == {"first", "second"}
    for name, weights in alone.items():
        np.testing.assert_array_equal(shared[name].squares, weights.squares)


class Changing(Network):
    """Calls one function more for an image whose first value is large."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, 3, 8, 8) to (1, 4)."""
        return super().forward(image + 0 if image[0, 0, 0, 0] > 0.5 else image)


def test_network_of_changing_functions_is_measured_for_each_file(tmp_path: Path) -> None:
    assert len({bool(image[0, 0, 0, 0] > 0.5) for image in IMAGES}) == 2
    network, provide = Changing().eval(), provide_in(tmp_path)
    expected = measure_weights(model_of(Network().eval()), IMAGES, extremes(network))
    for _ in range(2):
        found = measure_weights(model_of(network), IMAGES, extremes(network), provide)
        assert set(found) == {"image", "before", "after"}
        for name in ("before", "after"):
            np.testing.assert_allclose(found[name].squares, expected[name].squares)


def test_exact_zeros_add_no_noise() -> None:
    network = Parts().eval()
    weights = measure_weights(model_of(network), IMAGES, extremes(network))["whole"]
    values = torch.cat([network.tensors(image)["whole"] for image in map(torch.from_numpy, IMAGES)])
    assert (values == 0).float().mean() > 0.2
    assert weights.squares[0] < 0.05 * weights.squares.sum(), "the first bin holds values near zero alone"


def test_network_without_derivative_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, provide = Overwriting().eval(), provide_in(tmp_path)
    assert measure_weights(model_of(network), IMAGES, extremes(network), provide) == {}
    monkeypatch.setattr(noise_budget, "_measure", forbid)
    assert measure_weights(model_of(network), IMAGES, extremes(network), provide) == {}


def test_measurement_is_read_as_written(tmp_path: Path) -> None:
    kept = Measurement(np.array([[[0.0, 1.0], [1.0, 3.0]]]), np.array([True, False]), np.ones((2, BINS)))
    kept.write(tmp_path / "kept")
    found = Measurement.read(tmp_path / "kept")
    for name in ("seen", "measured", "squares"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
