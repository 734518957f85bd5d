"""Trained models on labelled images: their accuracy by every kind of labels, and what becomes of files that lose it."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import CommandLine, model_export
from converter import labelled
from modelexport.api.reasons import Reason
from modelexport.api.result import Accuracy, Verification
from modelexport.api.spec import DataRef, DropType, Evaluation, OnDrop
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.evaluation import gate
from modelexport_converter.evaluation.classes import BY_NAME, BY_PLACE, MatchedImages, match_images
from modelexport_converter.evaluation.detections import Letterbox, find, find_rotated
from modelexport_converter.evaluation.records import Hits, Matches, Records, value
from modelexport_converter.evaluation.truth import VOID
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import PreparedImages
from modelexport_converter.model import LoadedModel
from models import accuracy
from trained.cells import answer, load_model, run_model
from trained.model import MODELS, truth

COUNT = 8


def match(folder: Path, architecture: str, files: labelled.Files, model: LoadedModel | None = None) -> MatchedImages:
    task = ARCHITECTURES[architecture].task
    return match_images(labelled.read(folder, files, task), model or load_model(architecture), task)


def measure(folder: Path, architecture: str, files: labelled.Files) -> Records:
    matched = match(folder, architecture, files)
    run = partial(run_model, architecture)
    return gate.measure(load_model(architecture), run, matched, ARCHITECTURES[architecture].task)


def test_masks_of_segmenter_equal_pycocotools_on_all_images(tmp_path: Path) -> None:
    found = measure(tmp_path, "YOLOv8-SEG", labelled.yolo(COUNT, "outline"))
    model, images = load_model("YOLOv8-SEG"), labelled.read(tmp_path, labelled.coco(COUNT)).images
    inputs = PreparedImages([image.file for image in images], model.preprocessing, model.input_size)
    answers = {}
    for image, given in zip(images, inputs, strict=True):
        boxes, scores, coefficients, prototypes = run_model("YOLOv8-SEG", given)
        extras = {"coefficients": coefficients, "prototypes": prototypes}
        answers[int(Path(image.file.entry).stem) + 1] = find(Letterbox(image.size, (160, 160)), boxes, scores, **extras)
    expected = accuracy.mask_map(labelled.coco_content(COUNT), answers)
    assert 0.6 < expected < 0.95
    assert value(found) == pytest.approx(expected, abs=0.02)  # the labels of YOLO are rounded


def test_keypoints_are_measured_with_stated_constants(tmp_path: Path) -> None:
    matched = match(tmp_path, "YOLOv8-Pose", labelled.yolo(COUNT, "pose"))
    assert matched.sigmas == (0.1,) * 4
    assert value(measure(tmp_path, "YOLOv8-Pose", labelled.yolo(COUNT, "pose"))) > 0.9


def test_oriented_boxes_are_measured_as_on_all_images(tmp_path: Path) -> None:
    """Labels of YOLO have other digits than those of the tests, so that boxes differ by hundredths of a pixel."""
    found = measure(tmp_path, "YOLOv8-OBB", labelled.oriented(COUNT))
    labels = truth("eval-obb")
    rows = [row for row in labels["annotations"] if row["image_id"] <= COUNT]
    answers = {
        image["id"]: find_rotated(
            Letterbox((image["width"], image["height"]), (160, 160)), *answer("YOLOv8-OBB", image["id"] - 1)
        )
        for image in labels["images"][:COUNT]
    }
    part = {**labels, "images": labels["images"][:COUNT], "annotations": rows}
    assert value(found) == pytest.approx(accuracy.rotated_map(part, answers), abs=0.02)
    assert value(found) > 0.6


def test_classifier_finds_most_likely_folder(tmp_path: Path) -> None:
    found = measure(tmp_path, "YOLOv8-CLS", labelled.folders(12))
    assert (value(found), found.count, found.by_class()) == (1.0, 12, {0: 1.0, 1: 1.0, 2: 1.0})


@pytest.mark.parametrize("kind", ["masks", "coco"])
def test_semantic_network_is_measured_by_masks_or_outlines(tmp_path: Path, kind: str) -> None:
    found = measure(tmp_path, "UNet", getattr(labelled, kind)(COUNT))
    assert value(found) == pytest.approx(0.92, abs=0.03)
    assert set(found.by_class()) == {0, 1, 2, 3}


def painted_pixels(folder: Path, names: tuple[str, ...], content: Any = None) -> np.ndarray[Any, Any]:
    """The classes of the pixels of all images, painted from outlines for a network with these classes."""
    model = replace(load_model("UNet"), class_names=names)
    images = match(folder, "UNet", labelled.coco(COUNT, content), model).images
    truths = [image.truth for image in images]
    return np.concatenate([truth().ravel() for truth in truths if callable(truth)])


def test_pixels_without_outline_are_background_or_do_not_count(tmp_path: Path) -> None:
    known = painted_pixels(tmp_path, ("background", *labelled.NAMES))
    shares = np.bincount(known, minlength=256) / len(known)
    assert shares[0] > 0.3
    without = painted_pixels(tmp_path, tuple(labelled.NAMES))
    assert np.allclose(np.bincount(without, minlength=256)[[0, 1, 2, VOID]] / len(without), shares[[1, 2, 3, 0]])
    last = painted_pixels(tmp_path, (*labelled.NAMES, "_background_"))
    assert np.allclose(np.bincount(last, minlength=256)[:4] / len(last), shares[[1, 2, 3, 0]])


def test_background_of_labels_has_pixels_without_outline(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    content["categories"] = [{"id": 9, "name": "Background"}, *content["categories"]]
    content["categories"].sort(key=lambda row: row["id"])
    found = painted_pixels(tmp_path, tuple(f"class_{index}" for index in range(4)), content)
    assert set(found) == {0, 1, 2, 3}
    assert np.bincount(found)[3] / len(found) > 0.3


def test_listed_detections_are_measured_behind_background(tmp_path: Path) -> None:
    found = measure(tmp_path, "MobileNet", labelled.coco(COUNT))
    assert value(found) > 0.7
    assert set(found.by_class()) == {1, 2, 3}


def test_unknown_class_names_are_refused_with_both_lists(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    content["categories"] = [{"id": index, "name": name} for index, name in enumerate(("helmet", "vest", "Triangle"))]
    with pytest.raises(Failure) as caught:
        match(tmp_path, "YOLOv8", labelled.coco(COUNT, content))
    assert caught.value.reason is Reason.EVALUATION_INVALID
    assert str(caught.value) == (
        "the labels have classes that the model does not have: helmet, vest; the labels have helmet, vest, Triangle, "
        "the model has circle, square, triangle; give labels of the model's classes, with its names"
    )


def test_classes_match_by_name_in_any_order_or_by_place(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    content["categories"] = [{"id": 5, "name": "unused"}, *content["categories"][::-1]]
    files = labelled.coco(COUNT, content)
    by_name = match(tmp_path, "YOLOv8", files)
    unnamed = replace(load_model("YOLOv8"), class_names=("class_0", "class_1", "class_2"))
    by_place = match(tmp_path, "YOLOv8", labelled.coco(COUNT), unnamed)
    assert (by_name.matched_by, by_place.matched_by) == (BY_NAME, BY_PLACE)
    assert [image.truth for image in by_name.images] == [image.truth for image in by_place.images]
    with pytest.raises(Failure, match=r"have 4 classes \(circle, square, triangle, unused\), the model has 3, without"):
        match(tmp_path, "YOLOv8", files, unnamed)


def test_labels_of_other_keypoints_are_refused(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    for row in content["annotations"]:
        row["keypoints"] = row["keypoints"][:9]
    with pytest.raises(Failure, match="has 3 keypoints, the model has 4; give labels of the model's keypoints"):
        match(tmp_path, "YOLOv8-Pose", labelled.coco(COUNT, content))


def hits(*values: int) -> Hits:
    return Hits(np.zeros(len(values), int), np.array(values, bool))


VERIFICATION = Verification("agreement", "0.99", "0.85")
TASK = ARCHITECTURES["YOLOv8-CLS"].task


def asked(**fields: Any) -> Evaluation:
    return Evaluation(DataRef("s3://datasets/val.zip"), **fields)


def judge(evaluation: Evaluation) -> Accuracy:
    return gate.judge(evaluation, TASK, hits(1, 1, 1, 0), hits(1, 1, 0, 0)).accuracy


def test_drop_is_difference_or_share_of_original() -> None:
    found, share = judge(asked()), judge(asked(drop_type=DropType.RELATIVE, max_drop=0.5))
    assert (found.original, found.value, found.drop) == ("0.750000", "0.500000", "0.250000")
    assert (share.drop, share.max_drop, share.kept) == ("0.333333", "0.5", True)


def test_lost_accuracy_fails_unless_it_is_published() -> None:
    found = judge(asked())
    with pytest.raises(Failure) as caught:
        gate.require_kept(asked(), found, VERIFICATION)
    assert (caught.value.reason, caught.value.accuracy) == (Reason.ACCURACY_LOST, found)
    assert "top-1 0.750000 -> 0.500000, a drop of 0.250000 (95 % interval" in str(caught.value)
    gate.require_kept(asked(on_drop=OnDrop.PUBLISH), found, VERIFICATION)
    gate.require_kept(asked(), judge(asked(max_drop=0.25)), VERIFICATION)


def test_original_that_is_never_right_is_refused() -> None:
    with pytest.raises(Failure, match="the original model reaches top-1 0 on 2 labelled images") as caught:
        gate.judge(asked(), TASK, hits(0, 0), hits(1, 1))
    assert caught.value.reason is Reason.EVALUATION_INVALID


def test_models_are_compared_on_images_that_both_saw() -> None:
    found = gate.judge(asked(), TASK, hits(1, 0, 1, 1), hits(1, 0)).accuracy
    assert (found.images, found.original, found.value) == (2, "0.500000", "0.500000")


def test_few_images_and_recorded_accuracy_are_remarked() -> None:
    found = judge(asked(max_drop=0.3))
    model = replace(load_model("YOLOv8-CLS"), recorded={"metrics/accuracy_top1": 0.98})
    told = list(gate.remarks(found, BY_PLACE, model))
    assert told[0].startswith("warning: 4 images do not tell whether the drop is above or below 0.3")
    assert "by their order, not by names" in told[1]
    assert told[2].startswith(
        "warning: the checkpoint records top-1 0.9800 from its training, the original reaches 0.75"
    )
    near = replace(model, recorded={"metrics/accuracy_top1": 0.74, "fitness": "x"})
    assert not [line for line in gate.remarks(found, BY_NAME, near) if "records" in line]


def test_evaluation_stops_after_its_seconds(tmp_path: Path) -> None:
    matched = match(tmp_path, "YOLOv8-CLS", labelled.folders(12))
    run = partial(run_model, "YOLOv8-CLS")
    assert gate.measure(load_model("YOLOv8-CLS"), run, matched, TASK, limit=0).count == 1


def test_image_without_detections_counts_as_missed() -> None:
    nothing = np.zeros((0, 10), bool)
    empty = Matches(np.zeros(0, int), np.zeros(0, int), np.zeros(0), nothing, nothing, np.ones((2, 1), int))
    assert value(empty) == 0


def test_exports_fail_or_publish_on_lost_accuracy(tmp_path: Path) -> None:
    store = tmp_path / "modelexport-store"
    (store / "checkpoints").mkdir(parents=True)
    shutil.copy(MODELS / "weights/yolox_nano.pth", store / "checkpoints/a.pth")
    labelled.write(store / "datasets/val.zip", labelled.coco(64))
    shutil.copy(MODELS / "data/calibration.zip", store / "datasets/calibration.zip")
    model = {"architecture": "YOLOX", "checkpoint": {"uri": "s3://checkpoints/a.pth"}}
    calibration = {"dataset": {"uri": "s3://datasets/calibration.zip"}, "samples": 8}
    evaluation = {"dataset": {"uri": "s3://datasets/val.zip"}, "maxDrop": "0"}
    bodies = []
    for name, on_drop in (("strict", "Fail"), ("lenient", "Publish")):
        spec = {"model": model, "calibration": calibration, "evaluation": {**evaluation, "onDrop": on_drop}}
        bodies.append(model_export(name, "LiteRT/INT8", **spec, quantization={"effort": "Ranges"}))
    command_line = CommandLine(tmp_path, fake=False)
    command_line.write(*bodies)
    ended = command_line("run", "export.yaml", "-o", "json", "--jobs", 2)
    strict, lenient = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert (strict["reason"], strict["artifact"]) == ("AccuracyLost", None)
    assert (lenient["state"], lenient["reason"]) == ("succeeded", "Succeeded")
    assert "warning: the accuracy is not kept: mAP50-95" in lenient["message"]
    assert strict["accuracy"] == lenient["accuracy"]
    assert strict["accuracy"]["images"] == 64
    assert 0 < float(lenient["accuracy"]["drop"]) < 0.03
    assert "tried Ranges (drop " in strict["message"]
    assert strict["quantization"]["stopped"] == "effort Ranges keeps no layers in float"
    (report,) = (json.loads(path.read_text()) for path in store.rglob("report.json"))
    assert report["accuracy"] == lenient["accuracy"]
    assert report["evaluation"]["matchedBy"] == "name"
    assert list(report["evaluation"]["classes"]) == ["0 circle", "1 square", "2 triangle"]
    shown = command_line("get", "lenient", "--store", "modelexport-store").stdout
    assert "mAP50-95" in shown
    assert lenient["accuracy"]["interval"][0] in shown


def test_lost_accuracy_is_recovered_by_layers_in_float(tmp_path: Path) -> None:
    store = tmp_path / "modelexport-store"
    (store / "checkpoints").mkdir(parents=True)
    shutil.copy(MODELS / "weights/yolox_nano.pth", store / "checkpoints/a.pth")
    labelled.write(store / "datasets/val.zip", labelled.coco(64))
    shutil.copy(MODELS / "data/calibration.zip", store / "datasets/calibration.zip")
    bodies = []  # ranges of two images lose .017, far more than the noise of 64 labelled ones
    for name, effort, drop in (("climbed", "Auto", "0"), ("kept", "Auto", "1")):
        evaluation = {"dataset": {"uri": "s3://datasets/val.zip"}, "maxDrop": drop, "onDrop": "Publish"}
        model: dict[str, Any] = {"architecture": "YOLOX", "checkpoint": {"uri": "s3://checkpoints/a.pth"}}
        calibration: dict[str, Any] = {"dataset": {"uri": "s3://datasets/calibration.zip"}, "samples": 2}
        spec: dict[str, Any] = {"model": model, "calibration": calibration, "evaluation": evaluation}
        bodies.append(model_export(name, "LiteRT/INT8", **spec, quantization={"effort": effort, "maxSizeRatio": "0.5"}))
    command_line = CommandLine(tmp_path, fake=False)
    command_line.write(*bodies)
    ended = command_line("run", "export.yaml", "-o", "json", "--jobs", 2)
    climbed, kept = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert [rung["floatLayers"] for rung in kept["quantization"]["rungs"]] == [0]
    made = climbed["quantization"]
    drops = [float(rung["drop"]) for rung in made["rungs"]]
    assert drops[0] > 0
    assert made["effort"] == "MixedPrecision"
    assert float(climbed["accuracy"]["drop"]) == min(drops) < drops[0]
    report = next(json.loads(path.read_text()) for path in store.rglob("climbed/*/report.json"))
    assert len(report["floatLayers"]) == made["floatLayers"] > 0
    assert 0 < sum(report["floatLayerShares"]) < 1
    assert "MixedPrecision" in command_line("get", "climbed", "--store", "modelexport-store").stdout


def test_original_is_measured_once_for_all_targets(tmp_path: Path) -> None:
    store, folder = tmp_path / "modelexport-store", tmp_path / "modelexport-store/exports/default/shapes"
    (store / "checkpoints").mkdir(parents=True)
    shutil.copy(MODELS / "weights/yolox_nano.pth", store / "checkpoints/a.pth")
    labelled.write(store / "datasets/val.zip", labelled.coco(COUNT))
    model = {"architecture": "YOLOX", "checkpoint": {"uri": "s3://checkpoints/a.pth"}}
    evaluation = {"dataset": {"uri": "s3://datasets/val.zip"}}
    command_line = CommandLine(tmp_path, fake=False)

    def export(target: str) -> dict[str, Any]:
        command_line.write(model_export("shapes", target, model=model, evaluation=evaluation))
        (found,) = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
        assert found["state"] == "succeeded", found["message"]
        return {key: found["accuracy"][key] for key in ("original", "images")}

    first = export("ONNX/FP32")
    shared = folder / "original.records"
    content = shared.read_bytes()
    os.utime(shared, ns=(1, 1))
    assert export("ONNX/FP16") == first
    assert shared.stat().st_mtime_ns == 1, "it is measured and written again"
    shared.write_bytes(content[:-1] + b"\1")
    assert export("LiteRT/FP32") == first
    assert shared.read_bytes() == content, "what was refused is not measured again"
