"""The true class of every pixel, and mean IoU, on cases that can be counted by hand."""

import numpy as np
import pytest

from models import shapes
from models.masks import ConfusionMatrix, label_map

SQUARE = (1, [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0])


def test_pixel_belongs_to_outline_containing_its_centre() -> None:
    expected = np.zeros((4, 5), np.uint8)
    expected[1:3, 1:3] = 2
    assert (label_map([SQUARE], (4, 5)) == expected).all()


def test_outline_direction_does_not_matter() -> None:
    label, outline = SQUARE
    turned = np.reshape(outline, (-1, 2))[::-1].ravel().tolist()
    assert (label_map([(label, turned)], (4, 5)) == label_map([SQUARE], (4, 5))).all()


def test_pixel_count_of_every_shape_is_its_area() -> None:
    for image in shapes.images("val", 12):
        for shape in image.shapes:
            classes = label_map([(shape.label, shape.outline.ravel().tolist())], image.pixels.shape[:2])
            assert set(np.unique(classes)) == {0, shape.label + 1}
            assert np.count_nonzero(classes) == pytest.approx(shape.area, rel=0.01)


def test_mean_iou_is_intersection_over_union() -> None:
    confusion = ConfusionMatrix(2)
    confusion.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    assert confusion.mean_iou() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_mean_iou_is_over_all_images_together() -> None:
    confusion = ConfusionMatrix(2)
    confusion.add(np.array([[0, 1]], np.uint8), np.array([[0, 1]], np.uint8))
    confusion.add(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 0]], np.uint8))
    assert confusion.mean_iou() == pytest.approx((2 / 4 + 1 / 3) / 2)
