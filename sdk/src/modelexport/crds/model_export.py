"""The OpenAPI schema of a ModelExport, generated from the support matrix."""

from itertools import groupby

from modelexport.api.result import (
    ABSENCE_LENGTH,
    ASSUMPTION_LENGTH,
    ASSUMPTIONS_LIMIT,
    WARNING_LENGTH,
    WARNINGS_LIMIT,
    Reference,
)
from modelexport.api.spec import (
    ANCHOR_NUMBERS,
    BUCKET,
    CHANNELS_LIMIT,
    CLASS_COUNT_LIMIT,
    COLOR_ORDERS,
    DEFAULT_DROP,
    DEFAULT_EVALUATED,
    DEFAULT_SAMPLES,
    DETECTIONS_LIMIT,
    DROP_EXAMPLE,
    FRACTION_EXAMPLE,
    FRACTION_PATTERN,
    INPUT_SIZE_LIMIT,
    LEVELS_LIMIT,
    NORMALISED_PROBLEM,
    NOT_EVALUATED,
    PER_LEVEL_LIMIT,
    PIXEL_RANGES,
    POSITIVE_FRACTION_PATTERN,
    RATIO_PATTERN,
    SAMPLES_LIMIT,
    SHA256_PATTERN,
    STATED_PARAMETERS,
    URI_LIMIT,
    WITHOUT_EVALUATION,
    DeletionPolicy,
    DropType,
    LabelKind,
    OnDrop,
)
from modelexport.crds import quantization
from modelexport.crds.options import (
    architecture_rules,
    calibration_rules,
    format_rules,
    name_schema,
    options_schema,
    unique_rule,
)
from modelexport.crds.schema import (
    Schema,
    cel_list,
    flag,
    integer,
    keyed_list,
    plain_list,
    record,
    rule,
    text,
    time,
    visible,
    words,
)
from modelexport.matrix.options import TARGETS_LIMIT
from modelexport.matrix.support import ARCHITECTURES, TARGETS, Architecture, Format, Precision, SupportLevel, Task
from modelexport.names import LABEL_LIMIT
from modelexport.planning.progress import MOST_PERCENT, MOST_SECONDS

NAME_PROBLEM = f"becomes a label of the Jobs; use at most {LABEL_LIMIT} characters"
TTL_LIMIT = 2**31 - 1
EXACT_LIMIT = 2**53 - 1
"""The API server compares limits as floating-point numbers, which are exact up to this value."""
MESSAGE_LIMIT = 2048
NOTHING_OBSERVED = -1
"""Observed generation of an export that the operator has not seen yet; no real generation equals it."""
IMMUTABLE_FIELDS = ("className", "model", "supportLevel", "targets", "calibration", "evaluation", "quantization")


def export_schema() -> Schema:
    """Return the schema of the whole object."""
    name = rule(f"self.metadata.name.size() <= {LABEL_LIMIT}", f"metadata.name {NAME_PROBLEM}")
    return record(
        "A request to convert one trained PyTorch vision model into verified files for several runtimes.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": _status(),
        },
        name,
        required=("spec",),
    )


def _spec() -> Schema:
    return record(
        "The desired conversion. Only suspend, deletionPolicy and ttlSecondsAfterFinished are mutable.",
        {
            "className": visible(
                "Name of the ExportClass. Defaults to the class that is annotated as the default.", 63
            ),
            "model": _model(),
            "supportLevel": words(
                "Allowed part of the support matrix: Stable, or Extended, which includes Stable.",
                list(SupportLevel),
                default=str(SupportLevel.STABLE),
            ),
            "targets": _targets(),
            "calibration": _calibration(),
            "evaluation": _evaluation(),
            "quantization": quantization.quantization(),
            "deletionPolicy": words(
                "Whether to keep or delete the published files when this object is deleted.",
                list(DeletionPolicy),
                default=str(DeletionPolicy.RETAIN),
            ),
            "suspend": flag("Whether to stop the Jobs of this export. Published files are kept."),
            "ttlSecondsAfterFinished": integer(
                "Seconds after completion until this object and its Jobs are deleted; deletionPolicy decides about the "
                "files. If unset, the object is never deleted.",
                0,
                TTL_LIMIT,
            ),
        },
        *_immutable_rules(),
        *(_support_rule(row) for row in ARCHITECTURES.values() if row.extended),
        *_evaluation_rules(),
        *quantization.rules(),
        *architecture_rules(),
        *calibration_rules(),
        required=("model", "targets"),
    )


