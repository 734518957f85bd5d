"""The API objects as frozen data, and the parsers that turn a Kubernetes body into them.

The API server refuses most bad input by the CRD; the parsers refuse the same and what a schema cannot see, because a
local run has no API server and a CRD may be older than the code.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network
from typing import Any

from modelexport import fields
from modelexport.fields import Body, InvalidSpec
from modelexport.matrix import ARCHITECTURES, Architecture, Format, Precision, SupportLevel, Target
from modelexport.names import CLASS_KIND, DEFAULT_CLASS_ANNOTATION, EXPORT_KIND, REGION_DEFAULT
from modelexport.nodepools import NodePool, parse_pools
from modelexport.sources import PLACEHOLDER, explain_unreadable, is_plain, public_uri
from modelexport.text import is_clean

URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|https://.+|file:///.+)$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
FRACTION_PATTERN = "^(0([.][0-9]+)?|1([.]0+)?)$"
FRACTION_EXAMPLE = 'write it as text, for example "0.5"'
POSITIVE_FRACTION_PATTERN = "^(0[.][0-9]*[1-9][0-9]*|1([.]0+)?)$"
RATIO_PATTERN = "^(0[.][0-9]*[1-9][0-9]*|[1-9][0-9]?([.][0-9]+)?)$"
COLOR_ORDERS = ("BGR", "RGB")
PIXEL_RANGES = ("0-255", "0-1")
DETECTIONS_LIMIT = 1000
CHANNELS_LIMIT = 4
"""Of a picture: red, green, blue and alpha."""
LEVELS_LIMIT, PER_LEVEL_LIMIT = 8, 8
ANCHORS_PER_LEVEL = 6
"""Numbers of YOLOv4: three widths and heights."""
ANCHOR_NUMBERS = (2 * ANCHORS_PER_LEVEL, 3 * ANCHORS_PER_LEVEL)
"""How many there are of the tiny network and of the full one."""
URI_LIMIT = 1024
CLASS_COUNT_LIMIT = 100_000
INPUT_SIZE_LIMIT = 4096
SAMPLES_LIMIT = 10_000
DEADLINE_LIMIT = 7 * 24 * 3600
RETRIES_LIMIT = 10
PARALLELISM_LIMIT = 100_000
DEFAULT_SAMPLES = 64
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
"""Parameters that only some architectures take: what their builders can be told and no weights tell."""
NORMALISED_PROBLEM = "is for pixels of 0 to 1; set pixelRange: 0-1"
PREFIX_PATTERN = r"^([^{}]|[{]namespace[}])*$"
SOURCE_PATTERN = r"^(s3://([a-z0-9.-]|[{]namespace[}])+|https://[A-Za-z0-9.:-]+)/(([^/{}%\\\s]|[{]namespace[}])+/)*$"
PULL_SECRETS_LIMIT = 16
SOURCES_LIMIT = 32
NETWORK_PATTERN = r"^[0-9a-f.:]{2,39}/[0-9]{1,3}$"
NETWORKS_LIMIT = 32
NAMESPACES_LIMIT = 1000


class DeletionPolicy(StrEnum):
    """What becomes of the published files when their ModelExport is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True)
class DataRef:
    """Bytes that the user names: where they are and, where given, the SHA-256 that they must have (64 hex digits)."""

    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Facts about the model that the checkpoint may not tell; ``None`` means: read it from the checkpoint.

    ``input_size`` is (height, width) in pixels. The thresholds, 0 to 1, are for files that suppress boxes themselves:
    the least score, and the largest intersection over union of two boxes of a class; ``None`` means the architecture's.
    ``norm_epsilon``, 0 to 1, is what normalisation adds to variances; ``None`` means what the network's builder sets.
    So does it for all that follows, which no weights tell. ``activation`` is one of the matrix row's; ``color_order``
    and ``pixel_range`` are those of the pictures that the network was trained on, ``image_mean`` and ``image_std`` by
    which they were normalised, for pixels of 0 to 1, a number for each channel in the order red, green, blue, alpha.
    ``anchor_sizes`` are sides in pixels, level by level, and ``aspect_ratios`` height over width, the same on all
    levels. ``anchors`` are widths and heights in pixels, as in a ``.cfg`` of Darknet. ``align_corners`` is of bilinear
    upsampling.
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
    """Pictures on which activation ranges are measured; at most ``samples`` of them are read."""

    dataset: DataRef
    samples: int = DEFAULT_SAMPLES


