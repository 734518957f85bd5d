"""Writes the evaluation and calibration images of the tests into testdata/models/data.

PYTHONPATH=testdata:examples python -m models.make_data
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from modelexport.api.spec import LabelKind
from models import dataset, shapes

DATA = Path(__file__).parent / "data"
EVALUATION_COUNT = 128
CALIBRATION_COUNT = 64
_JPEG_QUALITY = 70  # keeps all six archives under 6 MB
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold: equal images then give equal archives


def main() -> None:
    DATA.mkdir(exist_ok=True)
    evaluation = list(shapes.images("val", EVALUATION_COUNT))
    single = list(shapes.single_shape_images("val", EVALUATION_COUNT))
    _write_archive("eval.zip", evaluation)
    _write_archive("eval-cls.zip", single)
    _write_json("eval.json", build_coco(evaluation))
    _write_json("eval-cls.json", build_labels(single))
    _write_archive("calibration.zip", shapes.images("calibration", CALIBRATION_COUNT))
    _write_archive("calibration-cls.zip", shapes.single_shape_images("calibration", CALIBRATION_COUNT))
    stretched = list(shapes.stretched_images("val", EVALUATION_COUNT))
    _write_archive("eval-obb.zip", stretched)
    _write_json("eval-obb.json", build_coco(stretched, oriented=True))
    _write_archive("calibration-obb.zip", shapes.stretched_images("calibration", CALIBRATION_COUNT))


def build_coco(images: Iterable[shapes.Scene], *, oriented: bool = False) -> dict[str, Any]:
    """Return COCO instances and keypoints; image and annotation ids start at 1, category ids at 0.

    If ``oriented``, the objects have the corners of their rotated boxes instead of outlines and keypoints.
    """
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, image in enumerate(images):
        height, width = image.pixels.shape[:2]
        entries.append({"id": index + 1, "file_name": file_name(index), "width": width, "height": height})
        for shape in image.shapes:
            annotations.append(_annotation(shape, len(annotations) + 1, index + 1, oriented))
    names = ["upper left", "upper right", "lower right", "lower left"]
    named = {} if oriented else {"keypoints": names}
    categories = [{"id": label, "name": name, **named} for label, name in enumerate(shapes.CLASSES)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def build_labels(images: Iterable[shapes.Scene]) -> dict[str, Any]:
    """Return the class names, and the class index of each image by its file name."""
    labels = {file_name(index): image.shapes[0].label for index, image in enumerate(images)}
    return {"classes": list(shapes.CLASSES), "labels": labels}


def write_labelled(kind: LabelKind, path: Path, count: int, *, oriented: bool = False) -> None:
    """Write the first ``count`` images of the split ``val`` as an archive that ``spec.evaluation.dataset`` takes.

    ``IMAGE_FOLDER`` has the images of one object, ``YOLO`` boxes and keypoints or, if ``oriented``, the corners of
    rotated boxes, ``COCO`` outlines. The first images are those of ``eval.zip``, ``eval-cls.zip`` or ``eval-obb.zip``.
    """
    draw = shapes.single_shape_images if kind is LabelKind.IMAGE_FOLDER else shapes.images
    draw, task = (shapes.stretched_images, "obb") if oriented else (draw, "pose")
    scenes = {file_name(index): scene for index, scene in enumerate(draw("val", count))}
    folders = {
        name: shapes.CLASSES[scene.shapes[0].label] if kind is LabelKind.IMAGE_FOLDER else "images/val"
        for name, scene in scenes.items()
    }
    files = {f"{folders[name]}/{name}": _encode(scene) for name, scene in scenes.items()}
    if kind is LabelKind.COCO:
        files["instances.json"] = json.dumps(build_coco(scenes.values())).encode()
    if kind is LabelKind.YOLO:
        for name, scene in scenes.items():
            lines = [dataset.label_line(shape, scene, task) for shape in scene.shapes]
            files[f"labels/val/{Path(name).stem}.txt"] = "\n".join(lines).encode()
        files["data.yaml"] = yaml.safe_dump(dataset.describe(task, Path())).encode()
    _write_files(path, files)


def file_name(index: int) -> str:
    return f"{index:03}.jpg"


def _annotation(shape: shapes.Shape, identifier: int, image: int, oriented: bool) -> dict[str, Any]:
    keypoints = [number for x, y in shape.keypoints.tolist() for number in (round(x, 2), round(y, 2), 2)]
    outlined = {
        "segmentation": [[round(number, 2) for number in shape.outline.ravel().tolist()]],
        "keypoints": keypoints,
        "num_keypoints": len(shape.keypoints),
    }
    return {
        "id": identifier,
        "image_id": image,
        "category_id": shape.label,
        "bbox": [round(side, 2) for side in shape.box],
        "area": round(shape.area, 2),
        **({"corners": shape.corners.round(2).ravel().tolist()} if oriented else outlined),
        "iscrowd": 0,
    }


def _write_archive(name: str, images: Iterable[shapes.Scene]) -> None:
    _write_files(DATA / name, {file_name(index): _encode(image) for index, image in enumerate(images)})


def _write_files(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _encode(image: shapes.Scene) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image.pixels).save(encoded, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return encoded.getvalue()


def _write_json(name: str, content: Mapping[str, Any]) -> None:
    (DATA / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