def _targets() -> Schema:
    item = record(
        "A file to produce.",
        {
            "format": words("File format.", list(Format)),
            "precision": words("Numeric precision of the weights.", list(Precision)),
            "name": name_schema(),
            "options": options_schema(),
            "maxDrop": _max_drop("Allowed loss of accuracy of this target, in place of evaluation.maxDrop."),
        },
        *format_rules(),
        required=("format", "precision"),
    )
    description = "The files to produce. Each combination of format, precision and name may appear once."
    # Not keyed by the name: a key needs a default, and a default in a list lets Argo CD see a difference for ever.
    return {
        "minItems": 1,
        **plain_list(description, item, TARGETS_LIMIT),
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [unique_rule()],
    }


def _immutable_rules() -> list[Schema]:
    problem = "is immutable; create another ModelExport"
    same = "has(self.{0}) == has(oldSelf.{0}) && (!has(self.{0}) || self.{0} == oldSelf.{0})"
    return [rule(same.format(name), f"{name} {problem}", fieldPath=f".{name}") for name in IMMUTABLE_FIELDS]


def _support_rule(row: Architecture) -> Schema:
    """Return the rule that the Extended cells of an architecture need the level Extended."""
    extended = [str(target) for target in TARGETS if target in row.extended]
    expression = (
        f"self.supportLevel == 'Extended' || self.model.architecture != '{row.name}' || "
        f"self.targets.all(t, !((t.format + '/' + t.precision) in {cel_list(extended)}))"
    )
    return rule(expression, row.refusal(row.extended), fieldPath=".targets")


def _evaluation_rules() -> list[Schema]:
    """Return the rules that a loss needs an evaluation, and an evaluation an architecture with a known task."""
    unknown = [row.name for row in ARCHITECTURES.values() if row.task is Task.UNKNOWN]
    return [
        rule(
            "has(self.evaluation) || self.targets.all(t, !has(t.maxDrop))",
            f"maxDrop {WITHOUT_EVALUATION}",
            fieldPath=".targets",
        ),
        rule(
            f"!has(self.evaluation) || !(self.model.architecture in {cel_list(unknown)})",
            NOT_EVALUATED.format(", ".join(unknown)),
            fieldPath=".evaluation",
        ),
    ]


def _model() -> Schema:
    rows = list(ARCHITECTURES.values())
    return record(
        "The trained model.",
        {
            "architecture": words("Architecture of the model.", list(ARCHITECTURES)),
            "checkpoint": _data("The trained weights: .pt (from ultralytics, or a state dict), .safetensors or .pt2."),
            "parameters": record(
                "Facts about the model. Unset fields are read from the checkpoint, or take the default of the "
                "architecture.",
                {
                    "variant": text(
                        'Variant of the architecture: its size, for example "n" (quote it: YAML reads a bare n as a '
                        "boolean), or its backbone, for example resnet50.",
                        32,
                    ),
                    "numClasses": integer("Number of classes of the model.", 1, CLASS_COUNT_LIMIT),
                    "inputSize": {
                        "type": "array",
                        "description": "Height and width of the model input in pixels.",
                        "minItems": 2,
                        "maxItems": 2,
                        "items": integer("Pixels.", 1, INPUT_SIZE_LIMIT),
                    },
                    "scoreThreshold": _fraction("Boxes with a lower score are dropped."),
                    "nmsThreshold": _fraction("If boxes overlap by a larger IoU, only the best one is kept."),
                    "normEpsilon": _fraction(
                        "Epsilon of batch normalisation, which state dicts do not store. Defaults to the value of the "
                        "torchvision builder; use 0 if it was fine-tuned from the COCO_V1 weights of a "
                        "ResNet-50, but not of v2."
                    ),
                    **_stated_parameters(rows),
                },
            ),
        },
        *_variant_rules(rows),
        *_stride_rules(rows),
        *_fraction_rules(rows),
        *_activation_rules(rows),
        *_taken_rules(rows),
        required=("architecture", "checkpoint"),
    )


