"""The cells of torchvision's trained detectors: layers that stay in float32, and wrong files that do not agree."""

from typing import Any

import numpy as np
import pytest

from modelexport.matrix.support import ARCHITECTURES, Format, Precision, Recipe
from modelexport_converter.backends import Array, Run, load_backend
from modelexport_converter.verification.agreement import compare
from trained.cells import eval_inputs, load_model, produce, recall, run_model
from trained.detector_cells import TRAINED
from trained.model import Outputs


def made_with(fmt: Format) -> list[Any]:
    """All architectures, each in the process that makes its files of a format."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-{fmt}")) for name in TRAINED]


def model_itself(architecture: str) -> Run:
    return lambda image: run_model(architecture, image)


def shift_boxes(run: Run) -> Run:
    """By two pixels of 160."""
    return lambda image: (run(image)[0] + np.float32(2 / 160), *run(image)[1:])


def swap_classes(run: Run) -> Run:
    def run_wrong(image: Array) -> Outputs:
        boxes, scores, labels, *rest = run(image)
        return boxes, scores, np.where(labels == 1, 2, np.where(labels == 2, 1, labels)).astype(np.float32), *rest

    return run_wrong


def lose_the_best(run: Run) -> Run:
    def run_wrong(image: Array) -> Outputs:
        boxes, scores, labels, count, *rest = run(image)
        shifted = (np.roll(values, -1, axis=1) for values in (boxes, scores, labels))
        return *shifted, np.maximum(count - 1, 0), *rest

    return run_wrong


def forget_division(run: Run) -> Run:
    """By a standard deviation that is too small by a fifth."""
    return lambda image: run(image * np.float32(1.25))


def images(architecture: str) -> tuple[Array, ...]:
    return eval_inputs(architecture)[:32]


@pytest.mark.parametrize("architecture", TRAINED)
def test_model_agrees_with_itself(architecture: str) -> None:
    found = compare(recall(architecture), model_itself(architecture), images(architecture)).value
    assert found == pytest.approx(1)


@pytest.mark.parametrize("spoil", [shift_boxes, swap_classes, lose_the_best, forget_division])
@pytest.mark.parametrize("architecture", TRAINED)
def test_wrong_files_do_not_agree(architecture: str, spoil: Any, record_property: Any) -> None:
    wrong = compare(recall(architecture), spoil(model_itself(architecture)), images(architecture)).value
    record_property("agreement", wrong)
    least = ARCHITECTURES[architecture].thresholds
    assert wrong < least[Precision.FP16].minimum
    assert wrong < least[Precision.INT8].minimum or spoil is forget_division


@pytest.mark.parametrize("architecture", made_with(Format.ONNX))
def test_onnx_float16_is_used_only_in_low_precision_modules(architecture: str) -> None:
    import onnx

    graph = onnx.load(produce(architecture, Format.ONNX, Recipe.FP16)).graph
    body = tuple(f"/{child}/" for child in load_model(architecture).low_precision_modules)
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    users = {node.name for node in graph.node if halves & set(node.input)}
    assert users
    assert all(name.startswith(body) for name in users)
    casts = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16]
    makers = {name: node.op_type for node in graph.node for name in node.output}
    # The image and the crops of feature maps; no box value goes back to half precision.
    regions = sum(node.op_type == "RoiAlign" for node in graph.node)
    assert [makers.get(node.input[0]) for node in casts].count("RoiAlign") == regions
    assert len(casts) == 1 + regions


@pytest.mark.parametrize(
    "recipe", [Recipe.FP16, pytest.param(Recipe.WEIGHT_ONLY_WI8_AFP16, marks=pytest.mark.all_cells)]
)
@pytest.mark.parametrize("architecture", made_with(Format.COREML))
def test_core_ml_float16_is_used_only_in_low_precision_modules(architecture: str, recipe: Recipe) -> None:
    facts = load_backend(Format.COREML).inspect(produce(architecture, Format.COREML, recipe))
    assert facts.weight_types["float32"] >= load_model(architecture).module.get_buffer("anchors").numel()
