"""The status of an export as an SDK user reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from modelexport import untrusted
from modelexport.api.reasons import Reason
from modelexport.client.cluster import Body
from modelexport.errors import BadInput, ExportFailed
from modelexport.published import MESSAGE_LIMIT, Published, of_cluster


@dataclass(frozen=True)
class ExportStatus:
    """The status of an export at one moment.

    Attributes:
        name: name of the export.
        namespace: its namespace.
        uid: its UID.
        reason: the reason of its condition ``Ready``; empty before the operator has seen it.
        message: the message of that condition.
        ready: whether every target is published.
        failed: whether it has ended, and will not become ready by itself.
        suspended: whether ``spec.suspend`` holds it back.
        targets: the state of each target, with its artifact once that is published.
    """

    name: str
    namespace: str
    uid: str
    reason: str
    message: str
    ready: bool
    failed: bool
    suspended: bool
    targets: tuple[Published, ...]

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read the status of a ModelExport.

        Raises:
            BadInput: the operator has not written this status.
        """
        metadata, spec = body["metadata"], body.get("spec") or {}
        try:
            conditions = dict(_conditions(body))
        except ValueError as error:
            problem = "wait until the operator has rewritten it"
            raise BadInput(f"the status of {metadata['name']} is invalid: {error}; {problem}") from error
        ready = conditions.get("Ready", {})
        return cls(
            name=str(metadata["name"]),
            namespace=str(metadata["namespace"]),
            uid=str(metadata["uid"]),
            reason=untrusted.text(ready.get("reason", ""), "reason", MESSAGE_LIMIT),
            message=untrusted.text(ready.get("message", ""), "message", MESSAGE_LIMIT),
            ready=ready.get("status") == "True",
            failed=conditions.get("Stalled", {}).get("status") == "True",
            suspended=spec.get("suspend") is True,
            targets=of_cluster(body),
        )

    @property
    def finished(self) -> bool:
        """Whether there is nothing to wait for: it is ready, or it failed."""
        return self.ready or self.failed

    def target(self, name: str) -> Published:
        """Return a target by its name, such as ``LiteRT/INT8``.

        Raises:
            BadInput: the export has no such target.
        """
        found = next((one for one in self.targets if one.target.lower() == name.lower()), None)
        if found is None:
            known = ", ".join(one.target for one in self.targets) or "none yet"
            raise BadInput(f"{name!r} is not a target of {self.name}; use one of {known}", field="spec.targets")
        return found

    def check(self) -> Self:
        """Return the status if the export has not failed.

        Raises:
            ExportFailed: it has; the message has each failed target and the way out. Its reason is that of the failed
                targets, or ``TargetsFailed`` if they differ.
        """
        if not self.failed:
            return self
        failed = [one for one in self.targets if one.artifact is None]
        words = [f"{one.target}: {one.reason}: {one.message}" for one in failed]
        reasons = {one.reason for one in failed} or {self.reason}
        known = [reason for reason in Reason if reason in reasons]
        way_out = [reason.policy.advice for reason in known]
        message = "; ".join((f"{self.namespace}/{self.name}: {self.message}", *words, *way_out))
        raise ExportFailed(message, reason=known[0] if len(known) == 1 else Reason.TARGETS_FAILED)


def _conditions(body: Body) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the conditions by type; one of an earlier generation of the spec says nothing of this one."""
    status = untrusted.record(body.get("status") or {}, "status")
    if status.get("observedGeneration", 0) != body["metadata"].get("generation", 0):
        return
    for condition in status.get("conditions") or ():
        fields = untrusted.record(condition, "a condition")
        yield untrusted.word(fields.get("type"), "type"), dict(fields)
