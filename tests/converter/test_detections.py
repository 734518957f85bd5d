"""Agreement of padded detections: right detections reach 1 in any order, wrong ones do not."""

import numpy as np
import pytest

from modelexport.api.reasons import Reason
from modelexport_converter.architectures.torchvision.detectors import _BOXES, _COUNT, _LABELS, _MASKS, _SCORES
from modelexport_converter.backends import Array
from modelexport_converter.failures import Failure
from modelexport_converter.verification.detections import DetectionSums

OUTPUTS = (_BOXES, _SCORES, _LABELS, _COUNT)
INPUT_SIZE = (100, 200)
Answer = tuple[Array, ...]


def answer(*rows: tuple[float, float, float, float, float, float]) -> Answer:
    """Detections (left, top, right, bottom, score, label), padded to eight."""
    table = np.zeros((8, 6), np.float32)
    table[: len(rows)] = np.array(rows, np.float32).reshape(-1, 6)
    return table[None, :, :4], table[None, :, 4], table[None, :, 5], np.array([len(rows)], np.float32)


ONE, TWO, FAINT = (0.1, 0.1, 0.3, 0.3, 0.9, 1), (0.5, 0.5, 0.9, 0.9, 0.8, 2), (0.1, 0.6, 0.3, 0.9, 0.05, 1)


def agree(expected: Answer, found: Answer) -> float:
    sums = DetectionSums(OUTPUTS, INPUT_SIZE)
    sums.add(expected, found)
    return sums.agreements()["detections"]


def test_detections_agree_in_any_order() -> None:
    assert agree(answer(ONE, TWO, FAINT), answer(FAINT, TWO, ONE)) == pytest.approx(1, abs=1e-6)


def test_equal_detections_agree_by_1_at_most() -> None:
    rounded_up = DetectionSums(
        (*OUTPUTS, _MASKS), INPUT_SIZE, shared=0.1 + 0.2, squares=0.3, masks=0.1 + 0.2, weight=0.3
    )
    assert rounded_up.agreements() == {"detections": 1, "masks": 1}


def test_unmatched_detection_costs_square_of_its_score() -> None:
    assert agree(answer(ONE, TWO), answer(ONE)) == pytest.approx(2 * 0.81 / (2 * 0.81 + 0.64), abs=1e-6)
    assert agree(answer(ONE), answer(ONE, TWO)) == pytest.approx(2 * 0.81 / (2 * 0.81 + 0.64), abs=1e-6)
    assert agree(answer(ONE, TWO), answer(ONE, TWO, FAINT)) > 0.998


def test_shifted_box_agrees_by_overlap() -> None:
    assert agree(answer(ONE), answer((0.1, 0.2, 0.3, 0.4, 0.9, 1))) == pytest.approx(1 / 3, abs=1e-6)


def test_subpixel_boxes_are_ignored_on_both_sides() -> None:
    low, thin, thick = (0.1, 0.996, 0.3, 1, 0.9, 1), (0.6, 0.1, 0.604, 0.4, 0.9, 1), (0.1, 0.98, 0.3, 1, 0.9, 1)
    assert agree(answer(ONE, low), answer(ONE)) == pytest.approx(1, abs=1e-6)
    assert agree(answer(ONE), answer(ONE, thin)) == pytest.approx(1, abs=1e-6)
    assert agree(answer(ONE, thick), answer(ONE)) == pytest.approx(2 / 3, abs=1e-6)
    with pytest.raises(Failure, match="neither the model nor the file detects anything"):
        agree(answer(low), answer(low))


def test_other_class_does_not_agree() -> None:
    assert agree(answer(ONE), answer((*ONE[:5], 2))) == 0


def test_detection_matches_one_other_only() -> None:
    assert agree(answer(ONE), answer(ONE, ONE)) == pytest.approx(2 / 3, abs=1e-6)


def test_confident_visible_detection_makes_image_informative() -> None:
    sums = DetectionSums(OUTPUTS, INPUT_SIZE)
    low, thin = (*ONE[:4], 0.24, 1), (0.1, 0.996, 0.3, 1, 0.9, 1)
    for rows, expected in (((FAINT, low), 0), ((thin,), 0), ((ONE,), 1), ((), 1), ((FAINT, (*TWO[:4], 0.25, 1)), 2)):
        sums.add(answer(*rows), answer(*rows))
        assert sums.informative_count() == expected


def test_masks_are_compared_per_pixel() -> None:
    sums = DetectionSums((*OUTPUTS, _MASKS), INPUT_SIZE)
    full, half = np.ones((1, 8, 4, 4), np.float32), np.ones((1, 8, 4, 4), np.float32)
    half[:, :, 2:] = 0
    sums.add((*answer(ONE), full), (*answer(ONE), half))
    assert sums.agreements() == {"detections": pytest.approx(1, abs=1e-6), "masks": pytest.approx(0.5, abs=1e-6)}


def test_unconverged_nms_is_refused() -> None:
    broken = (*answer(ONE)[:3], np.array([-1], np.float32))
    causes = "longer chains than the file resolves, or more exceed the score's threshold .*; raise scoreThreshold, or"
    with pytest.raises(Failure, match=causes) as caught:
        agree(answer(ONE), broken)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_no_detections_verify_nothing() -> None:
    with pytest.raises(Failure, match="neither the model nor the file detects anything on 1 images"):
        agree(answer(), answer())
