"""Measures both models on the labelled images and decides whether a file keeps the accuracy of the original."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelexport.api.reasons import Reason
from modelexport.api.result import Accuracy, Verification
from modelexport.api.rungs import QuantizationResult
from modelexport.api.spec import EVALUATION_SECONDS_LIMIT, DropType, Evaluation, OnDrop
from modelexport.logs import announce
from modelexport.matrix.support import Task
from modelexport_converter.backends import Run
from modelexport_converter.evaluation.bootstrap import RESAMPLES, Loss, interval
from modelexport_converter.evaluation.classes import BY_PLACE, MatchedImages
from modelexport_converter.evaluation.coordinates import is_finite
from modelexport_converter.evaluation.opening import EvaluationSet
from modelexport_converter.evaluation.records import Numbers, Records, value
from modelexport_converter.evaluation.scoring import start_scoring
from modelexport_converter.evaluation.truth import invalid
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import PreparedImages
from modelexport_converter.model import LoadedModel

ANNOUNCED_EVERY = 10.0
FAR = 0.1
"""Difference to the accuracy that the checkpoint records, from which one of the two must be wrong."""
_TRAINED = {
    Task.DETECTION.metric: "metrics/mAP50-95(B)",
    Task.INSTANCE_SEGMENTATION.metric: "metrics/mAP50-95(M)",
    Task.KEYPOINTS.metric: "metrics/mAP50-95(P)",
    Task.CLASSIFICATION.metric: "metrics/accuracy_top1",
}
"""The keys of ``train_metrics`` in checkpoints of ultralytics."""


def measure(
    model: LoadedModel,
    run: Run,
    matched: MatchedImages,
    task: Task,
    limit: float = EVALUATION_SECONDS_LIMIT,
) -> Records:
    """Run a model, or a file made from it, on labelled images and return the records.

    Args:
        model: describes the outputs.
        run: runs the model or the file on one input.
        matched: the images, with labels in the classes of the model.
        task: the task of the model.
        limit: seconds after which no further image is begun.
    """
    images = matched.images
    inputs = PreparedImages([image.file for image in images], model.preprocessing, model.input_size)
    scorer = start_scoring(task, model, matched.sigmas)
    start = announced = time.monotonic()
    for count, image in enumerate(images, 1):
        scorer.add(run(inputs[count - 1]), image.size, image.truth)
        now = time.monotonic()
        if now - announced > ANNOUNCED_EVERY or count == len(images):
            announce("evaluated", images=count, of=len(images))
            announced = now
        if now - start > limit:
            announce("evaluation ends early", images=count, of=len(images), seconds=limit)
            break
    return scorer.records()


@dataclass(frozen=True)
class Judgement:
    """The accuracy of a file and of the original, and the same by class: (original, file) by the class's index."""

    accuracy: Accuracy
    by_class: Mapping[int, tuple[float, float]]


def judge(evaluation: Evaluation, task: Task, original: Records, file: Records) -> Judgement:
    """Compare the records of the original and of a file, on the images that both have.

    Raises:
        Failure: ``EvaluationInvalid``: the original is right nowhere, so nothing can be lost.
    """
    count = min(original.count, file.count)
    original, file = original.first(count), file.first(count)
    loss = _LOSSES[evaluation.drop_type]
    before, after = value(original), value(file)
    if not before:
        raise invalid(
            f"the original model reaches {task.metric} 0 on {count} labelled images; give labels of what it detects"
        )
    low, high = interval(original, file, loss)
    accuracy = Accuracy(
        metric=task.metric,
        original=f"{before:.6f}",
        value=f"{after:.6f}",
        drop=f"{float(loss(np.array(before), np.array(after))):.6f}",
        max_drop=f"{evaluation.max_drop:g}",
        images=count,
        interval=(f"{low:.6f}", f"{high:.6f}"),
    )
    first, second = original.by_class(), file.by_class()
    return Judgement(accuracy, {label: (own, second.get(label, 0.0)) for label, own in first.items()})


