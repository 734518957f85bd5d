"""Writes images and labels in the folder layout of ultralytics' training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from models import shapes


def write_dataset(task: str, root: Path, splits: Mapping[str, Iterable[shapes.Scene]]) -> Path:
    """Write the splits ("train", "val") once.

    Returns:
        The `data` argument of ultralytics: the folder of a classification set, or the description of any other.
    """
    description = root if task == "classify" else root / "data.yaml"
    complete = root / "complete"
    if not complete.exists():
        for split, images in splits.items():
            write_split = _write_classified if task == "classify" else _write_labelled
            write_split(root, split, images, task)
        if task != "classify":
            description.write_text(yaml.safe_dump(describe(task, root)))
        complete.touch()
    return description


def describe(task: str, root: Path) -> dict[str, Any]:
    """Return the content of ``data.yaml`` of a dataset at a root."""
    common = {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(enumerate(shapes.CLASSES))}
    keypoints = {"kpt_shape": [4, 3], "flip_idx": list(shapes.FLIP), "kpt_oks_sigmas": [shapes.KEYPOINT_SIGMA] * 4}
    return common | (keypoints if task == "pose" else {})


def _write_classified(root: Path, split: str, images: Iterable[shapes.Scene], _task: str) -> None:
    for index, image in enumerate(images):
        folder = root / split / shapes.CLASSES[image.shapes[0].label]
        _write_pixels(image, folder / f"{index:05}.png")


def _write_labelled(root: Path, split: str, images: Iterable[shapes.Scene], task: str) -> None:
    labels = root / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        _write_pixels(image, root / "images" / split / f"{index:05}.png")
        lines = [label_line(shape, image, task) for shape in image.shapes]
        (labels / f"{index:05}.txt").write_text("\n".join(lines))


def _write_pixels(image: shapes.Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.pixels).save(path, compress_level=1)


def label_line(shape: shapes.Shape, image: shapes.Scene, task: str) -> str:
    """Return one line of an ultralytics label file; outlines serve detection too, as its loader derives the boxes."""
    height, width = image.pixels.shape[:2]
    frame = (width, height)
    if task == "pose":
        left, top, across, down = shape.box
        numbers = [(left + across / 2) / width, (top + down / 2) / height, across / width, down / height]
        for x, y in (shape.keypoints / frame).tolist():
            numbers += [x, y, 2]
    elif task == "obb":
        numbers = (shape.corners / frame).ravel().tolist()
    else:
        numbers = (shape.outline / frame).ravel().tolist()
    return " ".join([str(shape.label), *(f"{number:.6g}" for number in numbers)])
