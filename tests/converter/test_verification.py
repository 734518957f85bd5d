"""Verification: the measure of agreement; correct files reach the threshold and known-bad files do not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modelexport.api.reasons import Reason
from modelexport.matrix.support import ARCHITECTURES, Precision, Recipe, Threshold
from modelexport_converter.backends import Array, FileContents
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import prepare
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.verification.agreement import METRIC, UNKNOWN, check, compare, require_informative
from modelexport_converter.verification.inspection import check_facts
from trained.cells import TRAINED, eval_inputs, inputs, load_model, run_model
from trained.model import Outputs

IMAGES = [np.full((1, 3, 2, 2), value, np.float32) for value in (0.0, 1.0, 2.0)]
Change = Callable[[str, Array], Outputs]


def model_of(*outputs: tuple[str, tuple[str, ...], Array]) -> LoadedModel:
    """A model that answers the mean of its image times the given arrays."""

    class Scaled(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(image.mean() * torch.from_numpy(array) for _, _, array in outputs)

    described = tuple(Output(name, axes, "") for name, axes, _ in outputs)
    return LoadedModel(Scaled(), (2, 2), described, ("a",), Preprocessing("letterbox"))


POSITIONS = ("positions", ("batch", "coordinate", "anchor"), np.array([[[0, 1, 2, 3]]], np.float32))
CONFIDENCE = ("scores", ("batch", "class", "anchor"), np.array([[[0, 0, 1, 1]]], np.float32))


def run_of(model: LoadedModel, *errors: float | Array) -> Callable[[Array], Outputs]:
    def run(image: Array) -> Outputs:
        outputs = model.module(torch.from_numpy(image))
        return tuple(output.numpy() + np.float32(error) for output, error in zip(outputs, errors, strict=True))

    return run


def test_equal_outputs_have_agreement_one() -> None:
    model = model_of(POSITIONS)
    assert compare(model, run_of(model, 0), IMAGES).agreements == {"positions": 1.0}


def stumbling(model: LoadedModel, *at: int) -> Callable[[Array], Outputs]:
    """A file with wrong outputs for some of the images, counted from 0."""
    answers = iter(range(100))
    right, wrong = run_of(model, 0), run_of(model, 5)

    def run(image: Array) -> Outputs:
        return wrong(image) if next(answers) in at else right(image)

    return run


def test_first_images_suffice_when_they_agree() -> None:
    model, images = model_of(POSITIONS), IMAGES * 4
    assert compare(model, stumbling(model, 11), images, first=3, enough=0.9).images == 3
    assert compare(model, stumbling(model, 11), images).images == 12


def test_failing_first_images_are_followed_by_all_images() -> None:
    model, images = model_of(POSITIONS), IMAGES * 21
    once, often = stumbling(model, 1), stumbling(model, *range(1, 63, 3))
    assert compare(model, stumbling(model, 1), images[:3], enough=0.5).value < 0
    found = [compare(model, run, images, first=3, enough=0.5) for run in (once, often)]
    assert [comparison.images for comparison in found] == [63, 63]
    assert found[0].value > 0.5
    assert found[1].value < 0


def test_images_with_nothing_to_compare_are_followed_by_others() -> None:
    model = model_of(POSITIONS, CONFIDENCE)
    images = [IMAGES[0], IMAGES[0], IMAGES[1]]
    assert compare(model, run_of(model, 0, 0), images, first=2, enough=0.9).images == 3


def test_uninformative_images_are_followed_by_others() -> None:
    model = model_of(POSITIONS, CONFIDENCE)
    dark, bright = np.full((1, 3, 2, 2), 0.2, np.float32), np.full((1, 3, 2, 2), 0.3, np.float32)
    found = compare(model, run_of(model, 0, 0), [dark, dark, bright, dark, bright, bright], first=2, enough=0.9)
    assert (found.images, found.informative) == (5, 2)


def test_failing_file_is_judged_again_only_at_end() -> None:
    model, images = model_of(POSITIONS), IMAGES * 4
    found = compare(model, stumbling(model, 1), images, first=3, enough=0.5)
    assert (found.images, found.informative) == (12, 9)


def evidence(output: tuple[str, tuple[str, ...], Array], *answers: Sequence[Any]) -> int:
    """The number of images on which these outputs are informative."""
    values = iter(np.array(answer, np.float32)[None] for answer in answers)

    class Answering(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.from_numpy(next(values)),)

    model = replace(model_of(output), module=Answering())
    same = iter(np.array(answer, np.float32)[None] for answer in answers)
    return compare(model, lambda _: (next(same),), [IMAGES[0]] * len(answers)).informative


SCORES = ("scores", ("batch", "class", "anchor"), np.zeros((1, 2, 2)))
CLASSES = ("probabilities", ("batch", "class"), np.zeros((1, 3)))
PIXELS = ("probabilities", ("batch", "class", "row", "column"), np.zeros((1, 2, 1, 2)))
UNKNOWNS = ("output_0", (UNKNOWN,) * 3, np.zeros((1, 2, 2)))


@pytest.mark.parametrize(
    ("output", "answers", "expected"),
    [
        (SCORES, [[[0.2, 0], [0, 0.1]], [[0.26, 0], [0, 0]], [[0, 0], [0, 0.9]]], 2),
        (SCORES, [[[0.24, 0], [0, 0]]] * 3, 0),
        (CLASSES, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], 3),
        (CLASSES, [[0.9, 0.05, 0.05], [0.91, 0.05, 0.04], [0.89, 0.06, 0.05]], 0),
        (CLASSES, [[1, 0, 0]] * 9 + [[0, 1, 0]], 10),
        (CLASSES, [[1, 0, 0]] * 99 + [[0, 1, 0]], 1),
        (CLASSES, [[1, 0, 0]], 0),
        (PIXELS, [[[[1, 1]], [[0, 0]]]] * 3, 0),
        (PIXELS, [[[[1, 0.1]], [[0, 0.9]]]], 1),
        (PIXELS, [[[[1, 1]], [[0, 0]]], [[[0, 0]], [[1, 1]]]], 2),
        (("probabilities", PIXELS[1], PIXELS[2][:, :1]), [[[[0.1, 0.1]]], [[[0.12, 0.1]]]], 0),
        (("probabilities", PIXELS[1], PIXELS[2][:, :1]), [[[[0.1, 0.7]]], [[[0.1, 0.1]]]], 2),
        (UNKNOWNS, [[[1, 2], [3, 4]]] * 3, 0),
        (UNKNOWNS, [[[1, 2], [3, 4]], [[1, 2], [3, 4.001]]], 0),
        (UNKNOWNS, [[[1, 2], [3, 4]], [[1, 2], [3, 4]], [[1, 2], [3, 5]]], 2),
        (UNKNOWNS, [[[100, 200, 300], [0, 0, 0]], [[100, 200, 300], [0, 0, 1e-3]]], 2),
        (POSITIONS, [[[0, 1, 2, 3]], [[0, 1, 2, 4]]], 2),
        (POSITIONS, [[[0, 1, 2, 3]]] * 2, 0),
    ],
)
def test_image_is_informative_when_model_detects_something(
    output: tuple[str, tuple[str, ...], Array], answers: list[Any], expected: int
) -> None:
    assert evidence(output, *answers) == expected


def test_no_informative_image_is_refused_with_model_output() -> None:
    model = scores_up_to(0.2)
    comparison = compare(model, run_of(model, 0), IMAGES)
    assert (comparison.informative, comparison.value) == (0, 1)
    found = r"detects nothing with a score of 0.25 .* \(3 different ones, the model's highest score on them is 0.2\)"
    with pytest.raises(Failure, match=found) as caught:
        require_informative(comparison)
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    model = scores_up_to(0.3)
    require_informative(compare(model, run_of(model, 0), IMAGES))


NOTHING_SEEN = {
    "black": [Image.new("RGB", size) for size in ((160, 160), (320, 240), (100, 300))],
    "of one colour": [Image.new("RGB", (200, 160), colour) for colour in ("white", "red", (114, 114, 114))],
    "dark": [Image.fromarray(np.random.default_rng(i).integers(0, 5, (160, 200, 3), np.uint8)) for i in range(3)],
}


@pytest.mark.parametrize("kind", NOTHING_SEEN)
@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-CLS", "UNet", "MobileNet"])
def test_trained_models_detect_nothing_in_empty_images(architecture: str, kind: str) -> None:
    model = load_model(architecture)
    images = [prepare(image, model.preprocessing, model.input_size) for image in NOTHING_SEEN[kind]]
    seen = [*eval_inputs(architecture)[:3]]
    run = lambda image: run_model(architecture, image)  # noqa: E731
    assert compare(model, run, seen).informative == 3
    assert compare(model, run, images).informative == 0


def test_constant_output_does_not_agree() -> None:
    model = model_of(POSITIONS)
    average = np.float32(np.mean([np.mean(POSITIONS[2]) * value for value in (0, 1, 2)]))
    answer = (np.full((1, 1, 4), average, np.float32),)
    assert compare(model, lambda image: answer, IMAGES).value == pytest.approx(0, abs=1e-6)


def test_agreement_is_error_relative_to_spread() -> None:
    model = model_of(POSITIONS)
    values = np.concatenate([POSITIONS[2].ravel() * value for value in (0, 1, 2)])
    expected = 1 - 0.25 / values.std()
    assert compare(model, run_of(model, 0.25), IMAGES).value == pytest.approx(expected, abs=1e-6)


def test_error_outside_objects_does_not_count() -> None:
    model = model_of(POSITIONS, CONFIDENCE)
    unseen, seen = np.array([[[9, 9, 0, 0]]]), np.array([[[0, 0, 9, 9]]])
    assert compare(model, run_of(model, unseen, 0), IMAGES).agreements["positions"] == 1
    assert compare(model, run_of(model, seen, 0), IMAGES).agreements["positions"] < 0


def scores_up_to(highest: float) -> LoadedModel:
    """A model that scores one of four anchors, highest on the last of three images."""
    return model_of(("scores", CONFIDENCE[1], np.array([[[0, 0, 0, highest / 2]]], np.float32)))


def test_low_scores_are_measured_against_one_certain_score() -> None:
    model = scores_up_to(0.4)
    assert compare(model, run_of(model, 0.01), IMAGES).value == pytest.approx(1 - 0.02)


def test_low_score_errors_weigh_quarter_as_much() -> None:
    model = scores_up_to(2e-4)
    correct = compare(model, run_of(model, np.array([[[0, 0, 0, 1e-5]]])), IMAGES)
    assert correct.value == pytest.approx(1 - np.sqrt(3e-10 / 5e-8) / 4, abs=1e-6)
    assert compare(model, run_of(model, 0), IMAGES).value == 1


@pytest.mark.parametrize(("error", "equal"), [(5e-8, True), (1e-6, False)])
def test_low_scores_may_differ_by_one_rounding_step(error: float, equal: bool) -> None:
    model = scores_up_to(2e-4)
    assert (compare(model, run_of(model, np.array([[[0, 0, 0, error]]])), IMAGES[1:]).value == 1) is equal


@pytest.mark.parametrize("highest", [1e-7, 1e-6, 2e-4, 0.05, 0.3, 1.0])
def test_file_without_scores_fails_every_threshold(highest: float) -> None:
    model = scores_up_to(highest)
    comparison = compare(model, lambda image: (np.zeros((1, 1, 4), np.float32),), IMAGES)
    for row in ARCHITECTURES.values():
        for threshold in row.thresholds.values():
            with pytest.raises(Failure, match=f"the model's highest score on them is {highest:.2g}"):
                check(comparison, threshold)


def test_all_zero_scores_verify_nothing() -> None:
    model = scores_up_to(0)
    with pytest.raises(Failure, match="scores are 0 everywhere on 3 images, so that nothing") as caught:
        compare(model, run_of(model, 0), IMAGES)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_wrong_pixels_count_by_area() -> None:
    sure = np.zeros((1, 2, 4, 4), np.float32)
    sure[0, 0] = 1
    model = model_of(("probabilities", ("batch", "class", "row", "column"), sure))
    wrong = np.zeros_like(sure)
    wrong[0, :, 0, :2] = [[-1], [1]]
    images = [np.ones((1, 3, 4, 4), np.float32)]
    assert compare(model, run_of(model, 0), images).value == 1
    assert compare(model, run_of(model, wrong), images).value == pytest.approx(1 - np.sqrt(2 * 2 / 16))


def test_worst_output_decides_agreement() -> None:
    model = model_of(POSITIONS, CONFIDENCE)
    comparison = compare(model, run_of(model, 0, 0.5), IMAGES)
    assert comparison.value == comparison.agreements["scores"] < comparison.agreements["positions"] == 1


def test_constant_output_must_be_equal() -> None:
    constant = ("positions", POSITIONS[1], np.zeros((1, 1, 4), np.float32))
    model = model_of(constant)
    assert compare(model, run_of(model, 0), IMAGES).value == 1
    assert compare(model, run_of(model, 1e-3), IMAGES).value == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_fail(bad: float) -> None:
    model = model_of(POSITIONS)
    message = "file's output positions holds 1 values that are NaN or infinite, the model's none; choose a higher"
    with pytest.raises(Failure, match=message) as caught:
        compare(model, run_of(model, np.array([[[0, bad, 0, 0]]])), IMAGES)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_non_finite_reference_is_distinguished_from_wrong_file() -> None:
    model = model_of(("positions", POSITIONS[1], np.full((1, 1, 4), np.inf, np.float32)))
    with pytest.raises(Failure, match="model's own output positions holds 4 values that are NaN or infinite; correct"):
        compare(model, run_of(model, 0), IMAGES)


def test_shape_mismatch_fails_with_both_shapes() -> None:
    model = model_of(POSITIONS)
    with pytest.raises(Failure, match=r"shape \(1, 1, 3\) instead of \(1, 1, 4\)"):
        compare(model, lambda image: (np.zeros((1, 1, 3), np.float32),), IMAGES)


def test_nothing_is_verified_without_images() -> None:
    model = model_of(POSITIONS)
    with pytest.raises(ValueError, match="no images"):
        compare(model, run_of(model, 0), [])


def unknown(values: Array) -> LoadedModel:
    return model_of(("output_0", (UNKNOWN,) * values.ndim, values.astype(np.float32)))


def joined(classes: int, anchors: int = 400, highest: float = 0.9) -> Array:
    """Boxes in pixels and, for each class, two scores among many that are nearly 0."""
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, highest * 1e-3, (classes, anchors))
    scores[np.arange(classes), np.arange(classes) * 2] = scores[np.arange(classes), np.arange(classes) * 2 + 1] = (
        highest
    )
    return np.concatenate([generator.uniform(0, 300, (4, anchors)), scores])[None]


def without(values: Array, channels: slice) -> Array:
    changed = values.copy()
    changed[:, channels] = 0
    return changed


LENIENT = Threshold(METRIC, min(row.thresholds[Precision.INT8].minimum for row in ARCHITECTURES.values()))
UNITS = [np.full((1, 3, 2, 2), value, np.float32) for value in (0.9, 1.0)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("classes", "highest"), [(1, 0.9), (80, 0.9), (80, 2e-4)])
def test_lost_channel_is_not_averaged_away(classes: int, highest: float, transposed: bool) -> None:
    values = joined(classes, highest=highest)
    changes = [values, values * (1 + 5e-4), without(values, slice(-1, None)), without(values, slice(4, None))]
    model, *files = (unknown(change.swapaxes(1, 2) if transposed else change) for change in changes)
    agreements = [compare(model, run_of(file, 0), UNITS).value for file in files]
    assert agreements[0] > ARCHITECTURES["Custom"].thresholds[Precision.FP16].minimum
    assert max(agreements[1:]) <= 0.75 + 1e-6 < LENIENT.minimum


def test_worst_channel_is_named() -> None:
    values = joined(80)
    comparison = compare(unknown(values), run_of(unknown(without(values, slice(20, 21))), 0), UNITS)
    with pytest.raises(Failure, match=r"\(channel 20 of 84 in output_0 differs most, by 1 of its spread\)"):
        check(comparison, LENIENT)


def test_low_scores_of_many_classes_tolerate_int8_rounding() -> None:
    values = joined(80, highest=0.01)
    blurred = values * np.where(np.arange(84) < 4, 1, np.tile([0.7, 1.3], 42))[:, None]
    assert compare(unknown(values), run_of(unknown(blurred), 0), UNITS).value > 0.9


@pytest.mark.parametrize("constant", [0.0, 1e-7, 1.0003, 40.01])
def test_nearly_constant_channel_passes_in_half_precision(constant: float) -> None:
    values = joined(3)
    values[:, 5] = constant * (1 + np.random.default_rng(1).uniform(0, 1e-6, values.shape[2]))
    file = unknown(values)
    comparison = compare(
        file, lambda image: tuple(x.astype(np.float16).astype(np.float32) for x in run_of(file, 0)(image)), UNITS
    )
    check(comparison, ARCHITECTURES["Custom"].thresholds[Precision.FP16])


def test_tiny_output_is_measured_by_its_own_scale() -> None:
    values = joined(3)[:, 4:] * 1e-8
    assert compare(unknown(values), run_of(unknown(values), 0), UNITS).value == 1
    assert compare(unknown(values), run_of(unknown(values * 0), 0), UNITS).value <= 0.75


@pytest.mark.parametrize(
    ("shape", "lost", "counted"),
    [
        ((1, 7, 50), np.s_[:, 2], True),
        ((1, 50, 7), np.s_[:, :, 2], True),
        ((7, 50), np.s_[2], True),
        ((1, 7, 6, 6), np.s_[:, 2], True),
        ((1, 6, 6, 7), np.s_[..., 2], True),
        ((1, 3, 6, 6, 7), np.s_[..., 2], True),
        ((1, 6, 6), np.s_[:, 2], False),
        ((1, 40), np.s_[:, 2], False),
    ],
)
def test_channel_axis_is_found_by_shape(shape: tuple[int, ...], lost: Any, counted: bool) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    changed = values.copy()
    changed[lost] = values[lost].mean()
    comparison = compare(unknown(values), run_of(unknown(changed), 0), UNITS[1:])
    assert ("channel 2 of 7 in output_0 differs most, by 1 of" in comparison.remark) is counted


def test_agreeing_file_is_verified_with_its_numbers() -> None:
    model = model_of(POSITIONS)
    verification = check(compare(model, run_of(model, 0), IMAGES), Threshold(METRIC, 0.99))
    assert (verification.metric, verification.value, verification.threshold) == (METRIC, "1.000000", "0.99")


def test_deviating_file_fails_with_all_numbers() -> None:
    model = model_of(POSITIONS, CONFIDENCE)
    with pytest.raises(Failure, match=r"positions 1\.0000, scores 0\.\d{4}, at least 0\.99 is required") as caught:
        check(compare(model, run_of(model, 0, 0.1), IMAGES), Threshold(METRIC, 0.99))
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert caught.value.verification is not None


def test_threshold_of_other_metric_is_ignored() -> None:
    model = model_of(POSITIONS)
    with pytest.raises(ValueError, match="cosine"):
        check(compare(model, run_of(model, 0), IMAGES), Threshold("cosine", 0.5))


def test_every_cell_requires_measured_metric() -> None:
    metrics = {threshold.metric for row in ARCHITECTURES.values() for threshold in row.thresholds.values()}
    assert metrics == {METRIC}


def no_division(architecture: str, image: Array) -> Outputs:
    return run_model(architecture, image * 255)


def divided_twice(architecture: str, image: Array) -> Outputs:
    return run_model(architecture, image / np.float32(255))


def dimmed(architecture: str, image: Array) -> Outputs:
    return run_model(architecture, image * np.float32(0.9))


def swapped_channels(architecture: str, image: Array) -> Outputs:
    return run_model(architecture, np.ascontiguousarray(image[:, ::-1]))


def rotated_classes(architecture: str, image: Array) -> Outputs:
    outputs = list(run_model(architecture, image))
    index = 0 if len(outputs) == 1 else 1
    outputs[index] = np.roll(outputs[index], 1, axis=1)
    return tuple(outputs)


def _change_boxes(architecture: str, image: Array, change: Callable[[Array], Array]) -> Outputs:
    boxes, *rest = run_model(architecture, image)
    return (change(boxes), *rest)


def boxes_in_pixels(architecture: str, image: Array) -> Outputs:
    return _change_boxes(architecture, image, lambda boxes: boxes * 160)


def boxes_by_corners(architecture: str, image: Array) -> Outputs:
    def corners(boxes: Array) -> Array:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate([centre - half, centre + half], axis=1)

    return _change_boxes(architecture, image, corners)


def upright_boxes(architecture: str, image: Array) -> Outputs:
    boxes, scores, angles = run_model(architecture, image)
    return boxes, scores, np.zeros_like(angles)


def angles_in_degrees(architecture: str, image: Array) -> Outputs:
    boxes, scores, angles = run_model(architecture, image)
    return boxes, scores, np.degrees(angles)


def angles_counterclockwise(architecture: str, image: Array) -> Outputs:
    boxes, scores, angles = run_model(architecture, image)
    return boxes, scores, -angles


def boxes_four_pixels_off(architecture: str, image: Array) -> Outputs:
    return _change_boxes(architecture, image, lambda boxes: boxes - np.float32(4))


def boxes_half_a_cell_off(architecture: str, image: Array) -> Outputs:
    return _change_boxes(architecture, image, lambda boxes: boxes - np.float32(0.5 * 8 / 160))


def logits_for_scores(architecture: str, image: Array) -> Outputs:
    boxes, scores, *rest = run_model(architecture, image)
    return (boxes, np.log(scores / (1 - scores)), *rest)


def one_noisy_convolution(architecture: str, image: Array) -> Outputs:
    """Add noise of a fifth of its weights' spread to the first convolution, as a wrong scale would."""
    weight = next(weight for weight in load_model(architecture).module.parameters() if weight.ndim == 4)
    noise = 0.2 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight.data += noise
    try:
        return run_model(architecture, image)
    finally:
        weight.data -= noise


