"""Draws synthetic images of circles, squares and triangles with exact labels, on which the test models are trained.

Every image depends on its split and its index alone (numpy's PCG64 seeded with both), so the splits are disjoint by
construction and any image can be drawn again. Coordinates are pixels of the image, x to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")
SPLITS = ("train", "val", "calibration")
# For each keypoint, the one at its position after mirroring an image left to right.
FLIP = (1, 0, 3, 2)
KEYPOINT_SIGMA = 0.1  # between COCO's elbows (.072) and hips (.107); the pose model was trained with it
SIDE = 320
_FRAMES = ((SIDE, SIDE), (SIDE, 256), (256, SIDE))  # width, height
_SUPERSAMPLING = 3
_MOST_TILT = math.radians(30)  # below 45 degrees, beyond which the corners of a square would change places
_FLATTENED = (0.35, 0.6)  # height of a stretched shape, as a share of that before
_LEAST_CONTRAST = 70.0  # euclidean distance of fill and background in RGB
_PLACING_ATTEMPTS = 30

Points = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """One object: its class index, outline (n, 2) and keypoints (4, 2), from the upper left clockwise.

    ``corners`` (4, 2) are those of its box, which is turned as the object is.
    """

    label: int
    outline: Points
    keypoints: Points
    corners: Points

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width, height, as in COCO."""
        (left, top), (right, bottom) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(left), float(top), float(right - left), float(bottom - top)

    @property
    def area(self) -> float:
        """Area of the outline in square pixels (shoelace formula)."""
        x, y = self.outline.T
        return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@dataclass(frozen=True)
class Scene:
    """Pixels (H, W, 3) in RGB, and the objects in them."""

    pixels: Pixels
    shapes: tuple[Shape, ...]


def images(split: str, count: int) -> Iterator[Scene]:
    """Yield the first `count` images of a split, each with one to four objects that do not overlap."""
    for index in range(count):
        rng = _generator(split, index, variant=0)
        yield _draw(rng, _FRAMES[index % len(_FRAMES)], most_shapes=4)


def single_shape_images(split: str, count: int) -> Iterator[Scene]:
    """Yield the first `count` images of the classification variant: square, one object each, the classes in turn."""
    for index in range(count):
        yield _draw(_generator(split, index, variant=1), (SIDE, SIDE), most_shapes=1, label=index % len(CLASSES))


def stretched_images(split: str, count: int) -> Iterator[Scene]:
    """Yield the first `count` images of the variant for oriented boxes: each object is flattened, and turned freely.

    A circle becomes an ellipse and a square a rectangle, so that the direction of a box can be seen.
    """
    for index in range(count):
        rng = _generator(split, index, variant=2)
        yield _draw(rng, _FRAMES[index % len(_FRAMES)], most_shapes=4, stretched=True)


def _generator(split: str, index: int, variant: int) -> np.random.Generator:
    return np.random.default_rng((SPLITS.index(split), index, variant))


def _draw(
    rng: np.random.Generator,
    frame: tuple[int, int],
    most_shapes: int,
    label: int | None = None,
    stretched: bool = False,
) -> Scene:
    background = _texture(rng, frame)
    canvas = Image.fromarray(background).resize((frame[0] * _SUPERSAMPLING, frame[1] * _SUPERSAMPLING))
    shapes = []
    for centre, radius in _placements(rng, frame, int(rng.integers(1, most_shapes + 1))):
        chosen = int(rng.integers(len(CLASSES))) if label is None else label
        shape = _shape(chosen, centre, radius, rng, stretched)
        _paint(canvas, shape, background, rng)
        shapes.append(shape)
    pixels = np.asarray(canvas.resize(frame, Image.Resampling.BOX), dtype=np.float64)
    noisy = pixels + rng.normal(0, rng.uniform(2, 10), pixels.shape)
    return Scene(noisy.clip(0, 255).astype(np.uint8), tuple(shapes))


def _texture(rng: np.random.Generator, frame: tuple[int, int]) -> Pixels:
    """Return a background: a base colour, blotches of random coarseness, and stripes in every other image."""
    width, height = frame
    cells = int(rng.integers(3, 24))
    blotches = rng.normal(0, rng.uniform(5, 30), (cells, cells, 3)).clip(-100, 100) + 128
    smooth = Image.fromarray(blotches.astype(np.uint8)).resize(frame, Image.Resampling.BICUBIC)
    y, x = np.mgrid[:height, :width]
    angle, period = rng.uniform(0, math.pi), rng.uniform(8, 60)
    stripes = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)[..., None]
    strength = rng.uniform(0, 20) * rng.integers(0, 2)
    base = rng.uniform(20, 235, 3)
    texture = base + np.asarray(smooth, dtype=np.float64) - 128 + strength * stripes
    return np.asarray(texture.clip(0, 255), dtype=np.uint8)


def _placements(rng: np.random.Generator, frame: tuple[int, int], count: int) -> list[tuple[Points, float]]:
    """Return centres (2,) and radii of up to `count` circles inside the frame that do not touch each other."""
    placed: list[tuple[Points, float]] = []
    for _ in range(_PLACING_ATTEMPTS):
        radius = float(rng.uniform(28, 80 if count <= 2 else 62))
        centre = rng.uniform(radius + 2, np.array(frame) - radius - 2)
        if all(math.dist(centre, other) > radius + reach + 4 for other, reach in placed):
            placed.append((centre, radius))
        if len(placed) == count:
            break
    return placed


def _shape(label: int, centre: Points, radius: float, rng: np.random.Generator, stretched: bool) -> Shape:
    """Return a shape inscribed in the circle around `centre`; of a stretched one, the corners of its box are in it.

    A circle's keypoints lie on its diagonals, a triangle's upper two halfway up its sides, so that mirroring pairs the
    same keypoints in every class.
    """
    tilt = rng.uniform(-_MOST_TILT, _MOST_TILT)
    corners = _on_circle(np.radians([225, 315, 45, 135]))
    if CLASSES[label] == "circle":
        outline, keypoints, tilt = _on_circle(np.linspace(0, 2 * math.pi, 40, endpoint=False)), corners, 0.0
    elif CLASSES[label] == "square":
        outline = keypoints = corners
    else:
        outline = _on_circle(np.radians([270, 30, 150]))
        apex, right, left = outline
        keypoints = np.array([(apex + left) / 2, (apex + right) / 2, right, left])
    if stretched:
        tilt = rng.uniform(0, 2 * math.pi)
        flat = np.array([1.0, rng.uniform(*_FLATTENED)])
        outline, keypoints = outline * flat, keypoints * flat
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if stretched:
        radius /= float(np.linalg.norm(box, axis=1).max())
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    return Shape(label, *(centre + radius * points @ turn for points in (outline, keypoints, box)))


def _on_circle(angles: Points) -> Points:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _paint(canvas: Image.Image, shape: Shape, background: Pixels, rng: np.random.Generator) -> None:
    behind = background.mean(axis=(0, 1))
    fill = behind
    while math.dist(fill, behind) < _LEAST_CONTRAST:
        fill = rng.uniform(0, 255, 3)
    edge = tuple((fill * rng.uniform(0.6, 1.0)).astype(int).tolist())
    outline = [tuple(point) for point in (shape.outline * _SUPERSAMPLING).tolist()]
    width = int(rng.integers(1, 5)) * _SUPERSAMPLING
    ImageDraw.Draw(canvas).polygon(outline, fill=tuple(fill.astype(int).tolist()), outline=edge, width=width)
