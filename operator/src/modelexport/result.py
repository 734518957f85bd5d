"""What one conversion answers: the termination message of the converter, read by the operator and by a local run.

A termination message holds at most 4096 bytes, so a result is short; the long form is the report beside the artifact.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from modelexport.names import TERMINATION_MESSAGE_LIMIT
from modelexport.reasons import Reason

SCHEMA_VERSION = 1
ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH = 12, 96
WARNINGS_LIMIT, WARNING_LENGTH = 4, 240
"""How many a result has at most and their characters, so that it fits into a termination message."""


class Reference(StrEnum):
    """Where the network comes from against which a produced file is compared.

    ``CHECKPOINT``: built layer by layer from the module tree in the checkpoint. ``PROGRAM``: the graph of a ``.pt2``
    archive. ``REBUILT``: the stock network of the architecture, filled with the checkpoint's weights; what the weights
    do not say (activations, strides, pooling) is assumed.
    """

    CHECKPOINT = "Checkpoint"
    PROGRAM = "Program"
    REBUILT = "Rebuilt"


@dataclass(frozen=True)
class Artifact:
    """A published file: its URI, its SHA-256 (64 hex digits) and its size in bytes."""

    uri: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Verification:
    """How close the produced file came to the original model, what was asked, and where that model comes from.

    ``value`` and ``threshold`` are decimals as text, as Kubernetes wants them in a status. ``reference`` is ``None`` in
    what an earlier version wrote. ``assumptions`` are what of the model its checkpoint does not say, a phrase each;
    ``warnings`` are signs that something of it is wrong.
    """

    metric: str
    value: str
    threshold: str
    reference: Reference | None = None
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a status, a report or a message: lists in place of tuples, and nothing that is empty."""
        numbers = {"metric": self.metric, "value": self.value, "threshold": self.threshold}
        origin = {
            "reference": self.reference and str(self.reference),
            "assumptions": _phrases(self.assumptions, ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH),
            "warnings": _phrases(self.warnings, WARNINGS_LIMIT, WARNING_LENGTH),
        }
        return {**numbers, **{name: value for name, value in origin.items() if value}}

    def add_warnings(self, message: str) -> str:
        """A message with the warnings after it, if there are any."""
        return "; ".join((message, *(f"warning: {warning}" for warning in self.warnings)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote, in this version or an earlier one.

        Raises:
            KeyError: a number is missing.
            TypeError: something is not of its type.
            ValueError: the reference is none that is known.
        """
        metric, value, threshold = (_text(data[name]) for name in ("metric", "value", "threshold"))
        reference = data.get("reference")
        return cls(
            metric,
            value,
            threshold,
            reference=None if reference is None else Reference(reference),
            assumptions=tuple(_phrases(data.get("assumptions"), ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH)),
            warnings=tuple(_phrases(data.get("warnings"), WARNINGS_LIMIT, WARNING_LENGTH)),
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _phrases(value: Any, most: int, length: int) -> list[str]:
    """The first texts of a list, each cut to a length."""
    return [_text(phrase)[:length] for phrase in list(value or ())[:most]]


@dataclass(frozen=True)
class ConversionResult:
    """The end of one conversion.

    ``reused`` says that an earlier, equal conversion had published the file already.
    """

    reason: Reason
    message: str
    scheme: str | None = None
    artifact: Artifact | None = None
    report_uri: str | None = None
    verification: Verification | None = None
    seconds: float | None = None
    peak_memory_mib: int | None = None
    reused: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether an artifact was published."""
        return self.reason is Reason.SUCCEEDED

    def to_json(self) -> str:
        """The result as JSON of at most 4096 bytes; a longer message is cut and ends in an ellipsis."""
        text, kept = self._dump(self.message), len(self.message)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT and kept:
            kept = kept * 9 // 10
            text = self._dump(f"{self.message[:kept]}…" if kept else "")
        return text

    def _dump(self, message: str) -> str:
        verification = self.verification and self.verification.to_dict()
        content = {"schemaVersion": SCHEMA_VERSION, **asdict(self), "message": message, "verification": verification}
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the text is no result, or one of another schema version.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            version = data.pop("schemaVersion")
            if version != SCHEMA_VERSION:
                raise ValueError(f"result has schemaVersion {version}, this version reads {SCHEMA_VERSION}")
            artifact, verification = data["artifact"], data["verification"]
            typed = {
                "reason": Reason(data["reason"]),
                "artifact": artifact and Artifact(**artifact),
                "verification": verification and Verification.from_dict(verification),
            }
            return cls(**{**data, **typed})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a conversion result: {error!r}") from error
