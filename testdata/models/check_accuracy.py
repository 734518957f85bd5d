"""Measures the committed checkpoints in FP32 with accuracy.py and with ultralytics' own validation, and compares both.

    PYTHONPATH=testdata:examples python -m models.check_accuracy [--workspace DIRECTORY]

Exits with 1 if a pair differs by more than 0.01. Keypoints are compared with ultralytics' object areas, 0.53 of the
box; the tests use the areas of the outlines, as COCO does, and that number is printed too. Masks are compared with
those that ultralytics' `process_mask_native` assembles at the image's resolution: its validation scores coarser masks
against coarser truth, a number that is printed but not comparable. Rotated boxes are compared with ultralytics'
probabilistic overlap; by the exact one, as in the tests, they are printed too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torchvision.transforms import functional

from modelexport_converter.evaluation.detections import ImageDetections, Letterbox, find, find_rotated, suppress
from modelexport_converter.rotated_boxes import likenesses
from models import accuracy, shapes
from models.dataset import write_dataset
from models.train import TRAININGS

os.environ.setdefault("YOLO_OFFLINE", "true")

from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import process_mask_native

DATA = Path(__file__).parent / "data"
_MOST_DIFFERENCE = 0.01
_KINDS = {"classify": "-cls", "obb": "-obb"}
"""What follows the names of the images of a task."""
_ULTRALYTICS_KEYS = {
    "box": "metrics/mAP50-95(B)",
    "rotated": "metrics/mAP50-95(B)",
    "keypoint": "metrics/mAP50-95(P)",
    "top-1": "metrics/accuracy_top1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("build/shapes"), help="where images and runs go")
    workspace = parser.parse_args().workspace.resolve()
    worst = 0.0
    for name in TRAININGS:
        validated = measure_with_ultralytics(name, workspace)
        for measure, value in measure_with_accuracy(name).items():
            theirs = _ultralytics_mask_map(name) if measure == "mask" else float(validated[_ULTRALYTICS_KEYS[measure]])
            worst = max(worst, abs(value - theirs))
            print(f"{TRAININGS[name].checkpoint.stem:18} {measure:8} accuracy.py {value:.4f}  ultralytics {theirs:.4f}")
    return int(worst > _MOST_DIFFERENCE)


def measure_with_ultralytics(name: str, workspace: Path) -> Mapping[str, Any]:
    """Validate on the committed evaluation images."""
    task, side = TRAININGS[name].task, TRAININGS[name].side
    images = list(_evaluation_images(task))
    data = write_dataset(task, workspace / f"check-{task}", {"train": images[:1], "val": images})
    options = {"rect": False, "workers": 0, "device": "cpu", "plots": False, "verbose": False, "batch": 16}
    model = _model(name)
    if hasattr(model.model.model[-1], "one2one_cv2"):
        options["nms"] = False  # chooses the one-to-one head, without suppression
    metrics = model.val(data=str(data), imgsz=side, project=str(workspace / "runs"), **options)
    if task == "segment":
        print(f"at the prototypes' resolution, the masks' mAP50-95 is {metrics.seg.map:.4f}")
    return dict(metrics.results_dict)


def measure_with_accuracy(name: str) -> dict[str, float]:
    task, side = TRAININGS[name].task, TRAININGS[name].side
    model = _model(name).model.float().eval()
    if task == "classify":
        return {"top-1": _top1(model, side)}
    truth = json.loads((DATA / f"eval{_KINDS.get(task, '')}.json").read_text())
    found = {index + 1: _find(model, task, side, image) for index, image in enumerate(_evaluation_images(task))}
    if task == "obb":
        print(f"by exact overlap, the rotated boxes' mAP50-95 is {accuracy.rotated_map(truth, found):.4f}")
        return {"rotated": accuracy.rotated_map(truth, found, likenesses)}
    measured = {"box": accuracy.box_map(truth, found)}
    if task == "segment":
        measured["mask"] = accuracy.mask_map(truth, found)
    if task == "pose":
        measured["keypoint"] = accuracy.keypoint_map(with_box_areas(truth), found)
        print(f"with areas of the outlines, the keypoints' mAP50-95 is {accuracy.keypoint_map(truth, found):.4f}")
    return measured


def with_box_areas(truth: Mapping[str, Any]) -> dict[str, Any]:
    """Return the truth with ultralytics' areas for keypoint similarity: 0.53 of the box."""
    annotations = [row | {"area": 0.53 * row["bbox"][2] * row["bbox"][3]} for row in truth["annotations"]]
    return {**truth, "annotations": annotations}


