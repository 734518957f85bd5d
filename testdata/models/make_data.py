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

from PIL import Image

from models import shapes

DATA = Path(__file__).parent / "data"
EVALUATION_COUNT = 128
CALIBRATION_COUNT = 64
_JPEG_QUALITY = 70  # keeps all four archives under 4 MB
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


def build_coco(images: Iterable[shapes.Scene]) -> dict[str, Any]:
    """Return COCO instances and keypoints; image and annotation ids start at 1, category ids at 0."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, image in enumerate(images):
        height, width = image.pixels.shape[:2]
        entries.append({"id": index + 1, "file_name": file_name(index), "width": width, "height": height})
        for shape in image.shapes:
            annotations.append(_annotation(shape, len(annotations) + 1, index + 1))
    names = ["upper left", "upper right", "lower right", "lower left"]
    categories = [{"id": label, "name": name, "keypoints": names} for label, name in enumerate(shapes.CLASSES)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def build_labels(images: Iterable[shapes.Scene]) -> dict[str, Any]:
    """Return the class names, and the class index of each image by its file name."""
    labels = {file_name(index): image.shapes[0].label for index, image in enumerate(images)}
    return {"classes": list(shapes.CLASSES), "labels": labels}


def file_name(index: int) -> str:
    return f"{index:03}.jpg"


def _annotation(shape: shapes.Shape, identifier: int, image: int) -> dict[str, Any]:
    keypoints = [number for x, y in shape.keypoints.tolist() for number in (round(x, 2), round(y, 2), 2)]
    return {
        "id": identifier,
        "image_id": image,
        "category_id": shape.label,
        "bbox": [round(side, 2) for side in shape.box],
        "area": round(shape.area, 2),
        "segmentation": [[round(number, 2) for number in shape.outline.ravel().tolist()]],
        "keypoints": keypoints,
        "num_keypoints": len(shape.keypoints),
        "iscrowd": 0,
    }


def _write_archive(name: str, images: Iterable[shapes.Scene]) -> None:
    with zipfile.ZipFile(DATA / name, "w") as archive:
        for index, image in enumerate(images):
            encoded = io.BytesIO()
            Image.fromarray(image.pixels).save(encoded, "JPEG", quality=_JPEG_QUALITY, optimize=True)
            archive.writestr(zipfile.ZipInfo(file_name(index), _EPOCH), encoded.getvalue())


def _write_json(name: str, content: Mapping[str, Any]) -> None:
    (DATA / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
