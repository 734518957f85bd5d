"""The OpenAPI schema of a ModelExport, generated from the support matrix."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

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
    REFUSED,
    SAMPLES_LIMIT,
    SHA256_PATTERN,
    STATED_PARAMETERS,
    URI_LIMIT,
    WITHOUT_EVALUATION,
    WITHOUT_IMAGES,
    DeletionPolicy,
    DropType,
    LabelKind,
    OnDrop,
)
from modelexport.crds import quantization
from modelexport.crds.options import (
    architecture_rules,
    calibration_rules,
    name_schema,
    options_schema,
    target_rules,
    unique_rule,
)
from modelexport.crds.schema import (
    Schema,
    cel_list,
    flag,
    integer,
    plain_list,
    record,
    rule,
    text,
    visible,
    words,
)
from modelexport.crds.status import STATUS
from modelexport.matrix.options import TARGETS_LIMIT
from modelexport.matrix.support import (
    ARCHITECTURES,
    BACKENDS,
    TARGETS,
    Architecture,
    Format,
    Precision,
    SupportLevel,
    Task,
    requires_images,
)
from modelexport.names import LABEL_LIMIT

NAME_PROBLEM = f"becomes a label of the Jobs; use at most {LABEL_LIMIT} characters"
TTL_LIMIT = 2**31 - 1
IMMUTABLE_FIELDS = ("className", "model", "supportLevel", "targets", "calibration", "evaluation", "quantization")


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


def _fraction(description: str) -> Schema:
    """Return a decimal as text: not every API client preserves floating-point numbers."""
    decimal = rule(f"self.matches('{FRACTION_PATTERN}')", f"not a decimal from 0 to 1; {FRACTION_EXAMPLE}")
    return text(f'{description} A decimal from 0 to 1 as text, for example "0.5".', 16, decimal)


def _max_drop(description: str, **more: str) -> Schema:
    decimal = rule(f"self.matches('{FRACTION_PATTERN}')", f"not a decimal from 0 to 1; {DROP_EXAMPLE}")
    return text(f'{description} A decimal from 0 to 1 as text, for example "{DEFAULT_DROP}".', 16, decimal, **more)


def _decimals(description: str, pattern: str, low: int, high: int) -> Schema:
    decimal = rule(
        f"self.matches('{pattern}')", 'not a decimal in the allowed range; write it as text, for example "0.5"'
    )
    items = text("A decimal as text.", 16, decimal)
    return {"minItems": low, **plain_list(f'{description}; decimals as text, for example "0.5".', items, high)}


def _parameter_rule(names: Sequence[str], parameter: str, allowed: str, message: str) -> Schema:
    absent = f"!has(self.parameters) || !has(self.parameters.{parameter})"
    other = f"!(self.architecture in {cel_list(names)})"
    return rule(f"{other} || {absent} || {allowed}", message, fieldPath=f".parameters.{parameter}")


def _choice_rules(parameter: str, choices: Callable[[Architecture], tuple[str, ...]]) -> list[Schema]:
    """Return one rule per set of choices of a parameter, for all architectures that share it."""
    rules = []
    for allowed, rows in groupby(sorted(ARCHITECTURES.values(), key=choices), key=choices):
        names = [row.name for row in rows]
        message = f"{parameter} must be one of {', '.join(allowed)} for {', '.join(names)}"
        if not allowed:
            message = f"{parameter} is not a parameter of {', '.join(names)}; remove it"
        rules.append(_parameter_rule(names, parameter, f"self.parameters.{parameter} in {cel_list(allowed)}", message))
    return rules


def _absence_rules(others: Mapping[str, Sequence[str]]) -> list[Schema]:
    """Return one rule per parameter that keeps it from the architectures that do not take it."""
    return [
        _parameter_rule(names, parameter, "false", f"{parameter} is not a parameter of {', '.join(names)}; remove it")
        for parameter, names in others.items()
        if names
    ]


def _stride_rules() -> list[Schema]:
    """Return one rule per stride above one, for all architectures that share it."""
    rules = []
    ruled = sorted((row for row in ARCHITECTURES.values() if row.stride > 1), key=lambda row: row.stride)
    for stride, group in groupby(ruled, key=lambda row: row.stride):
        names = [row.name for row in group]
        allowed = f"self.parameters.inputSize.all(side, side % {stride} == 0)"
        message = f"inputSize is [height, width] in multiples of {stride} for {', '.join(names)}"
        rules.append(_parameter_rule(names, "inputSize", allowed, message))
    return rules


def _pixel_range_rules() -> list[Schema]:
    """Return the rules that a mean and a deviation are for pixels of 0 to 1."""
    ranged = [row.name for row in ARCHITECTURES.values() if "pixelRange" in row.takes]
    allowed = "has(self.parameters.pixelRange) && self.parameters.pixelRange == '0-1'"
    return [
        _parameter_rule(ranged, parameter, f"({allowed})", f"{parameter} {NORMALISED_PROBLEM}")
        for parameter in ("imageMean", "imageStd")
        if ranged
    ]


_ANCHORS = {
    "minItems": ANCHOR_NUMBERS[0],
    **plain_list(
        "Widths and heights of the anchors in pixels, finest level first, as in a Darknet .cfg: "
        f"{ANCHOR_NUMBERS[1]} numbers, or {ANCHOR_NUMBERS[0]} for the tiny network.",
        integer("Pixels.", 1, INPUT_SIZE_LIMIT),
        ANCHOR_NUMBERS[1],
    ),
    "x-kubernetes-validations": [
        rule(
            f"self.size() in [{ANCHOR_NUMBERS[0]}, {ANCHOR_NUMBERS[1]}]",
            f"must be {ANCHOR_NUMBERS[0]} or {ANCHOR_NUMBERS[1]} widths and heights in pixels, as in a .cfg",
        )
    ],
}

_PARAMETERS = record(
    "Facts about the model. Unset fields are read from the checkpoint, or take the default of the architecture.",
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
        # Facts that state dicts do not store; unset, they take the default of the builder.
        "activation": words(
            "Activation after each convolution, which state dicts do not store. Defaults: SiLU in YOLOv8 and YOLOX, "
            "Mish in the backbone of YOLOv4, LeakyReLU in YOLOv4-tiny. LeakyReLU has slope 0.1.",
            sorted({activation for row in ARCHITECTURES.values() for activation in row.activations}),
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
        "anchors": _ANCHORS,
        "alignCorners": {
            "type": "boolean",
            "description": "Whether bilinear upsampling used align_corners in training.",
        },
    },
)


def _model() -> Schema:
    return record(
        "The trained model.",
        {
            "architecture": words("Architecture of the model.", list(ARCHITECTURES)),
            "checkpoint": _data("The trained weights: .pt (from ultralytics, or a state dict), .safetensors or .pt2."),
            "parameters": _PARAMETERS,
        },
        *_choice_rules("variant", lambda row: row.variants),
        *_stride_rules(),
        *_absence_rules(
            {
                "scoreThreshold": [row.name for row in ARCHITECTURES.values() if not row.has_nms],
                "nmsThreshold": [row.name for row in ARCHITECTURES.values() if not row.has_nms],
                "normEpsilon": [row.name for row in ARCHITECTURES.values() if not row.has_frozen_norm],
            }
        ),
        *_choice_rules("activation", lambda row: row.activations),
        *_absence_rules(
            {
                parameter: [row.name for row in ARCHITECTURES.values() if parameter not in row.takes]
                for parameter in STATED_PARAMETERS
                if parameter != "activation"
            }
        ),
        *_pixel_range_rules(),
        required=("architecture", "checkpoint"),
    )


_TARGET = record(
    "A file to produce.",
    {
        "format": words("File format.", list(Format)),
        "precision": words(
            "Numeric precision of the weights. W8A16 has those of INT8, and activations as 16-bit integers: it loses "
            "less accuracy, and is for NPUs.",
            list(Precision),
        ),
        "name": name_schema(),
        "options": options_schema(),
        "maxDrop": _max_drop("Allowed loss of accuracy of this target, in place of evaluation.maxDrop."),
    },
    *(
        rule(
            f"self.format != '{backend.format}' || self.precision != '{precision}'",
            REFUSED.format(precision, backend.format, reason),
            fieldPath=".precision",
        )
        for backend in BACKENDS.values()
        for precision, reason in backend.refused.items()
    ),
    *target_rules(),
    required=("format", "precision"),
)

_TARGETS = {
    "minItems": 1,
    **plain_list(
        "The files to produce. Each combination of format, precision and name may appear once.", _TARGET, TARGETS_LIMIT
    ),
    # Not keyed by the name: a key needs a default, and a default in a list lets Argo CD see a difference for ever.
    "x-kubernetes-list-type": "atomic",
    "x-kubernetes-validations": [unique_rule()],
}

_CALIBRATION = record(
    "Images on which activation ranges are measured. With them, INT8 is static if the format supports it, else "
    "data-free; W8A16 and INT8 of ExecuTorch need them.",
    {
        "dataset": _data("A zip archive of images, a prefix that ends with a slash and holds images, or an image."),
        "samples": integer("Maximum number of calibration images.", 1, SAMPLES_LIMIT, default=DEFAULT_SAMPLES),
    },
    required=("dataset",),
)

_EVALUATION = record(
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
        "maxDrop": _max_drop("Allowed loss of accuracy of a file against the original model.", default=DEFAULT_DROP),
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

_IMMUTABLE_RULES = [
    rule(
        f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
        f"{name} is immutable; create another ModelExport",
        fieldPath=f".{name}",
    )
    for name in IMMUTABLE_FIELDS
]

_CALIBRATION_RULES = [
    rule(
        f"has(self.calibration) || self.targets.all(t, !((t.format + '/' + t.precision) in {cel_list(group)}))",
        f"each of {', '.join(group)} {WITHOUT_IMAGES}",
        fieldPath=".targets",
    )
    for group in [[str(target) for target in TARGETS if requires_images(target)]]
]

_UNKNOWN_TASK = [row.name for row in ARCHITECTURES.values() if row.task is Task.UNKNOWN]
_EVALUATION_RULES = [
    rule(
        "has(self.evaluation) || self.targets.all(t, !has(t.maxDrop))",
        f"maxDrop {WITHOUT_EVALUATION}",
        fieldPath=".targets",
    ),
    rule(
        f"!has(self.evaluation) || !(self.model.architecture in {cel_list(_UNKNOWN_TASK)})",
        NOT_EVALUATED.format(", ".join(_UNKNOWN_TASK)),
        fieldPath=".evaluation",
    ),
]


def _support_rule(row: Architecture) -> Schema:
    """Return the rule that the Extended cells of an architecture need the level Extended."""
    extended = [str(target) for target in TARGETS if target in row.extended]
    expression = (
        f"self.supportLevel == 'Extended' || self.model.architecture != '{row.name}' || "
        f"self.targets.all(t, !((t.format + '/' + t.precision) in {cel_list(extended)}))"
    )
    return rule(expression, row.refusal(row.extended), fieldPath=".targets")


def export_schema() -> Schema:
    """Return the schema of the whole object."""
    name = rule(f"self.metadata.name.size() <= {LABEL_LIMIT}", f"metadata.name {NAME_PROBLEM}")
    return record(
        "A request to convert one trained PyTorch vision model into verified files for several runtimes.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": record(
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
                    "targets": _TARGETS,
                    "calibration": _CALIBRATION,
                    "evaluation": _EVALUATION,
                    "quantization": quantization.quantization(),
                    "deletionPolicy": words(
                        "Whether to keep or delete the published files when this object is deleted.",
                        list(DeletionPolicy),
                        default=str(DeletionPolicy.RETAIN),
                    ),
                    "suspend": flag("Whether to stop the Jobs of this export. Published files are kept."),
                    "ttlSecondsAfterFinished": integer(
                        "Seconds after completion until this object and its Jobs are deleted; deletionPolicy decides "
                        "about the files. If unset, the object is never deleted.",
                        0,
                        TTL_LIMIT,
                    ),
                },
                *_IMMUTABLE_RULES,
                *(_support_rule(row) for row in ARCHITECTURES.values() if row.extended),
                *_CALIBRATION_RULES,
                *_EVALUATION_RULES,
                *quantization.rules(),
                *architecture_rules(),
                *calibration_rules(),
                required=("model", "targets"),
            ),
            "status": STATUS,
        },
        name,
        required=("spec",),
    )