@dataclass(frozen=True)
class ModelExport:
    """A parsed ModelExport."""

    name: str
    namespace: str
    model: Model
    targets: tuple[Target, ...]
    uid: str = ""
    generation: int = 0
    class_name: str | None = None
    support_level: SupportLevel = SupportLevel.STABLE
    calibration: Calibration | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    suspend: bool = False
    ttl_seconds_after_finished: int | None = None


@dataclass(frozen=True)
class Storage:
    """An S3 bucket, how to reach it, and the Secret of the Job's namespace that holds the credentials.

    The Secret has the keys ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, and ``ca.crt`` when ``ca`` is set.
    ``{namespace}`` in ``prefix`` stands for the namespace of the export.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = REGION_DEFAULT
    credentials_secret: str | None = None
    ca_secret: str | None = None


@dataclass(frozen=True)
class JobLimits:
    """Bounds of one conversion Job: seconds until it is ended, and how often it is tried again."""

    deadline_seconds: int = 3600
    retries: int = 3


@dataclass(frozen=True)
class Sharing:
    """How the Jobs of a class share a cluster.

    ``parallelism`` bounds the targets of a class that are on their way at once, and the same of each namespace;
    ``None`` bounds nothing. ``queue_name`` is a LocalQueue of Kueue in the namespaces of the exports.
    """

    parallelism: int | None = None
    parallelism_per_namespace: int | None = None
    queue_name: str | None = None
    priority_class_name: str | None = None


@dataclass(frozen=True)
class ExportClass:
    """A parsed ExportClass: the platform team's half of an export.

    ``sources`` are the folders from which exports may read, ``{namespace}`` for the export's own; none means anywhere.
    ``https_networks`` are those to which ``https://`` sources may lead beside public addresses. ``allowed_namespaces``
    are those whose exports the class serves; none means all.
    ``image_pull_secrets`` name Secrets of the Job's namespace.
    """

    name: str
    storage: Storage
    image: str
    image_pull_policy: str = "IfNotPresent"
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
        InvalidSpec: a field is missing or holds a value that cannot be accepted.
    """
    fields.check_kind(body, EXPORT_KIND)
    metadata, spec = fields.mapping(body, "metadata"), fields.mapping(body, "spec")
    return ModelExport(
        name=fields.name(metadata, "metadata.name"),
        namespace=fields.name({"namespace": "default", **metadata}, "metadata.namespace"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        class_name=fields.optional_text(spec, "spec.className"),
        model=_parse_model(fields.mapping(spec, "spec.model")),
        support_level=fields.enum(SupportLevel, spec.get("supportLevel", SupportLevel.STABLE), "spec.supportLevel"),
        targets=_parse_targets(spec.get("targets")),
        calibration=_parse_calibration(fields.optional_mapping(spec, "spec.calibration")),
        deletion_policy=fields.enum(
            DeletionPolicy, spec.get("deletionPolicy", DeletionPolicy.RETAIN), "spec.deletionPolicy"
        ),
        suspend=fields.boolean(spec, "spec.suspend"),
        ttl_seconds_after_finished=fields.optional_int(spec, "spec.ttlSecondsAfterFinished", 0, 2**31 - 1),
    )


def parse_class(body: Body) -> ExportClass:
    """Parse the body of an ExportClass.

    Raises:
        InvalidSpec: a field is missing or holds a value that cannot be accepted.
    """
    fields.check_kind(body, CLASS_KIND)
    metadata, spec = fields.mapping(body, "metadata"), fields.mapping(body, "spec")
    converter = fields.mapping(spec, "spec.converter")
    annotations = fields.optional_mapping(metadata, "metadata.annotations") or {}
    return ExportClass(
        name=fields.name(metadata, "metadata.name"),
        storage=_parse_storage(fields.mapping(spec, "spec.storage")),
        image=fields.visible(fields.text(converter, "spec.converter.image"), "spec.converter.image"),
        image_pull_policy=fields.optional_text(converter, "spec.converter.imagePullPolicy") or "IfNotPresent",
        image_pull_secrets=_parse_pull_secrets(converter),
        node_selector=converter.get("nodeSelector") or {},
        node_pools=parse_pools(spec),
        limits=_parse_limits(fields.optional_mapping(spec, "spec.jobs") or {}),
        sharing=_parse_sharing(fields.optional_mapping(spec, "spec.jobs") or {}),
        is_default=annotations.get(DEFAULT_CLASS_ANNOTATION) == "true",
        sources=_parse_sources(spec.get("sources")),
        https_networks=_parse_networks(fields.optional_mapping(spec, "spec.https") or {}),
        allowed_namespaces=_parse_namespaces(spec),
    )


def _parse_pull_secrets(converter: Body) -> tuple[str, ...]:
    path = "spec.converter.imagePullSecrets"
    return tuple(
        _parse_pull_secret(item, f"{path}[{index}]") for index, item in enumerate(fields.items(converter, path))
    )


def _parse_pull_secret(value: Any, path: str) -> str:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{value!r} is not a reference to a Secret, for example {{name: registry}}")
    return fields.name(value, f"{path}.name")


def _parse_model(model: Body) -> Model:
    architecture = fields.text(model, "spec.model.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InvalidSpec("spec.model.architecture", f"{architecture!r} is not supported; use one of {known}")
    return Model(
        architecture=architecture,
        checkpoint=_parse_checkpoint(fields.mapping(model, "spec.model.checkpoint"), "spec.model.checkpoint"),
        parameters=_parse_parameters(architecture, fields.optional_mapping(model, "spec.model.parameters") or {}),
    )


def _parse_parameters(architecture: str, parameters: Body) -> Parameters:
    path, row = "spec.model.parameters", ARCHITECTURES[architecture]
    _check_taken(parameters, row, path)
    return Parameters(
        variant=_parse_variant(parameters.get("variant"), row, f"{path}.variant"),
        num_classes=fields.optional_int(parameters, f"{path}.numClasses", 1, CLASS_COUNT_LIMIT),
        input_size=_parse_input_size(parameters.get("inputSize"), row.stride, f"{path}.inputSize"),
        score_threshold=_parse_fraction(parameters, f"{path}.scoreThreshold", row, accepted=row.suppresses),
        nms_threshold=_parse_fraction(parameters, f"{path}.nmsThreshold", row, accepted=row.suppresses),
        norm_epsilon=_parse_fraction(parameters, f"{path}.normEpsilon", row, accepted=row.freezes),
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
    """Refuse what would change nothing, and a normalisation of pixels that are not on its scale."""
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
        raise InvalidSpec(path, f"{value!r} is not known; use one of {', '.join(allowed)}")
    return value


def _parse_decimals(
    parameters: Body, path: str, pattern: str, example: str, counts: tuple[int, int]
) -> tuple[float, ...] | None:
    value, (low, high) = parameters.get(path.rpartition(".")[2]), counts
    if value is None:
        return None
    if not _is_list(value, low, high) or not all(isinstance(one, str) and re.fullmatch(pattern, one) for one in value):
        count = str(low) if low == high else f"{low} to {high}"
        raise InvalidSpec(path, f'{value!r} is not a list of {count} decimals as text, for example "{example}"')
    return tuple(float(one) for one in value)


def _parse_levels(value: Any, path: str) -> tuple[tuple[int, ...], ...] | None:
    if value is None:
        return None
    if not _is_list(value, 1, LEVELS_LIMIT) or not all(_is_sides(level, 1, PER_LEVEL_LIMIT) for level in value):
        raise InvalidSpec(path, f"{value!r} is not a list of sides in pixels for each level, for example [[32], [64]]")
    return tuple(tuple(level) for level in value)


def _parse_anchors(value: Any, path: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not _is_sides(value, *ANCHOR_NUMBERS) or len(value) not in ANCHOR_NUMBERS:
        counts = " or ".join(map(str, ANCHOR_NUMBERS))
        raise InvalidSpec(path, f"{value!r} is not a list of {counts} widths and heights in pixels, as in a .cfg")
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
        raise InvalidSpec(path, f"{value!r} is no variant of {row.name}; use one of {', '.join(row.variants)}")
    return str(value)


def _parse_fraction(parameters: Body, path: str, row: Architecture, *, accepted: bool) -> float | None:
    value = parameters.get(path.rpartition(".")[2])
    if value is None:
        return None
    if not accepted:
        raise InvalidSpec(path, f"is not a parameter of {row.name}; remove it")
    if not isinstance(value, str) or not re.fullmatch(FRACTION_PATTERN, value):
        raise InvalidSpec(path, f"{value!r} is not a decimal from 0 to 1; {FRACTION_EXAMPLE}")
    return float(value)


def _parse_input_size(value: Any, stride: int, path: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, Sequence) and len(value) == 2 and all(fields.is_int(side) for side in value)):
        raise InvalidSpec(path, f"{value!r} is not [height, width] in pixels, for example [640, 640]")
    height, width = value
    if any(side % stride or not stride <= side <= INPUT_SIZE_LIMIT for side in value):
        raise InvalidSpec(path, f"{list(value)} must be multiples of {stride} between {stride} and {INPUT_SIZE_LIMIT}")
    return height, width


def _parse_targets(value: Any) -> tuple[Target, ...]:
    if not isinstance(value, Sequence) or not value:
        raise InvalidSpec("spec.targets", "name at least one target, for example {format: ONNX, precision: FP16}")
    targets = tuple(_parse_target(item, f"spec.targets[{index}]") for index, item in enumerate(value))
    for index, target in enumerate(targets):
        if target in targets[:index]:
            raise InvalidSpec(f"spec.targets[{index}]", f"{target} is named twice; remove one")
    return targets


def _parse_target(value: Any, path: str) -> Target:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{value!r} is not a target, for example {{format: ONNX, precision: FP16}}")
    return Target(
        fields.enum(Format, value.get("format"), f"{path}.format"),
        fields.enum(Precision, value.get("precision"), f"{path}.precision"),
    )


def _parse_calibration(value: Body | None) -> Calibration | None:
    if value is None:
        return None
    samples = fields.optional_int(value, "spec.calibration.samples", 1, SAMPLES_LIMIT)
    dataset = _parse_data(fields.mapping(value, "spec.calibration.dataset"), "spec.calibration.dataset")
    return Calibration(dataset, samples or DEFAULT_SAMPLES)


def _parse_checkpoint(value: Body, path: str) -> DataRef:
    reference = _parse_data(value, path)
    if reference.uri.endswith("/"):
        raise InvalidSpec(f"{path}.uri", f"{reference.uri[:80]!r} is a folder; name the file of the checkpoint")
    return reference


def _parse_data(value: Body, path: str) -> DataRef:
    uri, sha256 = fields.text(value, f"{path}.uri"), value.get("sha256")
    _check_uri(uri, f"{path}.uri")
    if sha256 is not None and not re.fullmatch(SHA256_PATTERN, str(sha256)):
        problem = f"{str(sha256)[:80]!r} is not a SHA-256; give 64 hexadecimal digits in lower case"
        raise InvalidSpec(f"{path}.sha256", problem)
    if uri.startswith("https://") and sha256 is None:
        problem = "an https:// URI needs the SHA-256 of the file; add it, or use s3://bucket/key"
        raise InvalidSpec(f"{path}.sha256", problem)
    if uri.endswith("/") and sha256 is not None:
        raise InvalidSpec(f"{path}.sha256", "a folder has no SHA-256; remove it, or name a zip archive")
    return DataRef(uri, sha256)


def _check_uri(uri: str, path: str) -> None:
    if len(uri) > URI_LIMIT:
        raise InvalidSpec(path, f"has {len(uri)} characters, the limit is {URI_LIMIT}; name a shorter URI")
    if not re.fullmatch(URI_PATTERN, uri):
        problem = f"{public_uri(uri)[:80]!r} is not a URI that can be read; use s3://bucket/key or https://host/path"
        raise InvalidSpec(path, problem + _advise_local(uri))
    if problem := explain_unreadable(uri) or "":
        raise InvalidSpec(path, f"{public_uri(uri)[:80]!r} {problem}")


def _advise_local(uri: str) -> str:
    """Only who wrote a path is told of it: a cluster takes none."""
    if uri.startswith("/"):
        return f"; in a local run file://{uri}"
    return "; in a local run file:// and the whole path" if uri.startswith(".") else ""


def _parse_storage(storage: Body) -> Storage:
    endpoint = fields.text(storage, "spec.storage.endpoint")
    if not re.fullmatch(r"https?://[^/\s]+/?", endpoint):
        problem = f"{endpoint!r} is not an S3 endpoint, for example http://minio.default.svc:9000"
        raise InvalidSpec("spec.storage.endpoint", problem)
    return Storage(
        endpoint=fields.visible(endpoint.rstrip("/"), "spec.storage.endpoint"),
        bucket=fields.visible(fields.text(storage, "spec.storage.bucket"), "spec.storage.bucket"),
        prefix=_parse_prefix((fields.optional_text(storage, "spec.storage.prefix") or "").strip("/")),
        region=fields.optional_text(storage, "spec.storage.region") or REGION_DEFAULT,
        credentials_secret=fields.optional_text(storage, "spec.storage.credentialsSecretName"),
        ca_secret=fields.optional_text(storage, "spec.storage.caSecretName"),
    )


def _parse_prefix(prefix: str) -> str:
    if not re.fullmatch(PREFIX_PATTERN, prefix) or not is_plain(f"s3://bucket/{prefix}"):
        problem = f"{prefix!r} is not a folder; write it without '..' and with no other braces than {PLACEHOLDER}"
        raise InvalidSpec("spec.storage.prefix", problem)
    return prefix


def _parse_sources(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= SOURCES_LIMIT:
        raise InvalidSpec("spec.sources", f"{value!r} is not a list of 1 to {SOURCES_LIMIT} folders")
    for index, source in enumerate(value):
        if not re.fullmatch(SOURCE_PATTERN, str(source)) or not is_plain(source) or not is_clean(source):
            problem = f"{source!r} is not a folder, for example s3://checkpoints/{PLACEHOLDER}/; it ends with a slash"
            raise InvalidSpec(f"spec.sources[{index}]", problem)
    return tuple(value)


def _parse_networks(https: Body) -> tuple[str, ...]:
    path = "spec.https.allowedNetworks"
    return tuple(_parse_network(item, f"{path}[{index}]") for index, item in enumerate(fields.items(https, path)))


def _parse_network(value: Any, path: str) -> str:
    try:
        return str(ip_network(value if isinstance(value, str) and "/" in value else ""))
    except ValueError as error:
        problem = f"{str(value)[:80]!r} is not a network, for example 10.0.0.0/8; no bits may be set behind its length"
        raise InvalidSpec(path, problem) from error


def _parse_namespaces(spec: Body) -> tuple[str, ...]:
    path = "spec.allowedNamespaces"
    if spec.get("allowedNamespaces") is None:
        return ()
    found = tuple(
        fields.name({f"allowedNamespaces[{index}]": item}, f"{path}[{index}]")
        for index, item in enumerate(fields.items(spec, path))
    )
    if not found:
        raise InvalidSpec(path, "holds no namespace; name those that the class serves, or leave it out for all")
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
    return Sharing(
        parallelism=fields.optional_int(jobs, "spec.jobs.parallelism", 1, PARALLELISM_LIMIT),
        parallelism_per_namespace=fields.optional_int(jobs, "spec.jobs.parallelismPerNamespace", 1, PARALLELISM_LIMIT),
        queue_name=fields.optional_text(jobs, "spec.jobs.queueName"),
        priority_class_name=fields.optional_text(jobs, "spec.jobs.priorityClassName"),
    )
