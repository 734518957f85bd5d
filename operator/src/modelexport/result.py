"""What one conversion answers: the termination message of the converter, read by the operator and by a local run.

A termination message holds at most 4096 bytes, so a result is short; the long form is the report beside the artifact.
Whoever may run a Pod can write one, so it is read as from a stranger: each field by its type and within its bounds.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from modelexport import untrusted
from modelexport.names import TERMINATION_MESSAGE_LIMIT
from modelexport.reasons import Fault, Reason
from modelexport.sources import is_plain
from modelexport.text import clean

SCHEMA_VERSION = 1
ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH = 12, 96
WARNINGS_LIMIT, WARNING_LENGTH = 4, 240
"""How many a result has at most and their characters, so that it fits into a termination message."""
ENDS = (Reason.SUCCEEDED, Reason.FILES_REMOVED)
"""The good ends that a converter can tell."""
MOST_SECONDS = 1e7
"""Of a conversion, about four months; the deadline of a Job is at most a week."""
MOST_MEMORY_MIB = 1 << 24


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
            "assumptions": [clean(phrase, ASSUMPTION_LENGTH) for phrase in self.assumptions[:ASSUMPTIONS_LIMIT]],
            "warnings": [clean(warning, WARNING_LENGTH) for warning in self.warnings[:WARNINGS_LIMIT]],
        }
        return {**numbers, **{name: value for name, value in origin.items() if value}}


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
        message = clean(self.message)
        text, kept = self._dump(message), len(message)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT and kept:
            kept = kept * 9 // 10
            text = self._dump(f"{message[:kept]}…" if kept else "")
        return text

    def _dump(self, message: str) -> str:
        verification = self.verification and self.verification.to_dict()
        content = {"schemaVersion": SCHEMA_VERSION, **asdict(self), "message": message, "verification": verification}
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, output: str | None = None, exit_code: int | None = None) -> Self:
        """Read what ``to_json`` wrote.

        Args:
            text: the message.
            output: URI of the folder that the request named, with its slash. What succeeded has a file, a report and
                its numbers, and both files lie in this folder; ``None`` where no file was asked for.
            exit_code: with which the converter ended, if that is known: it follows from the reason.

        Raises:
            ValueError: the text is no result, one of another schema version, or one that cannot be.
        """
        fields = dict(untrusted.load(text, TERMINATION_MESSAGE_LIMIT))
        version = fields.pop("schemaVersion", None)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ValueError(f"result has schemaVersion {clean(str(version), 20)}, this version reads {SCHEMA_VERSION}")
        if missing := {"reason", "message"} - fields.keys():
            raise ValueError(f"not a conversion result: {', '.join(sorted(missing))} is missing")
        if unknown := fields.keys() - _READERS.keys():
            raise ValueError(f"not a conversion result: {clean(min(unknown), 40)!r} is not known")
        result = cls(**{name: _READERS[name](value, name) for name, value in fields.items()})
        if exit_code is not None and exit_code != result.reason.exit_code:
            raise ValueError(f"the reason {result.reason} does not end with exit code {exit_code}")
        result._check(output)
        return result

    def _check(self, output: str | None) -> None:
        """Refuse what no conversion answers: each field is right, and together they are not."""
        if self.reason.policy.fault is Fault.NONE and self.reason not in ENDS:
            raise ValueError(f"the reason {self.reason} is no end")
        files = [uri for uri in (self.artifact and self.artifact.uri, self.report_uri) if uri]
        if files and not self.succeeded:
            raise ValueError(f"a result with the reason {self.reason} has no files")
        if output is None:
            return
        if self.succeeded and (len(files) < 2 or self.verification is None):
            raise ValueError("a result that succeeded has a file, a report and its verification")
        if outside := [uri for uri in files if not is_file_in(uri, output)]:
            raise ValueError(f"{outside[0]!r} is not within {output}, where this conversion publishes")


def is_file_in(uri: str, folder: str) -> bool:
    """Whether a URI is that of a file which lies in a folder, whose URI ends with a slash, and in none below it."""
    name = uri.removeprefix(folder)
    return uri.startswith(folder) and name != "" and "/" not in name and is_plain(uri)


def read_reason(value: Any, name: str = "reason") -> Reason:
    """A word of the closed list."""
    try:
        return Reason(untrusted.word(value, name))
    except ValueError as error:
        raise ValueError(f"{name}: {clean(str(value), untrusted.SHOWN)!r} is not known") from error


def read_artifact(value: Any, name: str = "artifact", size: str = "size_bytes") -> Artifact:
    """A published file; ``size`` is the key of its size."""
    fields = untrusted.record(value, name)
    return Artifact(
        untrusted.uri(fields.get("uri"), f"{name}.uri"),
        untrusted.digest(fields.get("sha256"), f"{name}.sha256"),
        untrusted.whole(fields.get(size), f"{name}.{size}"),
    )


def read_verification(value: Any, name: str = "verification") -> Verification:
    """The numbers of a verification, and the origin of its reference, which an earlier version does not name."""
    fields = untrusted.record(value, name)
    return Verification(
        untrusted.word(fields.get("metric"), f"{name}.metric"),
        untrusted.decimal(fields.get("value"), f"{name}.value"),
        untrusted.decimal(fields.get("threshold"), f"{name}.threshold"),
        _optional(_read_reference)(fields.get("reference"), f"{name}.reference"),
        *(
            untrusted.texts([] if fields.get(key) is None else fields[key], f"{name}.{key}", *limits)
            for key, limits in (
                ("assumptions", (ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH)),
                ("warnings", (WARNINGS_LIMIT, WARNING_LENGTH)),
            )
        ),
    )


def _read_reference(value: Any, name: str) -> Reference:
    return Reference(untrusted.word(value, name))


def _optional(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else read(value, name)


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "reason": read_reason,
    "message": lambda value, name: untrusted.text(value, name, TERMINATION_MESSAGE_LIMIT),
    "scheme": _optional(untrusted.word),
    "artifact": _optional(read_artifact),
    "report_uri": _optional(untrusted.uri),
    "verification": _optional(read_verification),
    "seconds": _optional(lambda value, name: untrusted.number(value, name, MOST_SECONDS)),
    "peak_memory_mib": _optional(lambda value, name: untrusted.whole(value, name, MOST_MEMORY_MIB)),
    "reused": untrusted.flag,
}
"""How each field of a result is read."""
