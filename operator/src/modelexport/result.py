"""What one conversion answers: the termination message of the converter, read by the operator and by a local run.

A termination message holds at most 4096 bytes, so a result is short; the long form is the report beside the artifact.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from modelexport.names import TERMINATION_MESSAGE_LIMIT
from modelexport.reasons import Reason

SCHEMA_VERSION = 1


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
    """How close the produced file came to the original model, and what was asked.

    ``value`` and ``threshold`` are decimals as text, as Kubernetes wants them in a status.
    """

    metric: str
    value: str
    threshold: str


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
        return json.dumps({"schemaVersion": SCHEMA_VERSION, **asdict(self), "message": message}, ensure_ascii=False)

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
                "verification": verification and Verification(**verification),
            }
            return cls(**{**data, **typed})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a conversion result: {error!r}") from error
