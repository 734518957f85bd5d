"""The OpenAPI schema of the status of a ModelExport."""

from modelexport.api.result import (
    ABSENCE_LENGTH,
    ASSUMPTION_LENGTH,
    ASSUMPTIONS_LIMIT,
    WARNING_LENGTH,
    WARNINGS_LIMIT,
    Reference,
)
from modelexport.crds import quantization
from modelexport.crds.schema import integer, keyed_list, plain_list, record, text, time, words
from modelexport.matrix.options import TARGETS_LIMIT
from modelexport.planning.progress import MOST_PERCENT, MOST_SECONDS

ATTEMPTS_LIMIT = 2**31 - 1
EXACT_LIMIT = 2**53 - 1
"""The API server compares limits as floating-point numbers, which are exact up to this value."""
MESSAGE_LIMIT = 2048
NOTHING_OBSERVED = -1
"""Observed generation of an export that the operator has not seen yet; no real generation equals it."""

_FIDELITY = record(
    "Answers of the file on the images of spec.calibration, measured with the answers of the original model as "
    "labels. Decimals are text.",
    {
        "metric": text(
            "What value is a share of: boxes, masks or keypoints (detections that both have, of all that one of "
            "them has), mean-iou (pixels of each class) or top-1 (images with the same class).",
            63,
        ),
        "value": text("Measured value, 0 to 1.", 63),
        "threshold": text("Required minimum; missing if the answers are too few to refuse a file.", 63),
        "images": integer("Number of images.", 0, EXACT_LIMIT),
        "kept": integer("Answers of the model that the file gives too.", 0, EXACT_LIMIT),
        "missed": integer("Answers of the model that the file does not give.", 0, EXACT_LIMIT),
        "invented": integer("Answers of the file that the model does not give.", 0, EXACT_LIMIT),
        "iou": text("Mean intersection over union of the kept boxes.", 63),
        "maskIoU": text("Mean intersection over union of the kept masks.", 63),
        "keypointSimilarity": text("Mean object keypoint similarity (OKS) of the kept detections.", 63),
        "scoreShift": text("Mean score in the file minus the score in the model, of kept detections.", 63),
    },
    required=("metric", "value", "images"),
)

_VERIFICATION = record(
    "Agreement of the file with the original FP32 model, and the origin of that model. Decimals are text.",
    {
        "metric": text("Name of the metric.", 63),
        "value": text("Measured value.", 63),
        "threshold": text("Required minimum.", 63),
        "reference": words(
            "Origin of the original model: Checkpoint (built from the layers that the checkpoint lists), "
            "Program (the graph of a .pt2 archive) or Rebuilt (the stock network of the architecture, "
            "filled with the checkpoint's weights).",
            list(Reference),
        ),
        "assumptions": plain_list(
            "Assumed properties of the original model, which the checkpoint does not specify.",
            text("One assumption, for example activation SiLU.", ASSUMPTION_LENGTH),
            ASSUMPTIONS_LIMIT,
        ),
        "warnings": plain_list(
            "Signs that the original model differs from the trained model.",
            text("One warning.", WARNING_LENGTH),
            WARNINGS_LIMIT,
        ),
        "fidelity": _FIDELITY,
        "fidelityAbsent": text("Reason for a missing fidelity.", ABSENCE_LENGTH),
    },
    required=("metric", "value", "threshold"),
)

_ACCURACY = record(
    "Accuracy of the original model and of the file on the images of spec.evaluation. Decimals are text.",
    {
        "metric": text("Metric of the task: mAP50-95, mask-mAP50-95, OKS-mAP50-95, mIoU or top-1.", 63),
        "original": text("Accuracy of the original model.", 63),
        "value": text("Accuracy of the file.", 63),
        "drop": text("Loss of the file, as spec.evaluation.dropType counts it; negative if it is better.", 63),
        "maxDrop": text("Allowed loss.", 63),
        "images": integer("Number of evaluated images.", 0, EXACT_LIMIT),
        "interval": plain_list(
            "The limits between which the loss lies in 95 of 100 data sets like this one (paired bootstrap over "
            "the images).",
            text("A limit.", 63),
            2,
        ),
    },
    required=("metric", "original", "value", "drop", "maxDrop", "images", "interval"),
)

