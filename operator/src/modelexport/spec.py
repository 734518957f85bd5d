"""The API objects as frozen data, and the parsers that turn a Kubernetes body into them.

The API server refuses most bad input by the CRD; the parsers refuse the same and what a schema cannot see, because a
local run has no API server and a CRD may be older than the code.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from modelexport.matrix import ARCHITECTURES, Format, Precision, SupportLevel, Target
from modelexport.names import API_VERSION, CLASS_KIND, DEFAULT_CLASS_ANNOTATION, EXPORT_KIND
from modelexport.reasons import Reason

URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|https://.+|file:///.+)$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
URI_LIMIT = 1024
CLASS_COUNT_LIMIT = 100_000
INPUT_SIZE_LIMIT = 4096
SAMPLES_LIMIT = 10_000
DEADLINE_LIMIT = 7 * 24 * 3600
RETRIES_LIMIT = 10
DEFAULT_SAMPLES = 64

E = TypeVar("E", bound=StrEnum)
Body = Mapping[str, Any]


class InvalidSpec(ValueError):  # noqa: N818 - what it says is not an error of ours
    """A field holds a value that cannot be accepted; ``str()`` names the field, the value and the way out."""

    def __init__(self, field_path: str, problem: str, reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(f"{field_path}: {problem}")
        self.field_path = field_path
        self.reason = reason


@dataclass(frozen=True)
class DataRef:
    """Bytes that the user names: where they are and, where given, the SHA-256 that they must have (64 hex digits)."""

    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Facts about the model that the checkpoint may not tell; ``None`` means: read it from the checkpoint.

    ``input_size`` is (height, width) in pixels.
    """

    variant: str | None = None
    num_classes: int | None = None
    input_size: tuple[int, int] | None = None


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
    suspend: bool = False
    ttl_seconds_after_finished: int | None = None


@dataclass(frozen=True)
class Storage:
    """An S3 bucket, how to reach it, and the Secret of the Job's namespace that holds the credentials.

    The Secret has the keys ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, and ``ca.crt`` when ``ca`` is set.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    credentials_secret: str | None = None
    ca_secret: str | None = None


@dataclass(frozen=True)
class JobLimits:
    """Bounds of one conversion Job: seconds until it is ended, and how often it is tried again."""

    deadline_seconds: int = 3600
    retries: int = 3


@dataclass(frozen=True)
class ExportClass:
    """A parsed ExportClass: the platform team's half of an export."""

    name: str
    storage: Storage
    image: str
    image_pull_policy: str = "IfNotPresent"
    limits: JobLimits = JobLimits()
    is_default: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)


def parse_export(body: Body) -> ModelExport:
    """Parse the body of a ModelExport.

    Raises:
        InvalidSpec: a field is missing or holds a value that cannot be accepted.
    """
    _check_kind(body, EXPORT_KIND)
    metadata, spec = _mapping(body, "metadata"), _mapping(body, "spec")
    return ModelExport(
        name=_text(metadata, "metadata.name"),
        namespace=metadata.get("namespace") or "default",
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        class_name=spec.get("className"),
        model=_parse_model(_mapping(spec, "spec.model")),
        support_level=_enum(SupportLevel, spec.get("supportLevel", SupportLevel.STABLE), "spec.supportLevel"),
        targets=_parse_targets(spec.get("targets")),
        calibration=_parse_calibration(spec.get("calibration")),
        suspend=bool(spec.get("suspend", False)),
        ttl_seconds_after_finished=_optional_int(spec, "spec.ttlSecondsAfterFinished", 0, 2**31 - 1),
    )


def parse_class(body: Body) -> ExportClass:
    """Parse the body of an ExportClass.

    Raises:
        InvalidSpec: a field is missing or holds a value that cannot be accepted.
    """
    _check_kind(body, CLASS_KIND)
    metadata, spec = _mapping(body, "metadata"), _mapping(body, "spec")
    converter = _mapping(spec, "spec.converter")
    annotations = metadata.get("annotations") or {}
    return ExportClass(
        name=_text(metadata, "metadata.name"),
        storage=_parse_storage(_mapping(spec, "spec.storage")),
        image=_text(converter, "spec.converter.image"),
        image_pull_policy=converter.get("imagePullPolicy", "IfNotPresent"),
        node_selector=converter.get("nodeSelector") or {},
        limits=_parse_limits(spec.get("jobs") or {}),
        is_default=annotations.get(DEFAULT_CLASS_ANNOTATION) == "true",
    )


