import itertools
import math

import numpy as np
import pytest

from models import shapes


@pytest.fixture(scope="module")
def drawn() -> list[shapes.Scene]:
    return list(shapes.images("train", 24))


def test_generator_is_deterministic(drawn: list[shapes.Scene]) -> None:
    again = list(shapes.images("train", 3))
    for first, second in zip(drawn, again, strict=False):
        assert np.array_equal(first.pixels, second.pixels)
        assert all(np.array_equal(a.outline, b.outline) for a, b in zip(first.shapes, second.shapes, strict=True))


def test_splits_share_no_image() -> None:
    seen = [next(shapes.images(split, 1)).pixels.tobytes() for split in shapes.SPLITS]
    assert len(set(seen)) == len(shapes.SPLITS)


def test_every_image_has_one_to_four_shapes_inside_frame(drawn: list[shapes.Scene]) -> None:
    for image in drawn:
        height, width = image.pixels.shape[:2]
        assert 1 <= len(image.shapes) <= 4
        for shape in image.shapes:
            assert shape.outline.min() >= 0
            assert (shape.outline <= (width, height)).all()


def test_shapes_of_one_image_do_not_touch(drawn: list[shapes.Scene]) -> None:
    for image in drawn:
        for one, other in itertools.combinations(image.shapes, 2):
            assert np.linalg.norm(one.outline[:, None] - other.outline, axis=-1).min() > 1


def test_all_classes_and_both_orientations_occur(drawn: list[shapes.Scene]) -> None:
    assert {shape.label for image in drawn for shape in image.shapes} == {0, 1, 2}
    assert {image.pixels.shape for image in drawn} == {(320, 320, 3), (256, 320, 3), (320, 256, 3)}


def test_keypoints_run_clockwise_from_upper_left(drawn: list[shapes.Scene]) -> None:
    for shape in (shape for image in drawn for shape in image.shapes):
        upper_left, upper_right, lower_right, lower_left = shape.keypoints
        assert upper_left[0] < upper_right[0]
        assert lower_left[0] < lower_right[0]
        assert upper_left[1] + upper_right[1] < lower_left[1] + lower_right[1]


def test_box_contains_outline_and_keypoints(drawn: list[shapes.Scene]) -> None:
    for shape in (shape for image in drawn for shape in image.shapes):
        left, top, width, height = shape.box
        for x, y in [*shape.outline, *shape.keypoints]:
            assert left - 1e-6 <= x <= left + width + 1e-6
            assert top - 1e-6 <= y <= top + height + 1e-6


def test_area_of_square_is_its_side_squared() -> None:
    outline = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [0.0, 3.0]])
    assert math.isclose(shapes.Shape(1, outline, outline, outline).area, 9)


def test_oriented_box_touches_outline_within_image() -> None:
    for image in shapes.stretched_images("train", 24):
        height, width = image.pixels.shape[:2]
        for shape in image.shapes:
            first, second, third, fourth = shape.corners
            assert shape.corners.min() > 0
            assert (shape.corners < [width, height]).all()
            across, down = second - first, fourth - first
            assert abs(across @ down) < 1e-6
            assert 0.3 < np.linalg.norm(down) / np.linalg.norm(across) < 0.65
            assert np.allclose(third, second + down)
            for side in (across, down):
                placed = (shape.outline - first) @ side / (side @ side)
                assert (placed.min(), placed.max()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def test_stretched_objects_lie_in_all_directions() -> None:
    sides = [
        shape.corners[1] - shape.corners[0] for image in shapes.stretched_images("val", 60) for shape in image.shapes
    ]
    angles = np.degrees([math.atan2(y, x) for x, y in sides])
    assert min(np.histogram(angles, 4, (-180, 180))[0]) > 10


def test_shapes_contrast_with_background(drawn: list[shapes.Scene]) -> None:
    for image in drawn:
        behind = np.median(image.pixels.reshape(-1, 3), axis=0)
        for shape in image.shapes:
            x, y = shape.outline.mean(axis=0).astype(int)
            assert np.linalg.norm(image.pixels[y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1)) - behind) > 30


def test_classification_images_hold_one_shape_in_class_order() -> None:
    drawn = list(shapes.single_shape_images("val", 6))
    assert [[shape.label for shape in image.shapes] for image in drawn] == [[0], [1], [2]] * 2