ALWAYS_WRONG = [no_division, divided_twice, rotated_classes]
NOISE_SEEN = {
    **dict.fromkeys(
        ("FasterRCNN", "RetinaResNet", "MobileNet", "MaskRCNN", "DeepLabV3", "FCN", "UNet"), Precision.FP16
    ),
    "YOLO26-CLS": Precision.W8A16,
}
"""Where noise in one convolution does no more than correct quantisation to 8 bits may: it agrees by .89 to .985."""
WRONG_OUTPUTS = [boxes_in_pixels, boxes_by_corners, logits_for_scores]
WRONG_ANGLES = [upright_boxes, angles_in_degrees, angles_counterclockwise]
ORIENTED = ("YOLOv8-OBB", "YOLO11-OBB", "YOLO26-OBB")
DETECTORS = (
    *("YOLOv8", "YOLO11", "YOLO26", "YOLOv8-SEG", "YOLO11-SEG", "YOLO26-SEG"),
    *("YOLOv8-Pose", "YOLO11-Pose", "YOLO26-Pose"),
)
WRONG = [
    *((name, change, Precision.INT8) for name in TRAINED for change in ALWAYS_WRONG),
    *((name, one_noisy_convolution, NOISE_SEEN.get(name, Precision.INT8)) for name in TRAINED),
    *((name, change, Precision.INT8) for name in DETECTORS for change in WRONG_OUTPUTS),
    *((name, boxes_half_a_cell_off, Precision.FP16) for name in DETECTORS),
    *((name, swapped_channels, Precision.FP16) for name in DETECTORS),
    *((name, dimmed, Precision.FP32) for name in DETECTORS),
    *((name, swapped_channels, Precision.FP32) for name in ("YOLOv8-CLS", "YOLO11-CLS", "YOLO26-CLS")),
    *((name, change, Precision.INT8) for name in ORIENTED for change in (*WRONG_OUTPUTS, *WRONG_ANGLES)),
    *((name, change, Precision.FP16) for name in ORIENTED for change in (boxes_four_pixels_off, swapped_channels)),
    *((name, dimmed, Precision.FP32) for name in ORIENTED),
    *(("YOLOX", change, Precision.INT8) for change in (*WRONG_OUTPUTS, boxes_half_a_cell_off, swapped_channels)),
    ("YOLOX", dimmed, Precision.FP16),
]
"""With the loosest precision at which each is caught; a tighter one catches it all the more."""


