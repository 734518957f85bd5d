"""The schema of a ModelExport, generated from the support matrix. Pure."""

from itertools import groupby

from modelexport.matrix import ARCHITECTURES, TARGETS, Architecture, Format, Precision, SupportLevel
from modelexport.names import LABEL_LIMIT
from modelexport.result import (
    ASSUMPTION_LENGTH,
    ASSUMPTIONS_LIMIT,
    WARNING_LENGTH,
    WARNINGS_LIMIT,
    Reference,
)
from modelexport.schema import (
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
from modelexport.spec import (
    ANCHOR_NUMBERS,
    CHANNELS_LIMIT,
    CLASS_COUNT_LIMIT,
    COLOR_ORDERS,
    DEFAULT_SAMPLES,
    DETECTIONS_LIMIT,
    FRACTION_EXAMPLE,
    FRACTION_PATTERN,
    INPUT_SIZE_LIMIT,
    LEVELS_LIMIT,
    NORMALISED_PROBLEM,
    PER_LEVEL_LIMIT,
    PIXEL_RANGES,
    POSITIVE_FRACTION_PATTERN,
    RATIO_PATTERN,
    SAMPLES_LIMIT,
    STATED_PARAMETERS,
    URI_LIMIT,
    DeletionPolicy,
)

NAME_PROBLEM = f"labels the Jobs; use at most {LABEL_LIMIT} characters"
TTL_LIMIT = 2**31 - 1
EXACT_LIMIT = 2**53 - 1
"""The API server compares limits as floating-point numbers, which are exact up to here."""
MESSAGE_LIMIT = 2048
NOTHING_OBSERVED = -1
"""The observed generation of an export that the operator has not seen: no generation is ever equal to it."""
IMMUTABLE_FIELDS = ("className", "model", "supportLevel", "targets", "calibration")


def export_schema() -> Schema:
    """The schema of the whole object."""
    name = rule(f"self.metadata.name.size() <= {LABEL_LIMIT}", f"metadata.name {NAME_PROBLEM}")
    return record(
        "An order to convert one trained PyTorch vision model into verified files for several runtimes.",
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
        "What to convert, and into what. Only suspend, deletionPolicy and ttlSecondsAfterFinished "
        "can be changed afterwards.",
        {
            "className": visible("The ExportClass that serves this export; the default class when left out.", 63),
            "model": _model(),
            "supportLevel": words(
                "Which part of the support matrix may be asked for.",
                list(SupportLevel),
                default=str(SupportLevel.STABLE),
            ),
            "targets": keyed_list(
                "The files to produce: each format and precision at most once.",
                ("format", "precision"),
                record(
                    "One file.",
                    {
                        "format": words("The file format.", list(Format)),
                        "precision": words("How weights are stored.", list(Precision)),
                    },
                    required=("format", "precision"),
                ),
                1,
                len(TARGETS),
            ),
            "calibration": _calibration(),
            "deletionPolicy": words(
                "Whether the published files stay when this object is deleted, or go with it.",
                list(DeletionPolicy),
                default=str(DeletionPolicy.RETAIN),
            ),
            "suspend": flag("Stops the Jobs of this export; what is published stays."),
            "ttlSecondsAfterFinished": integer(
                "Seconds after its end until this object and its Jobs are deleted, and files as deletionPolicy says. "
                "Never when left out.",
                0,
                TTL_LIMIT,
            ),
        },
        *_immutable_rules(),
        *_support_rules(list(ARCHITECTURES.values())),
        required=("model", "targets"),
    )


def _immutable_rules() -> list[Schema]:
    way_out = "cannot be changed; create another ModelExport"
    same = "has(self.{0}) == has(oldSelf.{0}) && (!has(self.{0}) || self.{0} == oldSelf.{0})"
    return [rule(same.format(name), f"{name} {way_out}", fieldPath=f".{name}") for name in IMMUTABLE_FIELDS]


def _support_rules(rows: list[Architecture]) -> list[Schema]:
    """One rule per architecture that has cells which have to be asked for."""
    return [_support_rule(row) for row in rows if row.extended]


def _support_rule(row: Architecture) -> Schema:
    extended = [str(target) for target in TARGETS if target in row.extended]
    expression = (
        f"self.supportLevel == 'Extended' || self.model.architecture != '{row.name}' || "
        f"self.targets.all(t, !((t.format + '/' + t.precision) in {cel_list(extended)}))"
    )
    return rule(expression, row.refusal(row.extended), fieldPath=".targets")


def _model() -> Schema:
    rows = list(ARCHITECTURES.values())
    return record(
        "The trained model.",
        {
            "architecture": words("What the checkpoint is a model of.", list(ARCHITECTURES)),
            "checkpoint": _data("The trained weights: .pt of ultralytics or of a state dict, .safetensors or .pt2."),
            "parameters": record(
                "Facts about the model; what is left out is read from the checkpoint.",
                {
                    "variant": text(
                        'Which network of the architecture: its size, for example "n" (quote it, YAML takes a bare n '
                        "for a boolean), or its backbone, for example resnet50.",
                        32,
                    ),
                    "numClasses": integer("How many classes the model tells apart.", 1, CLASS_COUNT_LIMIT),
                    "inputSize": {
                        "type": "array",
                        "description": "Height and width of the pictures that the files take, in pixels.",
                        "minItems": 2,
                        "maxItems": 2,
                        "items": integer("Pixels.", 1, INPUT_SIZE_LIMIT),
                    },
                    "scoreThreshold": _fraction("Boxes with a lower score are left out."),
                    "nmsThreshold": _fraction("Of boxes with a larger overlap (IoU), only the best is kept."),
                    "normEpsilon": _fraction(
                        "What normalisation adds to variances, which no state dict tells: 0 for a model fine-tuned "
                        "from torchvision's COCO_V1 weights of a ResNet-50 but not of v2, else what its builder sets."
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
    """What no state dict tells; the builder's default where it is left out."""
    return {
        "activation": words(
            "The activation after each convolution, which no state dict tells: unless given, SiLU in YOLOv8 and YOLOX, "
            "Mish in the backbone of YOLOv4, LeakyReLU in YOLOv4-tiny. LeakyReLU has the slope 0.1.",
            sorted({activation for row in rows for activation in row.activations}),
        ),
        "colorOrder": words("How the network was given pictures: BGR, or RGB as Megvii's legacy ones.", COLOR_ORDERS),
        "pixelRange": words("On which scale the network was given pixels: 0-255, or 0-1 as legacy.", PIXEL_RANGES),
        "imageMean": _decimals(
            "Mean of each channel (red, green, blue; or grey; alpha after them), of pixels of 0 to 1, that is "
            "subtracted from pictures",
            FRACTION_PATTERN,
            1,
            CHANNELS_LIMIT,
        ),
        "imageStd": _decimals("What pictures are divided by afterwards", POSITIVE_FRACTION_PATTERN, 1, CHANNELS_LIMIT),
        "detectionsPerImage": integer("How many detections a file gives at most.", 1, DETECTIONS_LIMIT),
        "anchorSizes": plain_list(
            "Sides of the anchors in pixels, for each level of the pyramid, finest first.",
            {"minItems": 1, **plain_list("Sides.", integer("Pixels.", 1, INPUT_SIZE_LIMIT), PER_LEVEL_LIMIT)},
            LEVELS_LIMIT,
        ),
        "aspectRatios": _decimals("Height over width of the anchors, the same on all levels", RATIO_PATTERN, 1, 8),
        "anchors": _anchors(),
        "alignCorners": {"type": "boolean", "description": "Whether bilinear upsampling aligned corners in training."},
    }


def _anchors() -> Schema:
    low, high = ANCHOR_NUMBERS
    description = (
        "Widths and heights of the anchors in pixels, finest level first, as in a .cfg of Darknet: "
        f"{high} numbers, or {low} for the tiny network."
    )
    pairs = rule(f"self.size() in [{low}, {high}]", f"{low} or {high} widths and heights in pixels, as in a .cfg")
    items = integer("Pixels.", 1, INPUT_SIZE_LIMIT)
    return {"minItems": low, **plain_list(description, items, high), "x-kubernetes-validations": [pairs]}


def _decimals(description: str, pattern: str, low: int, high: int) -> Schema:
    decimal = rule(f"self.matches('{pattern}')", 'not a decimal as text on its scale, for example "0.5"')
    items = text("A decimal as text.", 16, decimal)
    return {"minItems": low, **plain_list(f'{description}; decimals as text, for example "0.5".', items, high)}


def _activation_rules(rows: list[Architecture]) -> list[Schema]:
    """One rule for all architectures that take the same activations, or none."""
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
    """Further parameters are for the architectures whose row names them; a mean is for pixels of 0 to 1."""
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
    """A decimal as text: floating-point numbers do not survive every client of the API unchanged."""
    decimal = rule(f"self.matches('{FRACTION_PATTERN}')", f"not a decimal from 0 to 1; {FRACTION_EXAMPLE}")
    return text(f'{description} A decimal from 0 to 1 as text, for example "0.5".', 16, decimal)


def _variant_rules(rows: list[Architecture]) -> list[Schema]:
    """One rule for all architectures that come in the same variants, or in none."""
    rules = []
    for variants, group in groupby(sorted(rows, key=lambda row: row.variants), key=lambda row: row.variants):
        names = [row.name for row in group]
        message = f"variant must be one of {', '.join(variants)} for {', '.join(names)}"
        if not variants:
            message = f"variant is not a parameter of {', '.join(names)}; remove it"
        rules.append(_parameter_rule(names, "variant", f"self.parameters.variant in {cel_list(variants)}", message))
    return rules


def _stride_rules(rows: list[Architecture]) -> list[Schema]:
    """One rule for all architectures of the same stride; a stride of one rules nothing out."""
    rules = []
    ruled = sorted((row for row in rows if row.stride > 1), key=lambda row: row.stride)
    for stride, group in groupby(ruled, key=lambda row: row.stride):
        names = [row.name for row in group]
        allowed = f"self.parameters.inputSize.all(side, side % {stride} == 0)"
        message = f"inputSize is [height, width] in multiples of {stride} for {', '.join(names)}"
        rules.append(_parameter_rule(names, "inputSize", allowed, message))
    return rules


def _fraction_rules(rows: list[Architecture]) -> list[Schema]:
    """Thresholds are for architectures that suppress boxes themselves, an epsilon for those with frozen layers."""
    others = {
        "scoreThreshold": [row.name for row in rows if not row.suppresses],
        "nmsThreshold": [row.name for row in rows if not row.suppresses],
        "normEpsilon": [row.name for row in rows if not row.freezes],
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
        "Pictures on which activation ranges are measured; INT8 is then static where the format can, else data-free.",
        {
            "dataset": _data("A zip of pictures, or a prefix (it ends in a slash) that holds them."),
            "samples": integer("How many pictures calibrate at most.", 1, SAMPLES_LIMIT, default=DEFAULT_SAMPLES),
        },
        required=("dataset",),
    )


def _data(description: str) -> Schema:
    local = rule(
        "!self.startsWith('file://')", "file:// is for local runs; upload the file to the store and use s3://bucket/key"
    )
    known = rule(
        "self.startsWith('file://') || self.matches('^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|https://.+)$')",
        "not a URI that can be read; use s3://bucket/key or https://host/path",
    )
    digest = rule("self.matches('^[0-9a-f]{64}$')", "not a SHA-256; give 64 hexadecimal digits in lower case")
    needed = rule(
        "!self.uri.startsWith('https://') || has(self.sha256)",
        "an https:// URI needs the sha256 of the file; add it, or use s3://bucket/key",
    )
    return record(
        description,
        {
            "uri": visible(
                "s3://bucket/key in the store of the class, or https:// with a sha256.", URI_LIMIT, local, known
            ),
            # Longer than a digest is, so that the rule and not the limit answers to one with a prefix.
            "sha256": text("The SHA-256 that the bytes must have: 64 hexadecimal digits.", 128, digest),
        },
        needed,
        required=("uri",),
    )


def _status() -> Schema:
    return record(
        "What happened so far; written by the operator.",
        {
            "observedGeneration": integer(
                "The generation of the spec that this status describes; -1 before the operator has seen any.",
                NOTHING_OBSERVED,
                EXACT_LIMIT,
            ),
            "ready": text("Published targets of all targets, for example 7/9.", 16),
            "startTime": time("When the first Job started."),
            "completionTime": time("When the last target ended."),
            "conditions": keyed_list(
                "Ready, Reconciling and Stalled, as kstatus reads them.", ("type",), _condition(), 0, 8
            ),
            "targets": keyed_list("Every target.", ("format", "precision"), _target_status(), 0, len(TARGETS)),
        },
        # kstatus takes an object without a status for done: Flux would call an export ready that nobody has looked at.
        default={"observedGeneration": NOTHING_OBSERVED},
    )


def _condition() -> Schema:
    return record(
        "One condition.",
        {
            "type": text("Ready, Reconciling or Stalled.", 316),
            "status": words("Whether it holds.", ("True", "False", "Unknown")),
            "reason": text("Why, in one word of a closed list.", 1024),
            "message": {"type": "string", "description": "Why, in words.", "maxLength": MESSAGE_LIMIT},
            "observedGeneration": integer("The generation of the spec that it describes.", 0, EXACT_LIMIT),
            "lastTransitionTime": time("When its status last changed."),
        },
        required=("type", "status", "reason", "message", "lastTransitionTime"),
    )


def _target_status() -> Schema:
    return record(
        "One target.",
        {
            "format": text("The file format.", 63),
            "precision": text("How weights are stored.", 63),
            "state": text("Pending, Queued, Running, Succeeded or Failed.", 63),
            "reason": text("Why, in one word of a closed list.", 63),
            "message": {"type": "string", "description": "Why, and the way out.", "maxLength": MESSAGE_LIMIT},
            "attempts": integer("How many Pods were started.", 0, TTL_LIMIT),
            "scheme": text("How numbers are stored and computed, for example static_wi8_ai8.", 63),
            "jobName": text("The Job that works on it.", 63),
            "nodeName": text("The node on which the last attempt ran.", 253),
            "startTime": time("When the Job started."),
            "completionTime": time("When the Job ended."),
            "artifact": record(
                "The published file.",
                {
                    "uri": text("Where it is.", MESSAGE_LIMIT),
                    "sha256": text("Its SHA-256.", 64),
                    "sizeBytes": integer("Its size.", 0, EXACT_LIMIT),
                },
                required=("uri", "sha256", "sizeBytes"),
            ),
            "reportURI": text("The long form of all this, beside the file.", MESSAGE_LIMIT),
            "verification": record(
                "How close the file came to the original model in FP32, and where that comes from; decimals as text.",
                {
                    "metric": text("What was compared.", 63),
                    "value": text("What was reached.", 63),
                    "threshold": text("What had to be reached.", 63),
                    "reference": words(
                        "Where the original model comes from: Checkpoint, built from the layers that the checkpoint "
                        "lists; Program, the graph of a .pt2 archive; Rebuilt, the stock network of the architecture, "
                        "filled with the checkpoint's weights.",
                        list(Reference),
                    ),
                    "assumptions": plain_list(
                        "What of the original model the checkpoint does not say, so that it was assumed.",
                        text("A phrase, for example activation SiLU.", ASSUMPTION_LENGTH),
                        ASSUMPTIONS_LIMIT,
                    ),
                    "warnings": plain_list(
                        "Signs that the original model is not the one that was trained.",
                        text("A sentence.", WARNING_LENGTH),
                        WARNINGS_LIMIT,
                    ),
                },
                required=("metric", "value", "threshold"),
            ),
        },
        required=("format", "precision", "state"),
    )
