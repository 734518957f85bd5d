"""Compares the answer of a model to one image with its labels, by the metric of the task."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from modelexport.matrix.support import Task
from modelexport_converter.backends import Array
from modelexport_converter.evaluation.coordinates import mask_pixels
from modelexport_converter.evaluation.detections import (
    MOST_DETECTIONS,
    ImageDetections,
    Letterbox,
    Stretched,
    decode_outputs,
)
from modelexport_converter.evaluation.records import OVERLAPS, Hits, Matches, Numbers, Overlaps, Records
from modelexport_converter.evaluation.truth import VOID, ClassMap, LabelledObject, Objects, Size, Truth
from modelexport_converter.model import LoadedModel
from modelexport_converter.rotated_boxes import overlaps

BOXES, MASKS, KEYPOINTS = "bbox", "segm", "keypoints"
"""The names of pycocotools for what is compared."""
ROTATED = "rotated boxes"
"""What pycocotools compares by our overlaps."""
_COMPARED = {
    Task.DETECTION: BOXES,
    Task.INSTANCE_SEGMENTATION: MASKS,
    Task.KEYPOINTS: KEYPOINTS,
    Task.ORIENTED_DETECTION: ROTATED,
}


class Scorer(Protocol):
    """Collects records of one model, image by image."""

    def add(self, outputs: Sequence[Array], size: Size, truth: Truth) -> None:
        """Compare the outputs for an image of a size with its labels, whose classes are those of the model."""

    def records(self) -> Records:
        """Return what was collected."""


def start_scoring(task: Task, model: LoadedModel, sigmas: Sequence[float]) -> Scorer:
    """Return the scorer of a task; ``sigmas`` are the constants of each keypoint."""
    if task is Task.CLASSIFICATION:
        return _Classes()
    if task is Task.SEMANTIC_SEGMENTATION:
        return _Pixels(max(2, len(model.class_names)))
    return DetectionScorer(model, _COMPARED[task], sigmas)


@dataclass
class DetectionScorer:
    """Matches detections to objects as pycocotools does, one image at a time to save memory."""

    model: LoadedModel
    compared: str
    sigmas: Sequence[float] = ()
    parts: list[tuple[Any, ...]] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)

    def add(self, outputs: Sequence[Array], size: Size, truth: Truth) -> None:
        """Compare the detections in the outputs with the objects of the image."""
        assert isinstance(truth, tuple)
        named = {output.name: values for output, values in zip(self.model.outputs, outputs, strict=True)}
        height, width = self.model.input_size
        is_letterboxed = self.model.preprocessing.resize == "letterbox"
        placement = Letterbox(size, (width, height)) if is_letterboxed else Stretched(size)
        self.add_detections(decode_outputs(placement, named), size, truth)

    def add_detections(self, found: ImageDetections, size: Size, truth: Objects) -> None:
        """Compare detections with the objects of the image."""
        image, counted = len(self.truths), np.zeros(len(self.model.class_names), np.int64)
        for one in truth:
            counted[one.label] += not (one.crowd or (self.compared == KEYPOINTS and not _count_labelled(one)))
        self.truths.append(counted)
        results = list(_results(found, self.compared))
        if not results:
            return
        for entry in _match(truth, results, size, self.compared, self.sigmas):
            scores = np.asarray(entry["dtScores"], np.float64)
            whole = np.full(len(scores), image), np.full(len(scores), entry["category_id"])
            self.parts.append((*whole, scores, entry["dtMatches"].T > 0, entry["dtIgnore"].T.astype(bool)))

    def records(self) -> Records:
        """Return what was collected."""
        nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), *[np.zeros((0, len(OVERLAPS)), bool)] * 2
        image, label, score, matched, ignored = map(np.concatenate, zip(nothing, *self.parts, strict=True))
        return Matches(image, label, score, matched, ignored, np.array(self.truths))


def _count_labelled(one: LabelledObject) -> int:
    return 0 if one.keypoints is None else int((one.keypoints[:, 2] > 0).sum())


def _results(found: ImageDetections, compared: str) -> Iterable[dict[str, Any]]:
    for index, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
        row = {"image_id": 1, "category_id": int(found.labels[index]), "score": float(found.scores[index])}
        if compared == BOXES:
            yield row | {"bbox": [left, top, right - left, bottom - top]}
        elif found.rotated is not None:
            yield row | {"bbox": [left, top, right - left, bottom - top], ROTATED: found.rotated[index]}
        elif compared == MASKS:
            yield row | {"segmentation": dict(found.masks[index])}
        else:
            yield row | {"keypoints": found.keypoints[index].ravel().tolist()}


def _match(
    truth: Objects, results: list[dict[str, Any]], size: Size, compared: str, sigmas: Sequence[float]
) -> list[Mapping[str, Any]]:
    """Return what pycocotools says of each class of an image."""
    labels = {one.label for one in truth} | {row["category_id"] for row in results}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        reference = COCO()
        reference.dataset = {
            "images": [{"id": 1, "width": size[0], "height": size[1]}],
            "categories": [{"id": label} for label in sorted(labels)],
            "annotations": [_annotation(number, one) for number, one in enumerate(truth, 1)],
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), BOXES if compared == ROTATED else compared)
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        if compared == KEYPOINTS:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if compared == ROTATED:
            evaluation.computeIoU = partial(_overlap_rotated, evaluation)
        evaluation.evaluate()
    return [entry for entry in evaluation.evalImgs if entry is not None]


def _overlap_rotated(evaluation: Any, image: int, label: int) -> Any:
    """Return the overlaps of a class of an image as pycocotools wants them: by detection, best first, and by object."""
    objects, found = (rows[image, label] for rows in (evaluation._gts, evaluation._dts))
    if not objects or not found:
        return []
    order = np.argsort([-row["score"] for row in found], kind="stable")[: evaluation.params.maxDets[-1]]
    detections = np.array([row[ROTATED] for row in found])[order]
    return overlaps(detections, np.array([row[ROTATED] for row in objects]))


def _annotation(number: int, one: LabelledObject) -> dict[str, Any]:
    left, top, right, bottom = one.box
    row = {
        "id": number,  # from 1 on: pycocotools takes an object of id 0 for none
        "image_id": 1,
        "category_id": one.label,
        "bbox": [left, top, right - left, bottom - top],
        "area": one.area,
        "iscrowd": int(one.crowd),
    }
    if one.mask is not None:
        row["segmentation"] = dict(one.mask)
    if one.rotated is not None:
        row[ROTATED] = one.rotated
    if one.keypoints is not None:
        row |= {"keypoints": one.keypoints.ravel().tolist(), "num_keypoints": _count_labelled(one)}
    return row


@dataclass
class _Classes:
    """Compares the likeliest class with the class of the image."""

    labels: list[int] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)

    def add(self, outputs: Sequence[Array], _size: Size, truth: Truth) -> None:
        """Compare the probabilities with the class of an image."""
        assert isinstance(truth, int)
        self.labels.append(truth)
        self.hits.append(int(outputs[0].reshape(-1).argmax()) == truth)

    def records(self) -> Records:
        """Return what was collected."""
        return Hits(np.array(self.labels, np.int64), np.array(self.hits, bool))


@dataclass
class _Pixels:
    """Compares the class of every pixel at the size of the image, into which the answer is stretched back."""

    classes: int
    rows: list[Any] = field(default_factory=list)

    def add(self, outputs: Sequence[Array], size: Size, truth: Truth) -> None:
        """Compare the likeliest class of each pixel with the labels; those labelled as ``VOID`` do not count."""
        assert callable(truth)
        expected, probabilities = truth(), outputs[0][0]
        # A single class has the pixels above 0.5.
        chosen = probabilities.argmax(0) if len(probabilities) > 1 else probabilities[0] > 0.5
        answer = np.asarray(Image.fromarray(np.asarray(chosen, np.uint8)).resize(size, Image.Resampling.NEAREST))
        counted = expected != VOID
        pairs = expected[counted].astype(np.int64) * self.classes + answer[counted]
        table = np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)
        self.rows.append((np.diagonal(table), table.sum(1), table.sum(0)))

    def records(self) -> Records:
        """Return what was collected."""
        return Overlaps(*(np.array(column) for column in zip(*self.rows, strict=True)))


def paint(objects: Objects, size: Size, elsewhere: int) -> ClassMap:
    """Return the class of every pixel from masks of objects, later ones above earlier ones.

    ``elsewhere`` is the class of pixels without an object.
    """
    painted = np.full(size[::-1], elsewhere, np.uint8)
    for one in objects:
        if one.mask is not None:
            painted[mask_pixels(one.mask)] = VOID if one.crowd else one.label
    return painted


def keypoint_sigmas(count: int, given: Sequence[float]) -> Numbers:
    """Return the constants of keypoints' similarity: the given ones, COCO's for 17, else ultralytics' 1 / K."""
    if len(given) == count:
        return np.array(given)
    return np.asarray(_PERSON if count == len(_PERSON) else np.full(count, 1 / count))


_PERSON = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""COCO's constants of nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles."""
