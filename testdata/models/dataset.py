"""Writes pictures and labels in the folders that ultralytics trains and validates on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import shapes
import yaml
from accuracy import KEYPOINT_SIGMA
from PIL import Image


def write_dataset(task: str, root: Path, splits: Mapping[str, Iterable[shapes.Picture]]) -> Path:
    """Writes the splits ("train", "val") once; returns what ultralytics takes as `data`: the folder of a
    classification set, or the description of any other."""
    description = root if task == "classify" else root / "data.yaml"
    complete = root / "complete"
    if not complete.exists():
        for split, pictures in splits.items():
            write_split = _write_classified if task == "classify" else _write_labelled
            write_split(root, split, pictures, task)
        if task != "classify":
            description.write_text(yaml.safe_dump(_describe(task, root)))
        complete.touch()
    return description


def _describe(task: str, root: Path) -> dict[str, Any]:
    common = {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(enumerate(shapes.CLASSES))}
    keypoints = {"kpt_shape": [4, 3], "flip_idx": list(shapes.FLIP), "kpt_oks_sigmas": [KEYPOINT_SIGMA] * 4}
    return common | (keypoints if task == "pose" else {})


def _write_classified(root: Path, split: str, pictures: Iterable[shapes.Picture], _task: str) -> None:
    for index, picture in enumerate(pictures):
        folder = root / split / shapes.CLASSES[picture.shapes[0].label]
        _write_pixels(picture, folder / f"{index:05}.png")


def _write_labelled(root: Path, split: str, pictures: Iterable[shapes.Picture], task: str) -> None:
    labels = root / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        _write_pixels(picture, root / "images" / split / f"{index:05}.png")
        lines = [_label(shape, picture, task) for shape in picture.shapes]
        (labels / f"{index:05}.txt").write_text("\n".join(lines))


def _write_pixels(picture: shapes.Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.pixels).save(path, compress_level=1)


def _label(shape: shapes.Shape, picture: shapes.Picture, task: str) -> str:
    """One line of an ultralytics label file; outlines serve detection too, since its loader derives the boxes."""
    height, width = picture.pixels.shape[:2]
    frame = (width, height)
    if task == "pose":
        numbers = _box(shape, frame)
        for x, y in (shape.keypoints / frame).tolist():
            numbers += [x, y, 2]
    else:
        numbers = (shape.outline / frame).ravel().tolist()
    return " ".join([str(shape.label), *(f"{number:.6g}" for number in numbers)])


def _box(shape: shapes.Shape, frame: tuple[int, int]) -> list[float]:
    left, top, width, height = shape.box
    return [(left + width / 2) / frame[0], (top + height / 2) / frame[1], width / frame[0], height / frame[1]]
