"""The evaluation images of the repository with their labels, as users store them."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as rle

from modelexport.api.spec import DataRef, Evaluation, LabelKind
from modelexport.matrix.support import Task
from modelexport_converter.evaluation.opening import EvaluationSet, open_evaluation
from modelexport_converter.inputs.dataset import FetchedImages
from modelexport_converter.inputs.labelled_data import ARCHIVE
from models import shapes
from models.masks import label_map
from trained.model import MODELS, truth

Files = Mapping[str, bytes]
Change = Callable[[dict[str, bytes]], object]
NAMES = list(shapes.CLASSES)


def images(count: int, kind: str = "") -> dict[str, bytes]:
    with zipfile.ZipFile(MODELS / f"data/eval{kind}.zip") as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())[:count]}


def rows(count: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The entry of each image and of its objects."""
    entries = truth()["images"][:count]
    return [(entry, [row for row in truth()["annotations"] if row["image_id"] == entry["id"]]) for entry in entries]


def coco_content(count: int) -> dict[str, Any]:
    """Labels in COCO's JSON; a copy that may be changed."""
    found = rows(count)
    content = {
        "images": [entry for entry, _ in found],
        "annotations": [row for _, own in found for row in own],
        "categories": truth()["categories"],
    }
    copy: dict[str, Any] = json.loads(json.dumps(content))
    return copy


def coco(count: int, content: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    labels = json.dumps(coco_content(count) if content is None else content).encode()
    return {**{f"val/{name}": data for name, data in images(count).items()}, "instances.json": labels}


def yolo(count: int, what: str = "box") -> dict[str, bytes]:
    """Labels of ultralytics: ``box``, ``outline`` or ``pose``."""
    files = {f"images/val/{name}": data for name, data in images(count).items()}
    for entry, own in rows(count):
        lines = [_line(row, (entry["width"], entry["height"]), what) for row in own]
        files[f"labels/val/{Path(entry['file_name']).stem}.txt"] = "\n".join(lines).encode()
    description = {"path": "../datasets/shapes", "train": "images/train", "val": "images/val", "names": NAMES}
    pose = {"kpt_shape": [4, 3], "kpt_oks_sigmas": [shapes.KEYPOINT_SIGMA] * 4} if what == "pose" else {}
    return {**files, "data.yaml": yaml.safe_dump({**description, **pose}).encode()}


def _line(row: Mapping[str, Any], size: tuple[int, int], what: str) -> str:
    left, top, width, height = row["bbox"]
    box = [(left + width / 2) / size[0], (top + height / 2) / size[1], width / size[0], height / size[1]]
    outline = (np.array(row["segmentation"][0]).reshape(-1, 2) / size).ravel().tolist()
    points = (np.array(row["keypoints"]).reshape(-1, 3) / (*size, 1)).ravel().tolist()
    numbers = {"box": box, "outline": outline, "pose": box + points}[what]
    return " ".join([str(row["category_id"]), *(f"{number:.8f}" for number in numbers)])


def oriented(count: int) -> dict[str, bytes]:
    """Labels of ultralytics for rotated boxes: their four corners."""
    files = {f"images/val/{name}": data for name, data in images(count, "-obb").items()}
    labels = truth("eval-obb")
    for entry in labels["images"][:count]:
        own = [row for row in labels["annotations"] if row["image_id"] == entry["id"]]
        size = entry["width"], entry["height"]
        lines = [f"{row['category_id']} {' '.join(map(str, corners_of(row, size)))}" for row in own]
        files[f"labels/val/{Path(entry['file_name']).stem}.txt"] = "\n".join(lines).encode()
    return {**files, "data.yaml": yaml.safe_dump({"val": "images/val", "names": NAMES}).encode()}


def corners_of(row: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    numbers: list[float] = (np.array(row["corners"]).reshape(-1, 2) / size).ravel().tolist()
    return numbers


def masks(count: int) -> dict[str, bytes]:
    files = {f"images/{name}": data for name, data in images(count).items()}
    for entry, own in rows(count):
        outlines = [(row["category_id"], row["segmentation"][0]) for row in own]
        classes = label_map(outlines, (entry["height"], entry["width"]))
        files[f"masks/{Path(entry['file_name']).stem}.png"] = png(Image.fromarray(classes))
    return files


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def folders(count: int) -> dict[str, bytes]:
    labels = json.loads((MODELS / "data/eval-cls.json").read_text())["labels"]
    return {f"val/{NAMES[labels[name]]}/{name}": data for name, data in images(count, "-cls").items()}


def write(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read(
    folder: Path,
    files: Files,
    task: Task = Task.DETECTION,
    kind: LabelKind = LabelKind.AUTO,
    *,
    samples: int = 1000,
    calibrating: frozenset[bytes] = frozenset(),
) -> EvaluationSet:
    write(folder / ARCHIVE, files)
    asked = Evaluation(DataRef("s3://datasets/val.zip"), kind, samples)
    return open_evaluation(asked, FetchedImages("0" * 64), folder, task, calibrating)


def pack(outline: list[float], size: tuple[int, int]) -> Any:
    """The run lengths of one outline."""
    return rle.merge(rle.frPyObjects([outline], size[1], size[0]))
