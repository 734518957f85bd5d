"""Typed API objects, and the parsers that read them from Kubernetes objects.

The CRD lets the API server reject most invalid objects. The parsers reject the same, because a local run has no API
server and a CRD may be older than the code, and they check what a schema cannot express.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network
from typing import Any

from modelexport.api import fields
from modelexport.api.fields import Body, InvalidSpec
from modelexport.api.node_pools import NodePool, parse_pools, parse_selector
from modelexport.api.options import parse_name, parse_options
from modelexport.api.quantization import Quantization, parse_quantization
from modelexport.api.sources import PLACEHOLDER, explain_unreadable, is_plain, public_uri
from modelexport.matrix.options import TARGETS_LIMIT, Options
from modelexport.matrix.support import (
    ARCHITECTURES,
    BACKENDS,
    Architecture,
    Format,
    Precision,
    SupportLevel,
    Target,
    Task,
    requires_images,
)
from modelexport.names import CLASS_KIND, DEFAULT_CLASS_ANNOTATION, EXPORT_KIND, REGION_DEFAULT
from modelexport.text import is_clean, quote

BUCKET = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
BUCKET_PATTERN = f"^{BUCKET}$"
NO_BUCKET = "not the name of an S3 bucket"
ENDPOINT_PATTERN = r"^https?://[^/\s]+/?$"
NO_ENDPOINT = "not an S3 endpoint, for example http://minio.default.svc:9000"
URI_PATTERN = f"^(s3://{BUCKET}/.+|https://.+|file:///.+)$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
FRACTION_PATTERN = "^(0([.][0-9]+)?|1([.]0+)?)$"
FRACTION_EXAMPLE = 'write it as text, for example "0.5"'
DEFAULT_DROP = "0.01"
DROP_EXAMPLE = f'write it as text, for example "{DEFAULT_DROP}"'
POSITIVE_FRACTION_PATTERN = "^(0[.][0-9]*[1-9][0-9]*|1([.]0+)?)$"
RATIO_PATTERN = "^(0[.][0-9]*[1-9][0-9]*|[1-9][0-9]?([.][0-9]+)?)$"
COLOR_ORDERS = ("BGR", "RGB")
PIXEL_RANGES = ("0-255", "0-1")
DETECTIONS_LIMIT = 1000
CHANNELS_LIMIT = 4
"""Channels of an image: red, green, blue and alpha."""
LEVELS_LIMIT, PER_LEVEL_LIMIT = 8, 8
ANCHORS_PER_LEVEL = 6
"""Numbers per level of YOLOv4: three widths and three heights."""
ANCHOR_NUMBERS = (2 * ANCHORS_PER_LEVEL, 3 * ANCHORS_PER_LEVEL)
"""Length of ``anchors`` for the tiny network and for the full one."""
URI_LIMIT = 1024
CLASS_COUNT_LIMIT = 100_000
INPUT_SIZE_LIMIT = 4096
SAMPLES_LIMIT = 10_000
EVALUATION_SECONDS_LIMIT = 900.0
"""Seconds that each model may be evaluated; the accuracy is then that of the images so far, which are a random sample
too.
"""
DEADLINE_LIMIT = 7 * 24 * 3600
RETRIES_LIMIT = 10
PARALLELISM_LIMIT = 100_000
WITHOUT_IMAGES = "needs images, which give the ranges of activations; set spec.calibration, or choose another precision"
WITHOUT_EVALUATION = "needs labelled images; set spec.evaluation, or remove maxDrop"
NOT_EVALUATED = "the outputs of {} have no known meaning; remove spec.evaluation, or name the architecture of the model"
REFUSED = "{} is not possible in {}: {}; choose another precision"
LISTED_TWICE = "is listed twice; give one of them another name (name: camera), or remove it"
WITHOUT_QUEUE = "a WorkloadPriorityClass needs a Kueue queue; set queueName"
DEFAULT_SAMPLES = 64
DEFAULT_EVALUATED = 1000
"""Images of an evaluation, unless the export says otherwise."""
STATED_PARAMETERS = (
    "activation",
    "colorOrder",
    "pixelRange",
    "imageMean",
    "imageStd",
    "detectionsPerImage",
    "anchorSizes",
    "aspectRatios",
    "anchors",
    "alignCorners",
)
"""Parameters that only some architectures take: arguments of the builder that are not stored with the weights."""
NORMALISED_PROBLEM = "is for pixels of 0 to 1; set pixelRange: 0-1"
PREFIX_PATTERN = r"^([^{}]|[{]namespace[}])*$"
SOURCE_PATTERN = r"^(s3://([a-z0-9.-]|[{]namespace[}])+|https://[A-Za-z0-9.:-]+)/(([^/{}%\\\s]|[{]namespace[}])+/)*$"
PULL_SECRETS_LIMIT = 16
SOURCES_LIMIT = 32
NETWORK_PATTERN = r"^[0-9a-f.:]{2,39}/[0-9]{1,3}$"
NETWORKS_LIMIT = 32
NAMESPACES_LIMIT = 1000


class DeletionPolicy(StrEnum):
    """What happens to the published files when their ModelExport is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class LabelKind(StrEnum):
    """How the labels of an evaluation are stored; ``AUTO`` recognises it by the names of the files."""

    AUTO = "Auto"
    COCO = "COCO"
    YOLO = "YOLO"
    IMAGE_FOLDER = "ImageFolder"
    MASK_PNG = "MaskPNG"


