"""The cells of torchvision's trained detectors: accuracy on 128 pictures, what stays in float32, and wrong files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from converter.detector_cells import (
    SIZE,
    WEIGHTS,
    eval_inputs,
    load_trained,
    measure,
    open_cell,
    produce,
    reference,
    run_model,
)
from converter.yolov8_cells import Outputs
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Precision, Scheme
from modelexport_converter.backends import Array, Run, load_backend
from modelexport_converter.inspection import check_facts
from modelexport_converter.verify import check, compare

MOST_LOST = {Precision.FP32: 0.0005, Precision.FP16: 0.003, Precision.INT8: 0.02}


def cells() -> Iterator[Any]:
    for architecture in WEIGHTS:
        for fmt, backend in BACKENDS.items():
            rows = [(Precision.FP32, Scheme.FP32), (Precision.FP16, Scheme.FP16)]
            rows += [(Precision.INT8, scheme) for scheme in dict.fromkeys((backend.data_free, backend.calibrated))]
            for precision, scheme in rows:
                mark = pytest.mark.xdist_group(f"{architecture}-{fmt}")
                yield pytest.param(
                    architecture, fmt, precision, scheme, marks=mark, id=f"{architecture}-{fmt}-{scheme}"
                )


def test_the_trained_models_have_learned_their_task() -> None:
    assert {name: reference(name) > 0.5 for name in WEIGHTS} == dict.fromkeys(WEIGHTS, True)


@pytest.mark.parametrize(("architecture", "fmt", "precision", "scheme"), list(cells()))
def test_a_cell_keeps_the_accuracy_of_the_model_and_passes_its_checks(
    architecture: str, fmt: Format, precision: Precision, scheme: Scheme, record_property: Any
) -> None:
    model, path = load_trained(architecture), produce(architecture, fmt, scheme)
    check_facts(load_backend(fmt).inspect(path), model, scheme)
    run, outputs = open_cell(architecture, fmt, scheme), list[Outputs]()

    def run_and_keep(image: Array) -> Outputs:
        outputs.append(run(image))
        return outputs[-1]

    comparison = compare(model, run_and_keep, eval_inputs(architecture))
    measured = measure(architecture, outputs)
    record_property("accuracy", measured)
    record_property("agreement", comparison.agreements)
    check(comparison, ARCHITECTURES[architecture].thresholds[precision])
    assert reference(architecture) - measured <= MOST_LOST[precision], (reference(architecture), measured)


def model_itself(architecture: str) -> Run:
    return lambda image: run_model(load_trained(architecture), image)


def shift_boxes(run: Run) -> Run:
    """By two pixels of 160."""
    return lambda image: (run(image)[0] + np.float32(2 / SIZE[0]), *run(image)[1:])


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


@pytest.mark.parametrize("spoil", [shift_boxes, swap_classes, lose_the_best, forget_division])
@pytest.mark.parametrize("architecture", WEIGHTS)
def test_wrong_files_do_not_agree(architecture: str, spoil: Any, record_property: Any) -> None:
    pictures = eval_inputs(architecture)[:32]
    right = compare(load_trained(architecture), model_itself(architecture), pictures).value
    wrong = compare(load_trained(architecture), spoil(model_itself(architecture)), pictures).value
    record_property("agreement", wrong)
    assert right == pytest.approx(1)
    least = ARCHITECTURES[architecture].thresholds
    assert wrong < least[Precision.FP16].minimum
    assert wrong < least[Precision.INT8].minimum or spoil is forget_division


@pytest.mark.parametrize("architecture", WEIGHTS)
@pytest.mark.xdist_group("MobileNet-ONNX")
def test_only_the_body_of_an_onnx_file_is_in_half_precision(architecture: str) -> None:
    import onnx

    graph = onnx.load(produce(architecture, Format.ONNX, Scheme.FP16)).graph
    body = tuple(f"/{child}/" for child in load_trained(architecture).body)
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    users = {node.name for node in graph.node if halves & set(node.input)}
    assert users
    assert all(name.startswith(body) for name in users)
    casts = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16]
    assert len(casts) == 1  # the picture; nothing of the boxes goes back to half precision


@pytest.mark.parametrize("architecture", WEIGHTS)
@pytest.mark.xdist_group("MobileNet-CoreML")
def test_only_the_body_of_a_core_ml_file_is_in_half_precision(architecture: str) -> None:
    facts = load_backend(Format.COREML).inspect(produce(architecture, Format.COREML, Scheme.FP16))
    assert facts.weight_types["float32"] >= load_trained(architecture).module.anchors.numel()