def _parse_model(model: Body) -> Model:
    architecture = _text(model, "spec.model.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InvalidSpec("spec.model.architecture", f"{architecture!r} is not supported; use one of {known}")
    return Model(
        architecture=architecture,
        checkpoint=_parse_data(_mapping(model, "spec.model.checkpoint"), "spec.model.checkpoint"),
        parameters=_parse_parameters(architecture, model.get("parameters") or {}),
    )


def _parse_parameters(architecture: str, parameters: Body) -> Parameters:
    path, row = "spec.model.parameters", ARCHITECTURES[architecture]
    variant = parameters.get("variant")
    if variant is not None and variant not in row.variants:
        known = ", ".join(row.variants)
        raise InvalidSpec(f"{path}.variant", f"{variant!r} is no variant of {architecture}; use one of {known}")
    return Parameters(
        variant=variant,
        num_classes=_optional_int(parameters, f"{path}.numClasses", 1, CLASS_COUNT_LIMIT),
        input_size=_parse_input_size(parameters.get("inputSize"), row.stride, f"{path}.inputSize"),
    )


def _parse_input_size(value: Any, stride: int, path: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, Sequence) and len(value) == 2 and all(_is_int(side) for side in value)):
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
        _enum(Format, value.get("format"), f"{path}.format"),
        _enum(Precision, value.get("precision"), f"{path}.precision"),
    )


def _parse_calibration(value: Any) -> Calibration | None:
    if value is None:
        return None
    samples = _optional_int(value, "spec.calibration.samples", 1, SAMPLES_LIMIT)
    dataset = _parse_data(_mapping(value, "spec.calibration.dataset"), "spec.calibration.dataset")
    return Calibration(dataset, DEFAULT_SAMPLES if samples is None else samples)


def _parse_data(value: Body, path: str) -> DataRef:
    uri, sha256 = _text(value, f"{path}.uri"), value.get("sha256")
    if len(uri) > URI_LIMIT or not re.match(URI_PATTERN, uri):
        problem = f"{uri[:80]!r} is not a URI that can be read; use s3://bucket/key or https://host/path"
        raise InvalidSpec(f"{path}.uri", problem)
    if sha256 is not None and not re.match(SHA256_PATTERN, str(sha256)):
        problem = f"{str(sha256)[:80]!r} is not a SHA-256; give 64 hexadecimal digits in lower case"
        raise InvalidSpec(f"{path}.sha256", problem)
    if uri.startswith("https://") and sha256 is None:
        problem = "an https:// URI needs the SHA-256 of the file; add it, or use s3://bucket/key"
        raise InvalidSpec(f"{path}.sha256", problem)
    return DataRef(uri, sha256)


def _parse_storage(storage: Body) -> Storage:
    endpoint = _text(storage, "spec.storage.endpoint")
    if not re.match(r"^https?://[^/]+/?$", endpoint):
        problem = f"{endpoint!r} is not an S3 endpoint, for example http://minio.default.svc:9000"
        raise InvalidSpec("spec.storage.endpoint", problem)
    return Storage(
        endpoint=endpoint.rstrip("/"),
        bucket=_text(storage, "spec.storage.bucket"),
        prefix=storage.get("prefix", "").strip("/"),
        region=storage.get("region", "us-east-1"),
        credentials_secret=storage.get("credentialsSecretName"),
        ca_secret=storage.get("caSecretName"),
    )


def _parse_limits(jobs: Body) -> JobLimits:
    deadline = _optional_int(jobs, "spec.jobs.deadlineSeconds", 1, DEADLINE_LIMIT)
    retries = _optional_int(jobs, "spec.jobs.retries", 0, RETRIES_LIMIT)
    default = JobLimits()
    return JobLimits(
        default.deadline_seconds if deadline is None else deadline,
        default.retries if retries is None else retries,
    )


def _check_kind(body: Body, kind: str) -> None:
    found = f"{body.get('apiVersion')} {body.get('kind')}"
    if found != f"{API_VERSION} {kind}":
        raise InvalidSpec("apiVersion, kind", f"found {found}, expected {API_VERSION} {kind}")


def _mapping(parent: Body, path: str) -> Body:
    value = parent.get(_last(path))
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, "is missing" if value is None else f"{value!r} is not an object")
    return value


def _text(parent: Body, path: str) -> str:
    value = parent.get(_last(path))
    if not isinstance(value, str) or not value:
        raise InvalidSpec(path, "is missing" if value is None else f"{value!r} is not a text")
    return value


def _optional_int(parent: Body, path: str, low: int, high: int) -> int | None:
    value = parent.get(_last(path))
    if value is None:
        return None
    if not _is_int(value) or not low <= value <= high:
        raise InvalidSpec(path, f"{value!r} is not a whole number from {low} to {high}")
    return int(value)


def _enum(kind: type[E], value: Any, path: str) -> E:
    if value not in list(kind):
        raise InvalidSpec(path, f"{value!r} is not known; use one of {', '.join(kind)}")
    return kind(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