def _stated_parameters(rows: list[Architecture]) -> Schema:
    """Return the fields for facts that state dicts do not store; unset fields take the builder's default."""
    return {
        "activation": words(
            "Activation after each convolution, which state dicts do not store. Defaults: SiLU in YOLOv8 and YOLOX, "
            "Mish in the backbone of YOLOv4, LeakyReLU in YOLOv4-tiny. LeakyReLU has slope 0.1.",
            sorted({activation for row in rows for activation in row.activations}),
        ),
        "colorOrder": words(
            "Channel order of the training images: BGR, or RGB in Megvii's legacy models.", COLOR_ORDERS
        ),
        "pixelRange": words(
            "Pixel range of the training images: 0-255, or 0-1 in Megvii's legacy models.", PIXEL_RANGES
        ),
        "imageMean": _decimals(
            "Mean of each channel (red, green, blue; or grey; then alpha), which is subtracted from pixels in the "
            "range 0 to 1",
            FRACTION_PATTERN,
            1,
            CHANNELS_LIMIT,
        ),
        "imageStd": _decimals(
            "Standard deviation of each channel, by which pixels are divided afterwards",
            POSITIVE_FRACTION_PATTERN,
            1,
            CHANNELS_LIMIT,
        ),
        "detectionsPerImage": integer("Maximum number of detections per image.", 1, DETECTIONS_LIMIT),
        "anchorSizes": plain_list(
            "Anchor sizes in pixels for each pyramid level, finest level first.",
            {
                "minItems": 1,
                **plain_list("Sizes of one level.", integer("Pixels.", 1, INPUT_SIZE_LIMIT), PER_LEVEL_LIMIT),
            },
            LEVELS_LIMIT,
        ),
        "aspectRatios": _decimals(
            "Aspect ratios (height / width) of the anchors, the same on all levels", RATIO_PATTERN, 1, 8
        ),
        "anchors": _anchors(),
        "alignCorners": {
            "type": "boolean",
            "description": "Whether bilinear upsampling used align_corners in training.",
        },
    }


def _anchors() -> Schema:
    low, high = ANCHOR_NUMBERS
    description = (
        "Widths and heights of the anchors in pixels, finest level first, as in a Darknet .cfg: "
        f"{high} numbers, or {low} for the tiny network."
    )
    pairs = rule(
        f"self.size() in [{low}, {high}]", f"must be {low} or {high} widths and heights in pixels, as in a .cfg"
    )
    items = integer("Pixels.", 1, INPUT_SIZE_LIMIT)
    return {"minItems": low, **plain_list(description, items, high), "x-kubernetes-validations": [pairs]}


def _decimals(description: str, pattern: str, low: int, high: int) -> Schema:
    decimal = rule(
        f"self.matches('{pattern}')", 'not a decimal in the allowed range; write it as text, for example "0.5"'
    )
    items = text("A decimal as text.", 16, decimal)
    return {"minItems": low, **plain_list(f'{description}; decimals as text, for example "0.5".', items, high)}


def _activation_rules(rows: list[Architecture]) -> list[Schema]:
    """Return one rule per set of activations, for all architectures that share it."""
    rules = []
    for activations, group in groupby(sorted(rows, key=lambda row: row.activations), key=lambda row: row.activations):
        names = [row.name for row in group]
        message = f"activation must be one of {', '.join(activations)} for {', '.join(names)}"
        if not activations:
            message = f"activation is not a parameter of {', '.join(names)}; remove it"
        allowed = f"self.parameters.activation in {cel_list(activations)}"
        rules.append(_parameter_rule(names, "activation", allowed, message))
    return rules