def _model(name: str) -> Any:
    return YOLO(str(TRAININGS[name].checkpoint))


def _evaluation_images(task: str) -> Iterator[shapes.Scene]:
    """Yield the JPEG images of the committed archive with their exact labels."""
    draw = {"classify": shapes.single_shape_images, "obb": shapes.stretched_images}.get(task, shapes.images)
    with zipfile.ZipFile(DATA / f"eval{_KINDS.get(task, '')}.zip") as archive:
        names = archive.namelist()
        for entry, image in zip(names, draw("val", len(names)), strict=True):
            yield replace(image, pixels=np.asarray(Image.open(io.BytesIO(archive.read(entry)))))


def _top1(model: torch.nn.Module, side: int) -> float:
    probabilities, labels = [], []
    for image in _evaluation_images("classify"):
        resized = functional.resize(Image.fromarray(image.pixels), [side, side])
        with torch.no_grad():
            probabilities.append(model(functional.to_tensor(resized)[None])[0].numpy())
        labels.append(image.shapes[0].label)
    return accuracy.top1(probabilities, labels)


def _find(model: torch.nn.Module, task: str, side: int, image: shapes.Scene) -> ImageDetections:
    height, width = image.pixels.shape[:2]
    show = find_rotated if task == "obb" else find
    return show(Letterbox((width, height), (side, side)), **_run(model, task, side, image))


def _ultralytics_mask_map(name: str) -> float:
    """Return mAP50-95 of the same detections with masks that ultralytics assembles."""
    model, side = _model(name).model.float().eval(), TRAININGS[name].side
    found = {}
    for index, image in enumerate(_evaluation_images("segment")):
        outputs = _run(model, "segment", side, image)
        answer = _find(model, "segment", side, image)
        coefficients = suppress(outputs["boxes"], outputs["scores"]).pick(outputs["coefficients"])
        prototypes, weights, boxes = map(torch.Tensor, (outputs["prototypes"][0], coefficients, answer.boxes))
        masks = process_mask_native(prototypes, weights, boxes, image.pixels.shape[:2]).numpy()
        found[index + 1] = replace(answer, masks=[rle.encode(np.asfortranarray(mask)) for mask in masks])
    return accuracy.mask_map(json.loads((DATA / "eval.json").read_text()), found)


def _run(model: Any, task: str, side: int, image: shapes.Scene) -> dict[str, Any]:
    """Run the model in eager FP32, and split its outputs as the converter does."""
    boxed = LetterBox((side, side))(image=image.pixels)
    with torch.no_grad():
        output, raw = model(torch.from_numpy(boxed.transpose(2, 0, 1)[None] / np.float32(255)))
        rows, prototypes = output if isinstance(output, tuple) else (output, None)
        if "one2one" in raw:
            rows = model.model[-1]._inference(raw["one2one"])
    boxes, scores, extra = (part.numpy() for part in rows.split((4, 3, rows.shape[1] - 7), 1))
    extras: dict[str, Any] = {}
    if task == "obb":
        return {"boxes": boxes, "scores": scores, "angles": extra}
    if prototypes is not None:
        extras = {"coefficients": extra, "prototypes": prototypes.numpy()}
    elif task == "pose":
        extras = {"keypoints": extra.reshape(1, 4, 3, -1) / np.array([side, side, 1])[:, None]}
    return {"boxes": boxes / side, "scores": scores, **extras}


if __name__ == "__main__":
    sys.exit(main())
