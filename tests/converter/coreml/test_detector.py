"""Detectors: suppression as Core ML defines it, and damaged pipelines."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.coreml.building import edit_specification
from converter.test_options import HEIGHT, WIDTH, build_detector
from modelexport.matrix.support import Format, Recipe
from modelexport_converter.architectures.suppression import suppress_boxes
from modelexport_converter.backends import load_backend
from modelexport_converter.coreml import Detector, InputMismatch, ProgramError, detector, load_model, load_program
from modelexport_converter.coreml.detector import suppress

_BOXES = np.array(
    [[0.2, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.52, 0.5, 0.2, 0.2], [0.5, 0.52, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]],
    np.float32,
)
_CONFIDENCE = np.array([[0.5, 0], [0.6, 0], [0, 0.9], [0.25, 0], [0.6, 0]], np.float32)
"""The second and the last box are equal; the third overlaps them and is of another class."""


@pytest.mark.parametrize(
    ("per_class", "iou", "least", "kept"),
    [
        pytest.param(True, 0.7, 0.25, [2, 1, 0], id="within a class"),
        pytest.param(False, 0.7, 0.25, [2, 0, 3], id="among all classes"),
        pytest.param(True, 0.85, 0.25, [2, 1, 0, 3], id="more overlap"),
        pytest.param(True, 1.0, 0.25, [2, 1, 4, 0, 3], id="any overlap"),
        pytest.param(True, 1.0, 0.26, [2, 1, 4, 0], id="a higher confidence"),
        pytest.param(True, 0.7, 0.95, [], id="a confidence that no box has"),
    ],
)
def test_best_boxes_suppress_others(per_class: bool, iou: float, least: float, kept: list[int]) -> None:
    assert suppress(_CONFIDENCE, _BOXES, iou, least, per_class=per_class).tolist() == kept


def test_boxes_without_area_suppress_none() -> None:
    boxes = np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
    assert suppress(_CONFIDENCE[:2], boxes, 0, 0.1, per_class=True).tolist() == [1, 0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "detector.mlpackage"
    load_backend(Format.COREML).convert(suppress_boxes(build_detector(), Format.COREML), Recipe.FP32, path)
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved package, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / saved.name))


@pytest.mark.parametrize(
    ("name", "value"), [("iouThreshold", 1.5), ("iouThreshold", -0.1), ("confidenceThreshold", np.nan)]
)
def test_thresholds_out_of_range_are_refused(name: str, value: float, saved: Path) -> None:
    model = load_model(saved)
    assert isinstance(model, Detector)
    image = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    with pytest.raises(InputMismatch, match=f"the threshold {name} of detector.mlpackage is"):
        model.run({"image": image, name: np.array(value)})


def test_detector_is_no_program_alone(saved: Path) -> None:
    with pytest.raises(ProgramError, match="is a detector, not an ML program alone"):
        load_program(saved)


def test_too_many_boxes_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "MOST_BOXES", 383)
    with pytest.raises(ProgramError, match="its program gives"):
        load_model(saved)


def _suppression(model: Any) -> Any:
    return model.pipeline.models[1].nonMaximumSuppression


def _nest(model: Any) -> None:
    inner = type(model).FromString(model.SerializeToString())
    del model.pipeline.models[:]
    model.pipeline.models.add().CopyFrom(inner)


def _number_the_classes(model: Any) -> None:
    _suppression(model).int64ClassLabels.vector.extend(range(80))


def _swap_the_inputs(model: Any) -> None:
    own = _suppression(model)
    own.confidenceInputFeatureName, own.coordinatesInputFeatureName = "raw_coordinates", "raw_confidence"


def _limit_the_rows(model: Any) -> None:
    sizes = model.pipeline.models[1].description.output[0].type.multiArrayType.shapeRange.sizeRanges
    sizes[0].upperBound = 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda m: m.pipeline.models.pop(), "is a pipeline of mlProgram, not", id="one model"),
        pytest.param(lambda m: m.pipeline.models.reverse(), "is a pipeline of nonMaximumSuppression, mlP", id="order"),
        pytest.param(_nest, "is a pipeline of pipeline, not", id="a pipeline in it"),
        pytest.param(lambda m: m.pipeline.ClearField("models"), "is a pipeline of nothing", id="no model"),
        pytest.param(lambda m: _suppression(m).ClearField("pickTop"), "has no method", id="no method"),
        pytest.param(_number_the_classes, "no texts as class labels", id="classes by number"),
        pytest.param(lambda m: _suppression(m).stringClassLabels.vector.pop(), "with 79 labels", id="fewer labels"),
        pytest.param(_swap_the_inputs, "with 80 labels, its program gives", id="inputs of other shapes"),
        pytest.param(_limit_the_rows, "limits the rows of its output 'confidence'", id="a limit of boxes"),
        pytest.param(lambda m: setattr(_suppression(m), "iouThreshold", 2), "iouThreshold of .* is 2", id="overlap"),
        pytest.param(
            lambda m: setattr(_suppression(m), "confidenceThreshold", -1), "Threshold of .* is -1", id="confidence"
        ),
        pytest.param(
            lambda m: setattr(_suppression(m), "coordinatesInputFeatureName", "x"), "suppresses .*'x'", id="a name"
        ),
    ],
)
def test_damaged_pipeline_is_refused(damage: Callable[[Any], None], message: str, package: Path) -> None:
    edit_specification(package, damage)
    with pytest.raises(ProgramError, match=message):
        load_model(package)