def _taken_rules(rows: list[Architecture]) -> list[Schema]:
    """Return the rules that limit parameters to the architectures that take them, and a mean to pixels of 0 to 1."""
    others = {
        parameter: [row.name for row in rows if parameter not in row.takes]
        for parameter in STATED_PARAMETERS
        if parameter != "activation"
    }
    taken = [
        _parameter_rule(names, parameter, "false", f"{parameter} is not a parameter of {', '.join(names)}; remove it")
        for parameter, names in others.items()
        if names
    ]
    ranged = [row.name for row in rows if "pixelRange" in row.takes]
    allowed = "has(self.parameters.pixelRange) && self.parameters.pixelRange == '0-1'"
    return taken + [
        _parameter_rule(ranged, parameter, f"({allowed})", f"{parameter} {NORMALISED_PROBLEM}")
        for parameter in ("imageMean", "imageStd")
        if ranged
    ]


def _fraction(description: str) -> Schema:
    """Return a decimal as text: not every API client preserves floating-point numbers."""
    decimal = rule(f"self.matches('{FRACTION_PATTERN}')", f"not a decimal from 0 to 1; {FRACTION_EXAMPLE}")
    return text(f'{description} A decimal from 0 to 1 as text, for example "0.5".', 16, decimal)


def _variant_rules(rows: list[Architecture]) -> list[Schema]:
    """Return one rule per set of variants, for all architectures that share it."""
    rules = []
    for variants, group in groupby(sorted(rows, key=lambda row: row.variants), key=lambda row: row.variants):
        names = [row.name for row in group]
        message = f"variant must be one of {', '.join(variants)} for {', '.join(names)}"
        if not variants:
            message = f"variant is not a parameter of {', '.join(names)}; remove it"
        rules.append(_parameter_rule(names, "variant", f"self.parameters.variant in {cel_list(variants)}", message))
    return rules


def _stride_rules(rows: list[Architecture]) -> list[Schema]:
    """Return one rule per stride above one, for all architectures that share it."""
    rules = []
    ruled = sorted((row for row in rows if row.stride > 1), key=lambda row: row.stride)
    for stride, group in groupby(ruled, key=lambda row: row.stride):
        names = [row.name for row in group]
        allowed = f"self.parameters.inputSize.all(side, side % {stride} == 0)"
        message = f"inputSize is [height, width] in multiples of {stride} for {', '.join(names)}"
        rules.append(_parameter_rule(names, "inputSize", allowed, message))
    return rules


def _fraction_rules(rows: list[Architecture]) -> list[Schema]:
    """Return the rules that limit thresholds to architectures with NMS, and epsilon to those with frozen norm."""
    others = {
        "scoreThreshold": [row.name for row in rows if not row.has_nms],
        "nmsThreshold": [row.name for row in rows if not row.has_nms],
        "normEpsilon": [row.name for row in rows if not row.has_frozen_norm],
    }
    return [
        _parameter_rule(names, parameter, "false", f"{parameter} is not a parameter of {', '.join(names)}; remove it")
        for parameter, names in others.items()
        if names
    ]


def _parameter_rule(names: list[str], parameter: str, allowed: str, message: str) -> Schema:
    absent = f"!has(self.parameters) || !has(self.parameters.{parameter})"
    other = f"!(self.architecture in {cel_list(names)})"
    return rule(f"{other} || {absent} || {allowed}", message, fieldPath=f".parameters.{parameter}")


def _calibration() -> Schema:
    return record(
        "Images on which activation ranges are measured. With them, INT8 is static if the format supports it, else "
        "data-free.",
        {
            "dataset": _data("A zip archive of images, a prefix that ends with a slash and holds images, or an image."),
            "samples": integer("Maximum number of calibration images.", 1, SAMPLES_LIMIT, default=DEFAULT_SAMPLES),
        },
        required=("dataset",),
    )