class DropType(StrEnum):
    """How the drop of the accuracy is counted: the difference, or its share of the original's accuracy."""

    ABSOLUTE = "Absolute"
    RELATIVE = "Relative"


class OnDrop(StrEnum):
    """What happens to a file that lost more accuracy than is allowed."""

    FAIL = "Fail"
    PUBLISH = "Publish"


class PullPolicy(StrEnum):
    """When a node pulls the converter's image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True)
class DataRef:
    """A reference to data: its URI and, optionally, its expected SHA-256 (64 hex digits)."""

    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Facts about the model that a checkpoint may not contain.

    Attributes:
        variant: one of the architecture's; ``None``, as for the next two: read it from the checkpoint.
        num_classes: number of classes.
        input_size: (height, width) in pixels.
        score_threshold: minimum score of a box, 0 to 1, for files with NMS; ``None``: the architecture's.
        nms_threshold: maximum IoU of two boxes of a class, 0 to 1, for files with NMS; ``None``: the architecture's.
        norm_epsilon: epsilon of batch norm, 0 to 1; ``None``, as for all others below: the builder's default.
        activation: one of the activations in the matrix row.
        color_order: channel order of the training images.
        pixel_range: pixel range of the training images.
        image_mean: mean of each channel (red, green, blue, alpha) of the training images, for pixels of 0 to 1.
        image_std: standard deviation of each channel, likewise.
        detections_per_image: maximum number of detections.
        anchor_sizes: anchor sizes in pixels, level by level.
        aspect_ratios: height / width, the same on all levels.
        anchors: widths and heights in pixels, as in a Darknet ``.cfg``.
        align_corners: ``align_corners`` of bilinear upsampling.
    """

    variant: str | None = None
    num_classes: int | None = None
    input_size: tuple[int, int] | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    norm_epsilon: float | None = None
    activation: str | None = None
    color_order: str | None = None
    pixel_range: str | None = None
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    detections_per_image: int | None = None
    anchor_sizes: tuple[tuple[int, ...], ...] | None = None
    aspect_ratios: tuple[float, ...] | None = None
    anchors: tuple[int, ...] | None = None
    align_corners: bool | None = None


@dataclass(frozen=True)
class Model:
    """The trained model: its architecture, its checkpoint and its parameters."""

    architecture: str
    checkpoint: DataRef
    parameters: Parameters = Parameters()


@dataclass(frozen=True)
class Calibration:
    """Images on which activation ranges are measured, at most ``samples`` of them."""

    dataset: DataRef
    samples: int = DEFAULT_SAMPLES


