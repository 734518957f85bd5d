"""The true class of every pixel, and mean IoU, on cases that can be counted by hand."""

import numpy as np
import pytest

from models import shapes
from models.masks import Confusion, label_map

SQUARE = (1, [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0])


def test_a_pixel_belongs_to_the_outline_that_holds_its_middle() -> None:
    expected = np.zeros((4, 5), np.uint8)
    expected[1:3, 1:3] = 2
    assert (label_map([SQUARE], (4, 5)) == expected).all()


def test_the_direction_of_an_outline_does_not_matter() -> None:
    label, outline = SQUARE
    turned = np.reshape(outline, (-1, 2))[::-1].ravel().tolist()
    assert (label_map([(label, turned)], (4, 5)) == label_map([SQUARE], (4, 5))).all()


def test_the_pixels_of_every_shape_are_its_area() -> None:
    for picture in shapes.pictures("val", 12):
        for shape in picture.shapes:
            classes = label_map([(shape.label, shape.outline.ravel().tolist())], picture.pixels.shape[:2])
            assert set(np.unique(classes)) == {0, shape.label + 1}
            assert np.count_nonzero(classes) == pytest.approx(shape.area, rel=0.01)


def test_mean_iou_counts_what_is_shared_of_what_either_says() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    assert confusion.mean_iou() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_mean_iou_is_that_of_all_pictures_together() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([[0, 1]], np.uint8), np.array([[0, 1]], np.uint8))
    confusion.add(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 0]], np.uint8))
    assert confusion.mean_iou() == pytest.approx((2 / 4 + 1 / 3) / 2)