def _evaluation() -> Schema:
    return record(
        "Labelled images on which the original model and every file are compared by the metric of their task. They are "
        "never used for calibration.",
        {
            "dataset": _data(
                "A zip archive of images with their labels, or a prefix that ends with a slash and holds both."
            ),
            "labels": words(
                "How the labels are stored: COCO json, YOLO (data.yaml and text files), ImageFolder (one folder per "
                "class) or MaskPNG (one mask per image); Auto recognises it by the names of the files.",
                list(LabelKind),
                default=str(LabelKind.AUTO),
            ),
            "samples": integer("Maximum number of evaluated images.", 1, SAMPLES_LIMIT, default=DEFAULT_EVALUATED),
            "maxDrop": _max_drop(
                "Allowed loss of accuracy of a file against the original model.", default=DEFAULT_DROP
            ),
            "dropType": words(
                "How the loss is counted: Absolute (difference) or Relative (its share of the original's accuracy).",
                list(DropType),
                default=str(DropType.ABSOLUTE),
            ),
            "onDrop": words(
                "What happens to a file that loses more: Fail ends the target as AccuracyLost, Publish publishes it "
                "and sets the condition AccuracyKept to False.",
                list(OnDrop),
                default=str(OnDrop.FAIL),
            ),
        },
        required=("dataset",),
    )


def _max_drop(description: str, **more: str) -> Schema:
    decimal = rule(f"self.matches('{FRACTION_PATTERN}')", f"not a decimal from 0 to 1; {DROP_EXAMPLE}")
    return text(f'{description} A decimal from 0 to 1 as text, for example "{DEFAULT_DROP}".', 16, decimal, **more)


def _data(description: str) -> Schema:
    local = rule(
        "!self.startsWith('file://')", "file:// is for local runs; upload the file to the store and use s3://bucket/key"
    )
    known = rule(
        f"self.startsWith('file://') || self.matches('^(s3://{BUCKET}/.+|https://.+)$')",
        "not a supported URI; use s3://bucket/key or https://host/path",
    )
    digest = rule(f"self.matches('{SHA256_PATTERN}')", "not a SHA-256; use 64 hexadecimal digits in lower case")
    needed = rule(
        "!self.uri.startsWith('https://') || has(self.sha256)",
        "an https:// URI needs the sha256 of the file; add it, or use s3://bucket/key",
    )
    return record(
        description,
        {
            "uri": visible(
                "s3://bucket/key in the store of the ExportClass, or https:// with a sha256.", URI_LIMIT, local, known
            ),
            # Longer than a digest, so that a digest with a prefix fails the rule (and its message) and not the limit.
            "sha256": text("Expected SHA-256 of the file: 64 hexadecimal digits.", 128, digest),
        },
        needed,
        required=("uri",),
    )


def _status() -> Schema:
    return record(
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
                _condition(),
                0,
                8,
            ),
            "targets": {
                **plain_list("The state of every target.", _target_status(), TARGETS_LIMIT),
                "x-kubernetes-list-type": "atomic",
            },
            "pageURI": text(
                "URI of the page about all targets, report.html, once the first of them is published.", MESSAGE_LIMIT
            ),
        },
        # kstatus treats an object without a status as done: Flux would report it ready before it is reconciled.
        default={"observedGeneration": NOTHING_OBSERVED},
    )


def _condition() -> Schema:
    return record(
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


def _progress() -> Schema:
    return record(
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


def _accuracy() -> Schema:
    return record(
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


def _target_status() -> Schema:
    return record(
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
            "attempts": integer("Number of Pods started.", 0, TTL_LIMIT),
            "scheme": text("Recipe: how numbers are stored and computed, for example static_wi8_ai8.", 63),
            "jobName": text("Name of the Job.", 63),
            "nodeName": text("Node of the last attempt.", 253),
            "startTime": time("When the Job started."),
            "completionTime": time("When the Job ended."),
            "progress": _progress(),
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
            "verification": _verification(),
            "accuracy": _accuracy(),
            "quantization": quantization.result(),
        },
        required=("format", "precision", "state"),
    )


def _verification() -> Schema:
    return record(
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
            "fidelity": _fidelity(),
            "fidelityAbsent": text("Reason for a missing fidelity.", ABSENCE_LENGTH),
        },
        required=("metric", "value", "threshold"),
    )


def _fidelity() -> Schema:
    return record(
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