_PROGRESS = record(
    "Progress of a running target. percentage and estimatedRemainingSeconds are estimated from the measurements "
    "in the support matrix, and absent if nothing comparable was measured. They are updated only together with "
    "another field of the status, and hold for lastUpdatedTime.",
    {
        "stage": text("The running container: fetch, convert or publish.", 63),
        "startTime": time("When the container started."),
        "percentage": integer("Percentage of the expected time that has passed.", 0, MOST_PERCENT),
        "estimatedRemainingSeconds": integer(
            "Expected seconds left; 0 if the conversion takes longer than expected.", 0, MOST_SECONDS
        ),
        "lastUpdatedTime": time("The time for which percentage and estimatedRemainingSeconds hold."),
    },
    required=("stage", "lastUpdatedTime"),
)

_TARGET = record(
    "The state of one target.",
    {
        "format": text("File format.", 63),
        "precision": text("Numeric precision of the weights.", 63),
        "name": text("Name of the target, if it has one.", 63),
        "state": text("Pending, Queued, Running, Succeeded or Failed.", 63),
        "reason": text("Machine-readable reason from a closed list (docs/reasons.md).", 63),
        "message": {
            "type": "string",
            "description": "Human-readable explanation, with the remedy.",
            "maxLength": MESSAGE_LIMIT,
        },
        "attempts": integer("Number of Pods started.", 0, ATTEMPTS_LIMIT),
        "scheme": text("Recipe: how numbers are stored and computed, for example static_wi8_ai8.", 63),
        "jobName": text("Name of the Job.", 63),
        "nodeName": text("Node of the last attempt.", 253),
        "startTime": time("When the Job started."),
        "completionTime": time("When the Job ended."),
        "progress": _PROGRESS,
        "artifact": record(
            "The published file.",
            {
                "uri": text("URI of the file.", MESSAGE_LIMIT),
                "sha256": text("SHA-256 of the file.", 64),
                "sizeBytes": integer("Size of the file in bytes.", 0, EXACT_LIMIT),
            },
            required=("uri", "sha256", "sizeBytes"),
        ),
        "reportURI": text("URI of the full report, next to the file.", MESSAGE_LIMIT),
        "verification": _VERIFICATION,
        "accuracy": _ACCURACY,
        "quantization": quantization.result(),
    },
    required=("format", "precision", "state"),
)

_CONDITION = record(
    "A condition.",
    {
        "type": text("Ready, Reconciling, Stalled or AccuracyKept.", 316),
        "status": words("Whether the condition holds.", ("True", "False", "Unknown")),
        "reason": text("Machine-readable reason from a closed list (docs/reasons.md).", 1024),
        "message": {"type": "string", "description": "Human-readable explanation.", "maxLength": MESSAGE_LIMIT},
        "observedGeneration": integer("The generation of the spec that the condition describes.", 0, EXACT_LIMIT),
        "lastTransitionTime": time("When the status of the condition last changed."),
    },
    required=("type", "status", "reason", "message", "lastTransitionTime"),
)

STATUS = record(
    "The observed state, written by the operator.",
    {
        "observedGeneration": integer(
            "The generation of the spec that this status describes; -1 until the operator has seen the object.",
            NOTHING_OBSERVED,
            EXACT_LIMIT,
        ),
        "ready": text("Published targets out of all targets, for example 7/9.", 16),
        "progress": text(
            "Overall progress at the last status update, for example 55%. Absent once all targets have ended.",
            16,
        ),
        "startTime": time("When the first Job started."),
        "completionTime": time("When the last target ended."),
        "conditions": keyed_list(
            "Ready, Reconciling and Stalled, as kstatus defines them; after an evaluation AccuracyKept, which says "
            "whether no file lost more accuracy than is allowed.",
            ("type",),
            _CONDITION,
            0,
            8,
        ),
        "targets": {
            **plain_list("The state of every target.", _TARGET, TARGETS_LIMIT),
            "x-kubernetes-list-type": "atomic",
        },
        "pageURI": text(
            "URI of the page about all targets, report.html, once the first of them is published.", MESSAGE_LIMIT
        ),
    },
    # kstatus treats an object without a status as done: Flux would report it ready before it is reconciled.
    default={"observedGeneration": NOTHING_OBSERVED},
)