@pytest.mark.parametrize(("architecture", "change", "precision"), WRONG)
def test_wrong_file_is_not_verified(architecture: str, change: Change, precision: Precision) -> None:
    run = lambda image: change(architecture, image)  # noqa: E731
    threshold, images = ARCHITECTURES[architecture].thresholds[precision], eval_inputs(architecture)[:16]
    with pytest.raises(Failure) as caught:
        check(compare(load_model(architecture), run, images), threshold)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_shared_scale_for_boxes_and_scores_fails_verification(tmp_path: Path) -> None:
    """The known-bad recipe: all operators in INT8, boxes in pixels joined with the scores, as ultralytics does."""
    run = quantise_joined(tmp_path)

    def split(image: Array) -> Outputs:
        joined = run(image)[0]
        return joined[:, :4] / np.float32(160), joined[:, 4:]

    comparison = compare(load_model("YOLOv8"), split, eval_inputs("YOLOv8")[:16])
    with pytest.raises(Failure, match="scores"):
        check(comparison, ARCHITECTURES["YOLOv8"].thresholds[Precision.INT8])


def quantise_joined(folder: Path) -> Callable[[Array], Outputs]:
    """Quantise by that recipe; the file has one output."""
    import onnxruntime
    from onnxruntime import quantization

    from modelexport_converter.backends import onnx as backend

    model = load_model("YOLOv8")

    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.module

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            boxes, scores = self.network(image)
            return (torch.cat([boxes * 160, scores], 1),)

    joined = replace(model, module=Joined().eval(), outputs=(Output("output", ("batch", "row", "anchor"), ""),))
    backend.convert(joined, Recipe.FP32, folder / "joined.onnx")
    reader = backend._Reader("image", inputs("YOLOv8", "calibration", 8))
    quantization.quantize_static(
        folder / "joined.onnx", folder / "int8.onnx", reader, activation_type=quantization.QuantType.QUInt8
    )
    session = onnxruntime.InferenceSession(folder / "int8.onnx")
    return lambda image: tuple(session.run(None, {"image": image}))