def require_kept(
    evaluation: Evaluation,
    accuracy: Accuracy,
    verification: Verification,
    quantization: QuantizationResult | None = None,
) -> None:
    """Refuse a file that lost more than is allowed, unless the export wants it published all the same.

    Raises:
        Failure: ``AccuracyLost``, with the numbers.
    """
    if accuracy.kept or evaluation.on_drop is OnDrop.PUBLISH:
        return
    tried = f"{quantization.describe()}; " if quantization else ""
    message = (
        f"the file loses more accuracy than is allowed: {accuracy.describe()}; {tried}choose a higher "
        "precision or better calibration images, raise maxDrop, or set spec.evaluation.onDrop: Publish"
    )
    raise Failure(Reason.ACCURACY_LOST, message, verification, accuracy, quantization)


def remarks(
    accuracy: Accuracy, matched_by: str, model: LoadedModel, quantization: QuantizationResult | None = None
) -> Iterator[str]:
    """Yield the warnings and remarks about the measurement for the user."""
    trained = recorded_accuracy(model, accuracy.metric)
    low, high = map(float, accuracy.interval)
    if not accuracy.kept:
        tried = f"; {quantization.describe()}" if quantization else ""
        yield f"warning: the accuracy is not kept: {accuracy.describe()}{tried}"
    elif low <= float(accuracy.max_drop) < high:
        yield (
            f"warning: {accuracy.images} images do not tell whether the drop is above or below {accuracy.max_drop} "
            f"(95 % interval {accuracy.interval[0]} to {accuracy.interval[1]}); give more labelled images"
        )
    if matched_by == BY_PLACE:
        yield "the classes of the labels were matched with those of the model by their order, not by names"
    if trained is not None and abs(trained - float(accuracy.original)) > FAR:
        yield (
            f"warning: the checkpoint records {accuracy.metric} {trained:.4f} from its training, the original reaches "
            f"{float(accuracy.original):.4f} here: the labels, or the images, are others than those of the training"
        )


def recorded_accuracy(model: LoadedModel, metric: str) -> float | None:
    """Return the accuracy that a checkpoint of ultralytics records of its own validation, if it has one."""
    found = model.recorded.get(_TRAINED.get(metric, ""))
    return float(found) if is_finite(found) and 0 <= found <= 1 else None


def describe(
    evaluation: Evaluation,
    found: EvaluationSet,
    matched: MatchedImages,
    judgement: Judgement,
    model: LoadedModel,
) -> dict[str, Any]:
    """Return the section of the report about the evaluation."""
    names = model.class_names
    names = names if len(names) > 1 else ("background", *names)
    return {
        "labels": str(found.labels.kind),
        "matchedBy": matched.matched_by,
        "dropType": str(evaluation.drop_type),
        "onDrop": str(evaluation.on_drop),
        "available": len(found.labels.images),
        "chosen": len(found.images),
        "calibrating": found.calibrating,
        "unreadable": found.unreadable,
        "digest": found.digest,
        "resamples": RESAMPLES,
        "sigmas": matched.sigmas,
        "recorded": recorded_accuracy(model, judgement.accuracy.metric),
        "classes": {
            f"{label} {names[label]}": {"original": round(before, 6), "value": round(after, 6)}
            for label, (before, after) in sorted(judgement.by_class.items())
        },
    }


def _absolute(before: Numbers, after: Numbers) -> Numbers:
    return before - after


def _relative(before: Numbers, after: Numbers) -> Numbers:
    """Return the loss as a share of the original's accuracy; 0 where this is 0, as nothing can be lost."""
    return np.divide(before - after, before, out=np.zeros_like(before), where=before > 0)


_LOSSES: Mapping[DropType, Loss] = {DropType.ABSOLUTE: _absolute, DropType.RELATIVE: _relative}