@dataclass(frozen=True)
class Evaluation:
    """Labelled images on which files and the original model are compared by the metric of their task.

    ``samples`` limits the number of images; ``max_drop`` is the allowed loss, 0 to 1, as ``drop_type`` counts it.
    """

    dataset: DataRef
    labels: LabelKind = LabelKind.AUTO
    samples: int = DEFAULT_EVALUATED
    max_drop: float = float(DEFAULT_DROP)
    drop_type: DropType = DropType.ABSOLUTE
    on_drop: OnDrop = OnDrop.FAIL


@dataclass(frozen=True)
class ModelExport:
    """A parsed ModelExport.

    ``max_drops`` are the allowed losses of targets that state their own, ``options`` those of targets that have any.
    """

    name: str
    namespace: str
    model: Model
    targets: tuple[Target, ...]
    uid: str = ""
    generation: int = 0
    class_name: str | None = None
    support_level: SupportLevel = SupportLevel.STABLE
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    quantization: Quantization | None = None
    max_drops: Mapping[Target, float] = field(default_factory=dict)
    options: Mapping[Target, Options] = field(default_factory=dict)
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    suspend: bool = False
    ttl_seconds_after_finished: int | None = None


@dataclass(frozen=True)
class Storage:
    """An S3 bucket, its endpoint, and the Secrets of the Job's namespace for access to it.

    ``credentials_secret`` has the keys ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, ``ca_secret`` has
    ``ca.crt``. ``{namespace}`` in ``prefix`` stands for the namespace of the export.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = REGION_DEFAULT
    credentials_secret: str | None = None
    ca_secret: str | None = None


@dataclass(frozen=True)
class JobLimits:
    """Deadline in seconds and number of retries of a conversion Job."""

    deadline_seconds: int = 3600
    retries: int = 3


@dataclass(frozen=True)
class Sharing:
    """How the Jobs of a class share a cluster.

    ``parallelism`` limits the active targets of the class, ``parallelism_per_namespace`` those of each namespace;
    ``None`` means unlimited. ``queue_name`` is a Kueue LocalQueue in the namespaces of the exports,
    ``workload_priority_class_name`` the WorkloadPriorityClass of the Jobs in that queue.
    """

    parallelism: int | None = None
    parallelism_per_namespace: int | None = None
    queue_name: str | None = None
    workload_priority_class_name: str | None = None
    priority_class_name: str | None = None


@dataclass(frozen=True)
class ExportClass:
    """A parsed ExportClass: the platform settings of exports.

    ``sources`` are the folders from which exports may read, with ``{namespace}`` for the namespace of the export; an
    empty tuple allows every source. ``https_networks`` are the networks that ``https://`` sources may reach in addition
    to public addresses. ``allowed_namespaces`` are the namespaces that may use the class; an empty tuple allows all.
    ``image_pull_secrets`` name Secrets of the Job's namespace.
    """

    name: str
    storage: Storage
    image: str
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    image_pull_secrets: tuple[str, ...] = ()
    limits: JobLimits = JobLimits()
    is_default: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_pools: tuple[NodePool, ...] = ()
    sharing: Sharing = Sharing()
    sources: tuple[str, ...] = ()
    https_networks: tuple[str, ...] = ()
    allowed_namespaces: tuple[str, ...] = ()


def parse_export(body: Body) -> ModelExport:
    """Parse the body of a ModelExport.

    Raises:
        InvalidSpec: a field is missing or invalid.
    """
    fields.check_kind(body, EXPORT_KIND)
    metadata, spec = fields.mapping(body, "metadata"), fields.mapping(body, "spec")
    model, targets = _parse_model(fields.mapping(spec, "spec.model")), _parse_targets(spec.get("targets"))
    calibration = _parse_calibration(fields.optional_mapping(spec, "spec.calibration"))
    for index, target in enumerate(targets):
        if calibration is None and requires_images(target):
            raise InvalidSpec(f"spec.targets[{index}]", f"{target} {WITHOUT_IMAGES}")
    evaluation = _parse_evaluation(fields.optional_mapping(spec, "spec.evaluation"), model.architecture)
    return ModelExport(
        name=fields.name(metadata, "metadata.name"),
        namespace=fields.name({"namespace": "default", **metadata}, "metadata.namespace"),
        uid=fields.optional_text(metadata, "metadata.uid") or "",
        generation=fields.optional_int(metadata, "metadata.generation", 0, 2**63 - 1) or 0,
        class_name=fields.optional_text(spec, "spec.className"),
        model=model,
        support_level=fields.enum(SupportLevel, spec.get("supportLevel", SupportLevel.STABLE), "spec.supportLevel"),
        targets=targets,
        calibration=calibration,
        evaluation=evaluation,
        quantization=parse_quantization(
            fields.optional_mapping(spec, "spec.quantization"), targets, calibrated=calibration is not None
        ),
        max_drops=_parse_max_drops(spec["targets"], targets, evaluation),
        options=_parse_options(spec["targets"], targets, model.architecture, calibrated=calibration is not None),
        deletion_policy=fields.enum(
            DeletionPolicy, spec.get("deletionPolicy", DeletionPolicy.RETAIN), "spec.deletionPolicy"
        ),
        suspend=fields.boolean(spec, "spec.suspend"),
        ttl_seconds_after_finished=fields.optional_int(spec, "spec.ttlSecondsAfterFinished", 0, 2**31 - 1),
    )


def parse_class(body: Body) -> ExportClass:
    """Parse the body of an ExportClass.

    Raises:
        InvalidSpec: a field is missing or invalid.
    """
    fields.check_kind(body, CLASS_KIND)
    metadata, spec = fields.mapping(body, "metadata"), fields.mapping(body, "spec")
    converter = fields.mapping(spec, "spec.converter")
    annotations = fields.optional_mapping(metadata, "metadata.annotations") or {}
    return ExportClass(
        name=fields.name(metadata, "metadata.name"),
        storage=_parse_storage(fields.mapping(spec, "spec.storage")),
        image=fields.visible(fields.text(converter, "spec.converter.image"), "spec.converter.image"),
        image_pull_policy=fields.enum(
            PullPolicy, converter.get("imagePullPolicy") or PullPolicy.IF_NOT_PRESENT, "spec.converter.imagePullPolicy"
        ),
        image_pull_secrets=_parse_pull_secrets(converter),
        node_selector=parse_selector(converter, "spec.converter.nodeSelector"),
        node_pools=parse_pools(spec),
        limits=_parse_limits(fields.optional_mapping(spec, "spec.jobs") or {}),
        sharing=_parse_sharing(fields.optional_mapping(spec, "spec.jobs") or {}),
        is_default=annotations.get(DEFAULT_CLASS_ANNOTATION) == "true",
        sources=_parse_sources(spec.get("sources")),
        https_networks=_parse_networks(fields.optional_mapping(spec, "spec.https") or {}),
        allowed_namespaces=_parse_namespaces(spec),
    )


def _parse_pull_secrets(converter: Body) -> tuple[str, ...]:
    names, path = [], "spec.converter.imagePullSecrets"
    for index, item in enumerate(fields.items(converter, path)):
        if not isinstance(item, Mapping):
            problem = f"{quote(item)} is not a reference to a Secret, for example {{name: registry}}"
            raise InvalidSpec(f"{path}[{index}]", problem)
        names.append(fields.name(item, f"{path}[{index}].name"))
    return tuple(names)


def _parse_model(model: Body) -> Model:
    architecture = fields.text(model, "spec.model.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InvalidSpec("spec.model.architecture", f"{quote(architecture)} is not supported; use one of {known}")
    checkpoint = _parse_data(fields.mapping(model, "spec.model.checkpoint"), "spec.model.checkpoint")
    if checkpoint.uri.endswith("/"):
        problem = f"{checkpoint.uri[:80]!r} is a folder; use the URI of the checkpoint file"
        raise InvalidSpec("spec.model.checkpoint.uri", problem)
    return Model(
        architecture=architecture,
        checkpoint=checkpoint,
        parameters=_parse_parameters(architecture, fields.optional_mapping(model, "spec.model.parameters") or {}),
    )


def _parse_parameters(architecture: str, parameters: Body) -> Parameters:
    path, row = "spec.model.parameters", ARCHITECTURES[architecture]
    _check_taken(parameters, row, path)
    return Parameters(
        variant=_parse_variant(parameters.get("variant"), row, f"{path}.variant"),
        num_classes=fields.optional_int(parameters, f"{path}.numClasses", 1, CLASS_COUNT_LIMIT),
        input_size=_parse_input_size(parameters.get("inputSize"), row.stride, f"{path}.inputSize"),
        score_threshold=_parse_fraction(parameters, f"{path}.scoreThreshold", row, accepted=row.has_nms),
        nms_threshold=_parse_fraction(parameters, f"{path}.nmsThreshold", row, accepted=row.has_nms),
        norm_epsilon=_parse_fraction(parameters, f"{path}.normEpsilon", row, accepted=row.has_frozen_norm),
        activation=_parse_word(parameters, f"{path}.activation", row.activations),
        color_order=_parse_word(parameters, f"{path}.colorOrder", COLOR_ORDERS),
        pixel_range=_parse_word(parameters, f"{path}.pixelRange", PIXEL_RANGES),
        image_mean=_parse_decimals(parameters, f"{path}.imageMean", FRACTION_PATTERN, "0.485", (1, CHANNELS_LIMIT)),
        image_std=_parse_decimals(
            parameters, f"{path}.imageStd", POSITIVE_FRACTION_PATTERN, "0.229", (1, CHANNELS_LIMIT)
        ),
        detections_per_image=fields.optional_int(parameters, f"{path}.detectionsPerImage", 1, DETECTIONS_LIMIT),
        anchor_sizes=_parse_levels(parameters.get("anchorSizes"), f"{path}.anchorSizes"),
        aspect_ratios=_parse_decimals(parameters, f"{path}.aspectRatios", RATIO_PATTERN, "0.5", (1, PER_LEVEL_LIMIT)),
        anchors=_parse_anchors(parameters.get("anchors"), f"{path}.anchors"),
        align_corners=fields.boolean(parameters, f"{path}.alignCorners") if "alignCorners" in parameters else None,
    )


def _check_taken(parameters: Body, row: Architecture, path: str) -> None:
    """Reject parameters that the architecture does not take, and a mean or deviation for pixels of 0 to 255."""
    for name in STATED_PARAMETERS:
        taken = bool(row.activations) if name == "activation" else name in row.takes
        if parameters.get(name) is not None and not taken:
            raise InvalidSpec(f"{path}.{name}", f"is not a parameter of {row.name}; remove it")
    normalised = next((name for name in ("imageMean", "imageStd") if parameters.get(name) is not None), None)
    if normalised and "pixelRange" in row.takes and parameters.get("pixelRange") != "0-1":
        raise InvalidSpec(f"{path}.{normalised}", NORMALISED_PROBLEM)


def _parse_word(parameters: Body, path: str, allowed: Sequence[str]) -> str | None:
    value = parameters.get(path.rpartition(".")[2])
    if value is not None and value not in allowed:
        raise InvalidSpec(path, f"{quote(value)} is not known; use one of {', '.join(allowed)}")
    return value


def _parse_decimals(
    parameters: Body, path: str, pattern: str, example: str, counts: tuple[int, int]
) -> tuple[float, ...] | None:
    value, (low, high) = parameters.get(path.rpartition(".")[2]), counts
    if value is None:
        return None
    if not _is_list(value, low, high) or not all(isinstance(one, str) and re.fullmatch(pattern, one) for one in value):
        count = str(low) if low == high else f"{low} to {high}"
        raise InvalidSpec(path, f'{quote(value)} is not a list of {count} decimals as text, for example "{example}"')
    return tuple(float(one) for one in value)


def _parse_levels(value: Any, path: str) -> tuple[tuple[int, ...], ...] | None:
    if value is None:
        return None
    if not _is_list(value, 1, LEVELS_LIMIT) or not all(_is_sides(level, 1, PER_LEVEL_LIMIT) for level in value):
        raise InvalidSpec(
            path, f"{quote(value)} is not a list of sides in pixels for each level, for example [[32], [64]]"
        )
    return tuple(tuple(level) for level in value)


def _parse_anchors(value: Any, path: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not _is_sides(value, *ANCHOR_NUMBERS) or len(value) not in ANCHOR_NUMBERS:
        counts = " or ".join(map(str, ANCHOR_NUMBERS))
        raise InvalidSpec(path, f"{quote(value)} is not a list of {counts} widths and heights in pixels, as in a .cfg")
    return tuple(value)


def _is_sides(value: Any, low: int, high: int) -> bool:
    return _is_list(value, low, high) and all(fields.is_int(side) and 1 <= side <= INPUT_SIZE_LIMIT for side in value)


def _is_list(value: Any, low: int, high: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and low <= len(value) <= high


def _parse_variant(value: Any, row: Architecture, path: str) -> str | None:
    if value is None:
        return None
    if not row.variants:
        raise InvalidSpec(path, f"is not a parameter of {row.name}; remove it")
    if value not in row.variants:
        raise InvalidSpec(path, f"{quote(value)} is not a variant of {row.name}; use one of {', '.join(row.variants)}")
    return str(value)


def _parse_fraction(parameters: Body, path: str, row: Architecture, *, accepted: bool) -> float | None:
    value = parameters.get(path.rpartition(".")[2])
    if value is None:
        return None
    if not accepted:
        raise InvalidSpec(path, f"is not a parameter of {row.name}; remove it")
    if not isinstance(value, str) or not re.fullmatch(FRACTION_PATTERN, value):
        raise InvalidSpec(path, f"{quote(value)} is not a decimal from 0 to 1; {FRACTION_EXAMPLE}")
    return float(value)


def _parse_input_size(value: Any, stride: int, path: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, Sequence) and len(value) == 2 and all(fields.is_int(side) for side in value)):
        raise InvalidSpec(path, f"{quote(value)} is not [height, width] in pixels, for example [640, 640]")
    height, width = value
    if any(side % stride or not stride <= side <= INPUT_SIZE_LIMIT for side in value):
        raise InvalidSpec(
            path, f"{quote(list(value))} must be multiples of {stride} between {stride} and {INPUT_SIZE_LIMIT}"
        )
    return height, width


def _parse_targets(value: Any) -> tuple[Target, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidSpec("spec.targets", "add at least one target, for example {format: ONNX, precision: FP16}")
    if len(value) > TARGETS_LIMIT:
        raise InvalidSpec("spec.targets", f"has {len(value)} targets, the limit is {TARGETS_LIMIT}; use another export")
    targets = []
    for index, item in enumerate(value):
        path = f"spec.targets[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidSpec(path, f"{quote(item)} is not a target, for example {{format: ONNX, precision: FP16}}")
        fmt = fields.enum(Format, item.get("format"), f"{path}.format")
        precision = fields.enum(Precision, item.get("precision"), f"{path}.precision")
        if reason := BACKENDS[fmt].refused.get(precision):
            raise InvalidSpec(f"{path}.precision", REFUSED.format(precision, fmt, reason))
        targets.append(Target(fmt, precision, parse_name(item, path)))
    for index, target in enumerate(targets):
        if target in targets[:index]:
            raise InvalidSpec(f"spec.targets[{index}]", f"{target} {LISTED_TWICE}")
    return tuple(targets)


def _parse_options(
    entries: Sequence[Body], targets: Sequence[Target], architecture: str, *, calibrated: bool
) -> Mapping[Target, Options]:
    parsed = {
        target: parse_options(entry, architecture, target, f"spec.targets[{index}]", calibrated=calibrated)
        for index, (entry, target) in enumerate(zip(entries, targets, strict=True))
    }
    return {target: options for target, options in parsed.items() if options}


def _parse_calibration(value: Body | None) -> Calibration | None:
    if value is None:
        return None
    samples = fields.optional_int(value, "spec.calibration.samples", 1, SAMPLES_LIMIT)
    dataset = _parse_data(fields.mapping(value, "spec.calibration.dataset"), "spec.calibration.dataset")
    return Calibration(dataset, samples or DEFAULT_SAMPLES)


def _parse_evaluation(value: Body | None, architecture: str) -> Evaluation | None:
    if value is None:
        return None
    path = "spec.evaluation"
    if ARCHITECTURES[architecture].task is Task.UNKNOWN:
        raise InvalidSpec(path, NOT_EVALUATED.format(architecture))
    max_drop = _parse_max_drop(value, f"{path}.maxDrop")
    return Evaluation(
        dataset=_parse_data(fields.mapping(value, f"{path}.dataset"), f"{path}.dataset"),
        labels=fields.enum(LabelKind, value.get("labels", LabelKind.AUTO), f"{path}.labels"),
        samples=fields.optional_int(value, f"{path}.samples", 1, SAMPLES_LIMIT) or DEFAULT_EVALUATED,
        max_drop=float(DEFAULT_DROP) if max_drop is None else max_drop,
        drop_type=fields.enum(DropType, value.get("dropType", DropType.ABSOLUTE), f"{path}.dropType"),
        on_drop=fields.enum(OnDrop, value.get("onDrop", OnDrop.FAIL), f"{path}.onDrop"),
    )


def _parse_max_drops(
    entries: Sequence[Body], targets: Sequence[Target], evaluation: Evaluation | None
) -> Mapping[Target, float]:
    drops = {}
    for index, (entry, target) in enumerate(zip(entries, targets, strict=True)):
        drop = _parse_max_drop(entry, path := f"spec.targets[{index}].maxDrop")
        if drop is not None and evaluation is None:
            raise InvalidSpec(path, WITHOUT_EVALUATION)
        if drop is not None:
            drops[target] = drop
    return drops


def _parse_max_drop(parent: Body, path: str) -> float | None:
    value = parent.get("maxDrop")
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(FRACTION_PATTERN, value):
        raise InvalidSpec(path, f"{quote(value)} is not a decimal from 0 to 1; {DROP_EXAMPLE}")
    return float(value)


def _parse_data(value: Body, path: str) -> DataRef:
    uri, sha256 = fields.text(value, f"{path}.uri"), value.get("sha256")
    _check_uri(uri, f"{path}.uri")
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch(SHA256_PATTERN, sha256)):
        shown = quote(sha256[:80] if isinstance(sha256, str) else sha256)
        raise InvalidSpec(f"{path}.sha256", f"{shown} is not a SHA-256; use 64 hexadecimal digits in lower case")
    if uri.startswith("https://") and sha256 is None:
        problem = "an https:// URI needs the SHA-256 of the file; add it, or use s3://bucket/key"
        raise InvalidSpec(f"{path}.sha256", problem)
    if uri.endswith("/") and sha256 is not None:
        raise InvalidSpec(f"{path}.sha256", "a folder has no SHA-256; remove it, or use a zip archive")
    return DataRef(uri, sha256)


def _check_uri(uri: str, path: str) -> None:
    if len(uri) > URI_LIMIT:
        raise InvalidSpec(path, f"has {len(uri)} characters, the limit is {URI_LIMIT}; use a shorter URI")
    if not re.fullmatch(URI_PATTERN, uri):
        problem = f"{public_uri(uri)[:80]!r} is not a supported URI; use s3://bucket/key or https://host/path"
        # Only a path gets the hint: a cluster rejects file://.
        if uri.startswith("/"):
            problem += f"; in a local run use file://{uri}"
        elif uri.startswith("."):
            problem += "; in a local run use file:// with an absolute path"
        raise InvalidSpec(path, problem)
    if problem := explain_unreadable(uri) or "":
        raise InvalidSpec(path, f"{public_uri(uri)[:80]!r} {problem}")


def _parse_storage(storage: Body) -> Storage:
    endpoint = fields.text(storage, "spec.storage.endpoint")
    if not re.fullmatch(ENDPOINT_PATTERN, endpoint):
        raise InvalidSpec("spec.storage.endpoint", f"{quote(endpoint)} is {NO_ENDPOINT}")
    endpoint = fields.visible(endpoint.rstrip("/"), "spec.storage.endpoint")
    bucket = fields.text(storage, "spec.storage.bucket")
    if not re.fullmatch(BUCKET_PATTERN, bucket):
        raise InvalidSpec("spec.storage.bucket", f"{quote(bucket[:80])} is {NO_BUCKET}")
    prefix = (fields.optional_text(storage, "spec.storage.prefix") or "").strip("/")
    if not re.fullmatch(PREFIX_PATTERN, prefix) or not is_plain(f"s3://bucket/{prefix}"):
        problem = f"{prefix!r} is not a folder; write it without '..' and with no braces except {PLACEHOLDER}"
        raise InvalidSpec("spec.storage.prefix", problem)
    return Storage(
        endpoint=endpoint,
        bucket=bucket,
        prefix=prefix,
        region=fields.optional_text(storage, "spec.storage.region") or REGION_DEFAULT,
        credentials_secret=fields.optional_text(storage, "spec.storage.credentialsSecretName"),
        ca_secret=fields.optional_text(storage, "spec.storage.caSecretName"),
    )


def _parse_sources(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= SOURCES_LIMIT:
        raise InvalidSpec("spec.sources", f"{quote(value)} is not a list of 1 to {SOURCES_LIMIT} folders")
    for index, source in enumerate(value):
        is_folder = isinstance(source, str) and re.fullmatch(SOURCE_PATTERN, source)
        if not is_folder or not is_plain(source) or not is_clean(source):
            example = f"use a URI that ends with a slash, for example s3://checkpoints/{PLACEHOLDER}/"
            problem = f"{quote(source)} is not a folder; {example}"
            raise InvalidSpec(f"spec.sources[{index}]", problem)
    return tuple(value)


def _parse_networks(https: Body) -> tuple[str, ...]:
    networks, path = [], "spec.https.allowedNetworks"
    for index, item in enumerate(fields.items(https, path)):
        try:
            networks.append(str(ip_network(item if isinstance(item, str) and "/" in item else "")))
        except ValueError as error:
            problem = f"{quote(item)} is not a network, for example 10.0.0.0/8; all host bits must be zero"
            raise InvalidSpec(f"{path}[{index}]", problem) from error
    return tuple(networks)


def _parse_namespaces(spec: Body) -> tuple[str, ...]:
    path = "spec.allowedNamespaces"
    if spec.get("allowedNamespaces") is None:
        return ()
    found = tuple(
        fields.name({f"allowedNamespaces[{index}]": item}, f"{path}[{index}]")
        for index, item in enumerate(fields.items(spec, path))
    )
    if not found:
        raise InvalidSpec(
            path, "is empty; list the namespaces that may use the class, or remove the field to allow all"
        )
    return found


def _parse_limits(jobs: Body) -> JobLimits:
    deadline = fields.optional_int(jobs, "spec.jobs.deadlineSeconds", 1, DEADLINE_LIMIT)
    retries = fields.optional_int(jobs, "spec.jobs.retries", 0, RETRIES_LIMIT)
    default = JobLimits()
    return JobLimits(
        default.deadline_seconds if deadline is None else deadline,
        default.retries if retries is None else retries,
    )


def _parse_sharing(jobs: Body) -> Sharing:
    queue = fields.optional_text(jobs, "spec.jobs.queueName")
    workload_priority = fields.optional_text(jobs, "spec.jobs.workloadPriorityClassName")
    if workload_priority and not queue:
        raise InvalidSpec("spec.jobs.workloadPriorityClassName", WITHOUT_QUEUE)
    return Sharing(
        parallelism=fields.optional_int(jobs, "spec.jobs.parallelism", 1, PARALLELISM_LIMIT),
        parallelism_per_namespace=fields.optional_int(jobs, "spec.jobs.parallelismPerNamespace", 1, PARALLELISM_LIMIT),
        queue_name=queue,
        workload_priority_class_name=workload_priority,
        priority_class_name=fields.optional_text(jobs, "spec.jobs.priorityClassName"),
    )