FACTS = FileContents(
    weight_types={"float32": 1000},
    op_types={"Conv": 1},
    inputs={"image": (1, 3, 2, 2)},
    outputs={"scores": (1, 1, 4)},
)


class Weighted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(10, 100))
        self.bias = torch.nn.Parameter(torch.zeros(10))


WEIGHTED = replace(model_of(CONFIDENCE), module=Weighted())
STORED = {
    Recipe.FP32: "float32",
    Recipe.FP16: "float16",
    Recipe.DYNAMIC_WI8_AFP32: "uint8",
    Recipe.WEIGHT_ONLY_WI8_AFP16: "int8",
    Recipe.WEIGHT_ONLY_WI8_AFP32: "int8",
    Recipe.STATIC_WI8_AI8: "int8",
    Recipe.STATIC_WI8_AI16: "int8",
}
COMPUTED = {Recipe.STATIC_WI8_AI8: {"uint8": 9}, Recipe.STATIC_WI8_AI16: {"uint16": 9}}


@pytest.mark.parametrize("recipe", Recipe)
def test_file_storing_recipe_precision_is_accepted(recipe: Recipe) -> None:
    facts = replace(FACTS, weight_types={STORED[recipe]: 990, "float32": 20})
    facts = replace(facts, activation_types=COMPUTED.get(recipe, {}))
    if recipe is Recipe.FP32:
        facts = FACTS
    check_facts(facts, WEIGHTED, recipe)


