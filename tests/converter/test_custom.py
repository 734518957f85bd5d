"""Any model as a program: all cells of an architecture of which only the input is known."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.refusals import refuse
from converter.synthetic_weights import make_weights
from converter.test_litert_int8_limits import Attention
from converter.test_verification import quantise_joined
from modelexport.api.reasons import Reason
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format, Precision, Recipe
from modelexport_converter.architectures.custom import load
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import PreparedImages, open_archive
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import check, compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import TRAINED, ask, eval_inputs, inputs, load_model, scratch
from trained.model import MODELS

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
    network.load_state_dict(make_weights(network.state_dict()))
    return load(read_checkpoint(save(network, Path(scratch().name) / "network.pt2")), ask("Custom"))


def cells() -> Iterator[Any]:
    for fmt, backend in BACKENDS.items():
        rows = [(Precision.FP32, Recipe.FP32), (Precision.FP16, Recipe.FP16)]
        rows += [(Precision.INT8, recipe) for recipe in dict.fromkeys((backend.data_free, backend.calibrated))]
        rows += [(Precision.W8A16, Recipe.STATIC_WI8_AI16)] if Precision.W8A16 not in backend.refused else []
        for precision, recipe in rows:
            marks = [pytest.mark.xdist_group(f"Custom-{fmt}")]
            if (fmt, precision) == (Format.EXECUTORCH, Precision.FP16):
                words = "XNNPACK sums in half precision where a processor can: .985 for this untrained network, not .99"
                marks.append(pytest.mark.skip(reason=words))
            yield pytest.param(fmt, precision, recipe, marks=marks, id=f"{fmt}-{recipe}")


@pytest.mark.parametrize(("fmt", "precision", "recipe"), list(cells()))
def test_cell_agrees_with_program_and_passes_checks(
    fmt: Format, precision: Precision, recipe: Recipe, tmp_path: Path, record_property: Any
) -> None:
    model, backend = load_network(), load_backend(fmt)
    suffix = BACKENDS[fmt].suffix.removesuffix(".zip")
    converted, path = tmp_path / f"converted{suffix}", tmp_path / f"file{suffix}"
    base = BACKENDS[fmt].base(recipe)
    backend.convert(model, base, converted)
    if not BACKENDS[fmt].quantises(recipe):
        path = converted
    else:
        samples = images(model, "calibration") if recipe.needs_calibration else ()
        backend.quantise(model, converted, recipe, samples, path)
    facts = backend.inspect(path)
    check_facts(facts, model, recipe)
    assert facts.outputs == {"output_0": (1, 4, 12, 16), "output_1": (1, 5)}
    comparison = compare(model, backend.open_file(model, path), images(model, "eval"))
    record_property("agreement", comparison.agreements)
    check(comparison, ARCHITECTURES["Custom"].thresholds[precision])


def images(model: LoadedModel, data: str) -> PreparedImages:
    return PreparedImages(open_archive(MODELS / f"data/{data}.zip", data)[:8], model.preprocessing, model.input_size)


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
    path = save(Joined(), Path(scratch().name) / "joined.pt2", load_model("YOLOv8").example_input())
    return load(read_checkpoint(path), ask("Custom"))


@pytest.mark.xdist_group("Custom-joined")
@pytest.mark.parametrize("recipe", [Recipe.FP32, Recipe.FP16, Recipe.DYNAMIC_WI8_AFP32, Recipe.STATIC_WI8_AI8])
def test_joined_pixel_boxes_and_scores_pass_in_every_precision(recipe: Recipe, tmp_path: Path) -> None:
    model, backend, path = load_joined(), load_backend(Format.ONNX), tmp_path / "file.onnx"
    backend.convert(model, Recipe.FP32, tmp_path / "converted.onnx")
    if recipe is Recipe.FP32:
        path = tmp_path / "converted.onnx"
    else:
        backend.quantise(model, tmp_path / "converted.onnx", recipe, inputs("YOLOv8", "calibration", 16), path)
    comparison = compare(model, backend.open_file(model, path), eval_inputs("YOLOv8")[:4])
    least = {Recipe.FP32: 0.99999, Recipe.FP16: 0.999}.get(recipe, 0.95)
    assert comparison.value > least, comparison


def no_scores(rows: Array) -> Array:
    return np.concatenate([rows[:, :4], np.zeros_like(rows[:, 4:])], 1)


def one_class_lost(rows: Array) -> Array:
    return np.concatenate([rows[:, :6], np.zeros_like(rows[:, 6:])], 1)


def rotated_classes(rows: Array) -> Array:
    return np.concatenate([rows[:, :4], np.roll(rows[:, 4:], 1, 1)], 1)


@pytest.mark.xdist_group("Custom-joined")
@pytest.mark.parametrize("change", [no_scores, one_class_lost, rotated_classes])
def test_wrong_scores_are_detected_beside_pixel_boxes(change: Callable[[Array], Array]) -> None:
    model = load_joined()

    def run(image: Array) -> tuple[Array, ...]:
        return (change(model.module(torch.from_numpy(image))[0].detach().numpy()),)

    with pytest.raises(Failure, match="differs most") as caught:
        check(compare(model, run, eval_inputs("YOLOv8")[:4]), ARCHITECTURES["Custom"].thresholds[Precision.INT8])
    assert caught.value.reason is Reason.VERIFICATION_FAILED


@pytest.mark.xdist_group("Custom-joined")
def test_shared_scale_for_boxes_and_scores_fails_verification(tmp_path: Path) -> None:
    comparison = compare(load_joined(), quantise_joined(tmp_path), eval_inputs("YOLOv8")[:4])
    with pytest.raises(Failure, match=r"channel [456] of 7 in output_0 differs most"):
        check(comparison, ARCHITECTURES["Custom"].thresholds[Precision.INT8])


def test_outputs_match_program() -> None:
    model, network = load_network(), Network().eval()
    network.load_state_dict(make_weights(network.state_dict()))
    image = model.example_input()
    assert model.input_size == SIZE
    assert [output.axes for output in model.outputs] == [("unknown",) * 4, ("unknown",) * 2]
    for wanted, given in zip(network(image), model.module(image), strict=True):
        torch.testing.assert_close(given, wanted)


def test_integer_and_bool_outputs_become_float(tmp_path: Path) -> None:
    class Labels(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image.argmax(1), image > 0.5

    model = load(read_checkpoint(save(Labels(), tmp_path / "x.pt2")), ask("Custom"))
    assert {output.dtype for output in model.module(model.example_input())} == {torch.float32}


def test_dict_outputs_keep_their_order(tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": image + 1, "aux": image[:, :1]}

    model = load(read_checkpoint(save(Named(), tmp_path / "x.pt2")), ask("Custom"))
    image = model.example_input()
    first, second = model.module(image)
    torch.testing.assert_close(first, image + 1)
    torch.testing.assert_close(second, image[:, :1])


def test_attention_with_infinite_mask_converts(tmp_path: Path) -> None:
    network, image = Attention(), torch.rand(1, 3, 32, 32)
    model = load(read_checkpoint(save(network, tmp_path / "x.pt2", image)), ask("Custom"))
    torch.testing.assert_close(model.module(image), network(image))


def test_checkpoint_without_network_is_refused_with_remedy() -> None:
    assert "save the model with torch.export.save" in refuse(TRAINED["YOLOv8"].weights, "Custom")


def test_unknown_parameters_are_refused(tmp_path: Path) -> None:
    path = save(Network(), tmp_path / "x.pt2")
    assert "number of classes 3, the checkpoint has none that can be told" in refuse(path, "Custom", num_classes=3)
    assert "input size (64, 64), the checkpoint has (48, 64)" in refuse(path, "Custom", input_size=(64, 64))


def test_program_with_two_inputs_is_refused(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            return one + two

    path = save(Sum(), tmp_path / "x.pt2", torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    assert "expected one image (1, channels, height, width) of 1 (grey)" in refuse(path, "Custom")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_program_of_other_dtype_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    class Scale(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image / 255

    path = save(Scale(), tmp_path / "x.pt2", torch.ones(1, 3, 8, 8, dtype=dtype))
    assert f"it takes {dtype}, expected an image of torch.float32 in 0 to 1" in refuse(path, "Custom")


def test_scalar_output_is_refused(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean()

    assert "of one axis at least" in refuse(save(Mean(), tmp_path / "x.pt2"), "Custom")
