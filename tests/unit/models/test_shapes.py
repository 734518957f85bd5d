import itertools
import math

import numpy as np
import pytest

from models import shapes


@pytest.fixture(scope="module")
def drawn() -> list[shapes.Picture]:
    return list(shapes.pictures("train", 24))


def test_the_same_picture_is_drawn_again(drawn: list[shapes.Picture]) -> None:
    again = list(shapes.pictures("train", 3))
    for first, second in zip(drawn, again, strict=False):
        assert np.array_equal(first.pixels, second.pixels)
        assert all(np.array_equal(a.outline, b.outline) for a, b in zip(first.shapes, second.shapes, strict=True))


def test_no_split_repeats_a_picture_of_another() -> None:
    seen = [next(shapes.pictures(split, 1)).pixels.tobytes() for split in shapes.SPLITS]
    assert len(set(seen)) == len(shapes.SPLITS)


def test_every_picture_has_one_to_four_shapes_inside_its_frame(drawn: list[shapes.Picture]) -> None:
    for picture in drawn:
        height, width = picture.pixels.shape[:2]
        assert 1 <= len(picture.shapes) <= 4
        for shape in picture.shapes:
            assert shape.outline.min() >= 0
            assert (shape.outline <= (width, height)).all()


def test_shapes_of_one_picture_do_not_touch(drawn: list[shapes.Picture]) -> None:
    for picture in drawn:
        for one, other in itertools.combinations(picture.shapes, 2):
            assert np.linalg.norm(one.outline[:, None] - other.outline, axis=-1).min() > 1


def test_all_classes_and_both_orientations_of_the_frame_occur(drawn: list[shapes.Picture]) -> None:
    assert {shape.label for picture in drawn for shape in picture.shapes} == {0, 1, 2}
    assert {picture.pixels.shape for picture in drawn} == {(320, 320, 3), (256, 320, 3), (320, 256, 3)}


def test_keypoints_are_upper_left_upper_right_lower_right_lower_left(drawn: list[shapes.Picture]) -> None:
    for shape in (shape for picture in drawn for shape in picture.shapes):
        upper_left, upper_right, lower_right, lower_left = shape.keypoints
        assert upper_left[0] < upper_right[0]
        assert lower_left[0] < lower_right[0]
        assert upper_left[1] + upper_right[1] < lower_left[1] + lower_right[1]


def test_the_box_holds_the_outline_and_the_keypoints(drawn: list[shapes.Picture]) -> None:
    for shape in (shape for picture in drawn for shape in picture.shapes):
        left, top, width, height = shape.box
        for x, y in [*shape.outline, *shape.keypoints]:
            assert left - 1e-6 <= x <= left + width + 1e-6
            assert top - 1e-6 <= y <= top + height + 1e-6


def test_the_area_of_a_square_is_its_side_squared() -> None:
    outline = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [0.0, 3.0]])
    assert math.isclose(shapes.Shape(1, outline, outline).area, 9)


def test_shapes_stand_out_from_what_is_behind_them(drawn: list[shapes.Picture]) -> None:
    for picture in drawn:
        behind = np.median(picture.pixels.reshape(-1, 3), axis=0)
        for shape in picture.shapes:
            x, y = shape.outline.mean(axis=0).astype(int)
            assert np.linalg.norm(picture.pixels[y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1)) - behind) > 30


def test_pictures_for_classification_hold_one_shape_each_and_the_classes_in_turn() -> None:
    drawn = list(shapes.single_shape_pictures("val", 6))
    assert [[shape.label for shape in picture.shapes] for picture in drawn] == [[0], [1], [2]] * 2
