"""Any model as a program: all cells of an architecture of which nothing is known but its input."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.cells import FOLDER, TRAINED, ask, eval_inputs, inputs, load_model
from converter.made_up import make_up
from converter.test_litert_reach import Attention
from converter.test_verify import quantise_joined
from converter.trained import MODELS
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Precision, Scheme
from modelexport.reasons import Reason
from modelexport_converter.architectures.custom import load
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inspection import check_facts
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive
from modelexport_converter.verify import check, compare

SIZE = (48, 64)


class Network(nn.Module):
    """Two outputs of different ranks, behind a batch normalisation that nobody folded."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        )
        self.map = nn.Conv2d(32, 4, 1)
        self.vector = nn.Linear(32, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(image)
        return self.map(features), self.vector(features.mean((2, 3)))


def save(network: nn.Module, path: Path, *inputs: torch.Tensor) -> Path:
    torch.export.save(torch.export.export(network.eval(), inputs or (torch.rand(1, 3, *SIZE),)), path)
    return path


@cache
def load_network() -> LoadedModel:
    network = Network()
    network.load_state_dict(make_up(network.state_dict()))
    return load(read_checkpoint(save(network, Path(FOLDER.name) / "network.pt2")), ask("Custom"))


def refuse(path: Path, **parameters: Any) -> str:
    with pytest.raises(Failure) as caught:
        load(read_checkpoint(path), ask("Custom", **parameters))
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    return str(caught.value)


def cells() -> Iterator[Any]:
    for fmt, backend in BACKENDS.items():
        rows = [(Precision.FP32, Scheme.FP32), (Precision.FP16, Scheme.FP16)]
        rows += [(Precision.INT8, scheme) for scheme in dict.fromkeys((backend.data_free, backend.calibrated))]
        for precision, scheme in rows:
            mark = pytest.mark.xdist_group(f"Custom-{fmt}")
            yield pytest.param(fmt, precision, scheme, marks=mark, id=f"{fmt}-{scheme}")


@pytest.mark.parametrize(("fmt", "precision", "scheme"), list(cells()))
def test_a_cell_agrees_with_the_program_and_passes_its_checks(
    fmt: Format, precision: Precision, scheme: Scheme, tmp_path: Path, record_property: Any
) -> None:
    model, backend = load_network(), load_backend(fmt)
    suffix = BACKENDS[fmt].suffix.removesuffix(".zip")
    converted, path = tmp_path / f"converted{suffix}", tmp_path / f"file{suffix}"
    base = BACKENDS[fmt].base(scheme)
    backend.convert(model, base, converted)
    if scheme is base:
        path = converted
    else:
        samples = pictures(model, "calibration") if scheme.needs_calibration else ()
        backend.quantise(model, converted, scheme, samples, path)
    facts = backend.inspect(path)
    check_facts(facts, model, scheme)
    assert facts.outputs == {"output_0": (1, 4, 12, 16), "output_1": (1, 5)}
    comparison = compare(model, backend.open_file(model, path), pictures(model, "eval"))
    record_property("agreement", comparison.agreements)
    check(comparison, ARCHITECTURES["Custom"].thresholds[precision])


def pictures(model: LoadedModel, data: str) -> Inputs:
    return Inputs(open_archive(MODELS / f"data/{data}.zip", data)[:8], model.preprocessing, model.input_size)


class Joined(nn.Module):
    """A trained detector with the output that ultralytics gives: boxes in pixels and scores in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_model("YOLOv8").module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        boxes, scores = self.network(image)
        return torch.cat([boxes * image.shape[3], scores], 1)


@cache
def load_joined() -> LoadedModel:
    path = save(Joined(), Path(FOLDER.name) / "joined.pt2", load_model("YOLOv8").example_input())
    return load(read_checkpoint(path), ask("Custom"))


@pytest.mark.xdist_group("Custom-joined")
@pytest.mark.parametrize("scheme", [Scheme.FP32, Scheme.FP16, Scheme.DYNAMIC_WI8_AFP32, Scheme.STATIC_WI8_AI8])
def test_boxes_in_pixels_joined_with_scores_pass_in_every_precision(scheme: Scheme, tmp_path: Path) -> None:
    model, backend, path = load_joined(), load_backend(Format.ONNX), tmp_path / "file.onnx"
    backend.convert(model, Scheme.FP32, tmp_path / "converted.onnx")
    if scheme is Scheme.FP32:
        path = tmp_path / "converted.onnx"
    else:
        backend.quantise(model, tmp_path / "converted.onnx", scheme, inputs("YOLOv8", "calibration", 16), path)
    comparison = compare(model, backend.open_file(model, path), eval_inputs("YOLOv8")[:4])
    least = {Scheme.FP32: 0.99999, Scheme.FP16: 0.999}.get(scheme, 0.95)
    assert comparison.value > least, comparison


def no_scores(rows: Array) -> Array:
    return np.concatenate([rows[:, :4], np.zeros_like(rows[:, 4:])], 1)


def one_class_lost(rows: Array) -> Array:
    return np.concatenate([rows[:, :6], np.zeros_like(rows[:, 6:])], 1)


def rotated_classes(rows: Array) -> Array:
    return np.concatenate([rows[:, :4], np.roll(rows[:, 4:], 1, 1)], 1)


@pytest.mark.xdist_group("Custom-joined")
@pytest.mark.parametrize("change", [no_scores, one_class_lost, rotated_classes])
def test_wrong_scores_are_seen_beside_boxes_in_pixels(change: Callable[[Array], Array]) -> None:
    model = load_joined()

    def run(image: Array) -> tuple[Array, ...]:
        return (change(model.module(torch.from_numpy(image))[0].detach().numpy()),)

    with pytest.raises(Failure, match="differs most") as caught:
        check(compare(model, run, eval_inputs("YOLOv8")[:4]), ARCHITECTURES["Custom"].thresholds[Precision.INT8])
    assert caught.value.reason is Reason.VERIFICATION_FAILED


@pytest.mark.xdist_group("Custom-joined")
def test_one_scale_for_joined_boxes_and_scores_is_not_verified(tmp_path: Path) -> None:
    comparison = compare(load_joined(), quantise_joined(tmp_path), eval_inputs("YOLOv8")[:4])
    with pytest.raises(Failure, match=r"channel [456] of 7 in output_0 differs most"):
        check(comparison, ARCHITECTURES["Custom"].thresholds[Precision.INT8])


def test_the_outputs_are_the_programs_own() -> None:
    model, network = load_network(), Network().eval()
    network.load_state_dict(make_up(network.state_dict()))
    image = model.example_input()
    assert model.input_size == SIZE
    assert [output.axes for output in model.outputs] == [("unknown",) * 4, ("unknown",) * 2]
    for wanted, given in zip(network(image), model.module(image), strict=True):
        torch.testing.assert_close(given, wanted)


def test_whole_numbers_and_truths_become_floats(tmp_path: Path) -> None:
    class Labels(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image.argmax(1), image > 0.5

    model = load(read_checkpoint(save(Labels(), tmp_path / "x.pt2")), ask("Custom"))
    assert {output.dtype for output in model.module(model.example_input())} == {torch.float32}


def test_the_values_of_a_dict_are_outputs_in_their_order(tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": image + 1, "aux": image[:, :1]}

    model = load(read_checkpoint(save(Named(), tmp_path / "x.pt2")), ask("Custom"))
    image = model.example_input()
    first, second = model.module(image)
    torch.testing.assert_close(first, image + 1)
    torch.testing.assert_close(second, image[:, :1])


def test_attention_with_a_mask_of_minus_infinity_is_taken(tmp_path: Path) -> None:
    network, image = Attention(), torch.rand(1, 3, 32, 32)
    model = load(read_checkpoint(save(network, tmp_path / "x.pt2", image)), ask("Custom"))
    torch.testing.assert_close(model.module(image), network(image))


def test_a_checkpoint_without_a_network_is_refused_with_the_way_out() -> None:
    assert "save the model with torch.export.save" in refuse(TRAINED["YOLOv8"].weights)


def test_parameters_of_which_nothing_is_known_are_refused(tmp_path: Path) -> None:
    path = save(Network(), tmp_path / "x.pt2")
    assert "number of classes 3, the checkpoint has none that can be told" in refuse(path, num_classes=3)
    assert "input size (64, 64), the checkpoint has (48, 64)" in refuse(path, input_size=(64, 64))


def test_a_program_of_two_inputs_is_refused(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            return one + two

    path = save(Sum(), tmp_path / "x.pt2", torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    assert "expected one image (1, channels, height, width) of 1 (grey)" in refuse(path)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_a_program_of_other_numbers_than_the_files_take_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    class Scale(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image / 255

    path = save(Scale(), tmp_path / "x.pt2", torch.ones(1, 3, 8, 8, dtype=dtype))
    assert f"it takes {dtype}, expected an image of torch.float32 in 0 to 1" in refuse(path)


def test_an_output_that_is_a_bare_number_is_refused(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean()

    assert "of one axis at least" in refuse(save(Mean(), tmp_path / "x.pt2"))
