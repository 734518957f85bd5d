"""What the operator (or a local run) asks of one conversion; JSON in the environment of the converter."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from modelexport.matrix import Format, Precision, Scheme, Target, Threshold
from modelexport.sources import public_uri
from modelexport.spec import Calibration, DataRef, Model, Parameters

SCHEMA_VERSION = 1
TEXTS = ("export", "artifact_name", "output", "spec_hash")


@dataclass(frozen=True)
class ConversionRequest:
    """One target of one export, complete in itself.

    ``output`` is the URI of the folder (it ends with a slash) into which artifact and report go.
    ``spec_hash`` names the content of the request: equal hashes ask for equal files.
    """

    export: str
    model: Model
    target: Target
    scheme: Scheme
    threshold: Threshold
    artifact_name: str
    output: str
    spec_hash: str
    calibration: Calibration | None = None

    def to_json(self) -> str:
        """The request as one line of JSON, keys sorted: equal requests give equal text."""
        content = asdict(self)
        # Without what is not given, so that a converter of an earlier version reads what it knows.
        given = {name: value for name, value in content["model"]["parameters"].items() if value is not None}
        content["model"]["parameters"] = given
        return json.dumps({"schemaVersion": SCHEMA_VERSION, **content}, sort_keys=True)

    def public(self) -> Self:
        """The same request without the credentials and the queries of web addresses; nothing can be fetched with it."""
        model = replace(self.model, checkpoint=_public(self.model.checkpoint))
        calibration = self.calibration and replace(self.calibration, dataset=_public(self.calibration.dataset))
        return replace(self, model=model, calibration=calibration)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the text is no request, or one of another schema version.
        """
        try:
            data = json.loads(text)
            version = data.pop("schemaVersion")
            if version != SCHEMA_VERSION:
                raise ValueError(f"request has schemaVersion {version}, this converter reads {SCHEMA_VERSION}")
            if not all(isinstance(data[name], str) for name in TEXTS):
                raise ValueError(f"{', '.join(TEXTS)} have to be texts")
            return cls(**{**data, **_typed(data)})
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a conversion request: {error!r}") from error


def _public(ref: DataRef) -> DataRef:
    return replace(ref, uri=public_uri(ref.uri))


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    calibration = data["calibration"]
    return {
        "model": _model(data["model"]),
        "target": Target(Format(data["target"]["format"]), Precision(data["target"]["precision"])),
        "scheme": Scheme(data["scheme"]),
        "threshold": Threshold(**data["threshold"]),
        "calibration": calibration and Calibration(DataRef(**calibration["dataset"]), calibration["samples"]),
    }


def _model(data: dict[str, Any]) -> Model:
    parameters = {name: _frozen(value) for name, value in data["parameters"].items()}
    return Model(data["architecture"], DataRef(**data["checkpoint"]), Parameters(**parameters))


def _frozen(value: Any) -> Any:
    """Lists as the tuples that they were before they went through JSON."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
