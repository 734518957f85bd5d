"""The request for one conversion, which the operator or a local run passes to the converter as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Self

from modelexport.api.options import parse_name, read_options
from modelexport.api.quantization import MOST_FLOAT_LAYERS, Effort, Quantization
from modelexport.api.sources import public_uri
from modelexport.api.spec import Calibration, DataRef, DropType, Evaluation, LabelKind, Model, OnDrop, Parameters
from modelexport.matrix.options import NO_OPTIONS, Options
from modelexport.matrix.support import Format, Precision, Recipe, Target, Threshold

SCHEMA_VERSION = 1
TEXTS = ("export", "artifact_name", "output", "spec_hash")


@dataclass(frozen=True)
class ConversionRequest:
    """Everything that is needed to convert one target of one export.

    ``output`` is the URI of the folder for artifact and report, with a trailing slash.
    ``spec_hash`` identifies the content of the request: equal hashes request equal files. ``evaluation`` holds the
    allowed loss of this target. ``quantization`` concerns files with 8-bit activations only. ``options`` say how the
    file takes images and what it contains besides the network.
    """

    export: str
    model: Model
    target: Target
    recipe: Recipe
    threshold: Threshold
    artifact_name: str
    output: str
    spec_hash: str
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    quantization: Quantization = field(default_factory=Quantization)
    options: Options = NO_OPTIONS

    def shared_uri(self, name: str) -> str:
        """Return the URI of a file in the folder of the export, which all its targets share."""
        return f"{split_folder(self.output)[0]}/{name}"

    @property
    def original_files(self) -> tuple[str, str]:
        """The names of the evaluation of the original: of all labelled images, and without those that calibrate.

        All targets of an export share it, but for files that suppress boxes: the original of these does, too.
        """
        of = f"-nms-{self.target.format.lower()}" if self.options.nms else ""
        return f"original{of}.records", f"original{of}-calibrated.records"

    def to_json(self) -> str:
        """Return the request as one line of JSON with sorted keys; equal requests give equal text."""
        content = {
            **{name: getattr(self, name) for name in TEXTS},
            "scheme": self.recipe,
            "schemaVersion": SCHEMA_VERSION,
            "model": _plain_model(self.model),
            "target": self.target.to_dict(),
            "threshold": asdict(self.threshold),
            "calibration": self.calibration and asdict(self.calibration),
            # Left out by default, so that a converter of an earlier version can read the rest.
            **({"evaluation": asdict(self.evaluation)} if self.evaluation else {}),
            **({"quantization": asdict(self.quantization)} if self.quantization != Quantization() else {}),
            **({"options": self.options.to_dict()} if self.options else {}),
        }
        return json.dumps(content, sort_keys=True)

    def public(self) -> Self:
        """Return the request without the credentials and queries of its web addresses."""
        model = replace(self.model, checkpoint=_public(self.model.checkpoint))
        calibration = self.calibration and replace(self.calibration, dataset=_public(self.calibration.dataset))
        evaluation = self.evaluation and replace(self.evaluation, dataset=_public(self.evaluation.dataset))
        return replace(self, model=model, calibration=calibration, evaluation=evaluation)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a request from the JSON of ``to_json``.

        Raises:
            ValueError: the text is not a request, or has another schema version.
        """
        try:
            data = json.loads(text)
            version = data.pop("schemaVersion")
            if version != SCHEMA_VERSION:
                raise ValueError(f"request has schemaVersion {version}, this converter reads {SCHEMA_VERSION}")
            if not all(isinstance(data[name], str) for name in TEXTS):
                raise ValueError(f"{', '.join(TEXTS)} must be strings")
            model, target = data["model"], data["target"]
            calibration, evaluation = data["calibration"], data.get("evaluation")
            parameters = {name: _frozen(value) for name, value in model["parameters"].items()}
            typed = {
                "model": Model(model["architecture"], DataRef(**model["checkpoint"]), Parameters(**parameters)),
                "target": Target(
                    Format(target["format"]), Precision(target["precision"]), parse_name(target, "target")
                ),
                "options": read_options(data.pop("options", {}), "options"),
                "recipe": Recipe(data.pop("scheme")),
                "threshold": Threshold(**data["threshold"]),
                "calibration": calibration and Calibration(DataRef(**calibration["dataset"]), calibration["samples"]),
                "evaluation": evaluation and _evaluation(evaluation),
                "quantization": _quantization(data.get("quantization", {})),
            }
            return cls(**{**data, **typed})
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a conversion request: {error!r}") from error


def split_folder(uri: str) -> tuple[str, str]:
    """Return the folder above a folder, without a slash at its end, and the name of the folder."""
    parent, _, name = uri.removesuffix("/").rpartition("/")
    return parent, name


@lru_cache(maxsize=256)
def _plain_model(model: Model) -> Mapping[str, Any]:
    """Return a model as plain data; cached, because all targets of an export share it.

    Parameters that are not set are left out, so that a converter of an earlier version can read the rest.
    """
    content = asdict(model)
    given = {name: value for name, value in content["parameters"].items() if value is not None}
    return {**content, "parameters": given}


def _public(ref: DataRef) -> DataRef:
    return replace(ref, uri=public_uri(ref.uri))


def _evaluation(data: dict[str, Any]) -> Evaluation:
    enums = {"labels": LabelKind, "drop_type": DropType, "on_drop": OnDrop}
    typed = {name: kind(data[name]) for name, kind in enums.items()}
    return Evaluation(**{**data, **typed, "dataset": DataRef(**data["dataset"])})


def _quantization(data: dict[str, Any]) -> Quantization:
    found = Quantization(**{**data, **({"effort": Effort(data["effort"])} if "effort" in data else {})})
    layers, ratio = found.max_float_layers, found.max_size_ratio
    if type(layers) is not int or not 0 <= layers <= MOST_FLOAT_LAYERS:
        raise ValueError(f"quantization.max_float_layers must be a whole number from 0 to {MOST_FLOAT_LAYERS}")
    if type(ratio) is not float or not 0 < ratio <= 1:
        raise ValueError("quantization.max_size_ratio must be a number above 0, up to 1")
    return found


def _frozen(value: Any) -> Any:
    """Return lists as tuples, at every depth: JSON has no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