@pytest.mark.parametrize("recipe", [recipe for recipe in Recipe if recipe is not Recipe.FP32])
def test_file_holding_floats_fails_smaller_precision(recipe: Recipe) -> None:
    facts = replace(FACTS, weight_types={"float32": 200, STORED[recipe]: 800})
    facts = replace(facts, activation_types=COMPUTED.get(recipe, {}))
    with pytest.raises(Failure, match="800 of 1000 weights are stored as") as caught:
        check_facts(facts, WEIGHTED, recipe)
    assert caught.value.reason is Reason.INSPECTION_FAILED


@pytest.mark.parametrize("recipe", COMPUTED)
def test_static_recipe_requires_quantised_activations(recipe: Recipe) -> None:
    facts = replace(FACTS, weight_types={"int8": 1000})
    with pytest.raises(Failure, match="activations are not quantised"):
        check_facts(facts, WEIGHTED, recipe)


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        (Recipe.STATIC_WI8_AI16, {"int8": 9}),
        (Recipe.STATIC_WI8_AI16, {"int16": 9, "int8": 1}),
        (Recipe.STATIC_WI8_AI8, {"int16": 9}),
    ],
)
def test_activations_of_other_width_are_refused(recipe: Recipe, found: dict[str, int]) -> None:
    facts = replace(FACTS, weight_types={"int8": 1000}, activation_types=found)
    with pytest.raises(Failure, match=f"activations are not all stored as .*: {found}"):
        check_facts(facts, WEIGHTED, recipe)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (replace(FACTS, inputs={"args_0": (1, 3, 2, 2)}), "args_0"),
        (replace(FACTS, inputs={"image": (1, 2, 2, 3)}), r"\(1, 2, 2, 3\)} instead"),
        (replace(FACTS, outputs={"output_0": (1, 1, 4)}), "output_0 instead of scores"),
        (replace(FACTS, outputs={"scores": (1, 4)}), r"shape \(1, 4\) for the axes batch, class, anchor"),
        (replace(FACTS, outputs={"scores": (0, 1, 4)}), r"shape \(0, 1, 4\)"),
    ],
)
def test_other_inputs_and_outputs_are_refused_by_name(facts: FileContents, named: str) -> None:
    with pytest.raises(Failure, match=named) as caught:
        check_facts(facts, WEIGHTED, Recipe.FP32)
    assert caught.value.reason is Reason.INSPECTION_FAILED
