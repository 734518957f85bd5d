"""What conversions of the same targets on arm64 and on amd64 say of arm64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
"""One target in the JSON of ``modelexport run``."""


@dataclass(frozen=True)
class TargetComparison:
    """One target, converted on both.

    Attributes:
        emulated: the record of the conversion on arm64.
        native: the record of the conversion on amd64.
        recognised: the record of a conversion on amd64 that found the file of arm64 in its store.
        agreement: what amd64 measures of the file of arm64, against the original.
        threshold: what the agreement has to reach.
        difference: the largest difference of any output between the two files, both run on amd64.
        images: the number of images of the last two.
    """

    emulated: Record
    native: Record
    recognised: Record
    agreement: float
    threshold: float
    difference: float
    images: int

    @property
    def target(self) -> str:
        """The target."""
        return str(self.emulated["target"])

    def problems(self) -> list[str]:
        """Return a sentence for each fault of the file that arm64 made."""
        problems = []
        if not self.recognised["reused"]:
            problems.append(f"{self.target}: amd64 does not take the file of arm64 for its own work")
        if not self.agreement >= self.threshold:  # NaN reaches no threshold
            reached = f"{self.agreement:.6f}, and {self.threshold:g} is required"
            problems.append(f"{self.target}: the file of arm64 agrees on amd64 by {reached}")
        return problems

    def lines(self) -> list[str]:
        """Return the numbers for people."""
        ours, theirs = self.emulated["artifact"], self.native["artifact"]
        equal = ours["sha256"] == theirs["sha256"]
        other = "the same on amd64" if equal else f"not the same as the {theirs['size_bytes']:,} of amd64"
        verified = self.emulated["verification"]
        fidelity = verified["fidelity"] or {}
        answers = f", fidelity {fidelity['metric']} {fidelity['value']}" if fidelity else ""
        return [
            f"{self.target}: {ours['size_bytes']:,} bytes, {other}",
            f"  on arm64  {self.emulated['seconds']:.0f} s, verified: agreement {verified['value']}{answers}",
            f"  on amd64  {self.native['seconds']:.0f} s, agreement {self.native['verification']['value']}",
            f"  the file of arm64 on amd64: agreement {self.agreement:.6f} on {self.images} images, "
            f"outputs differ by {self.difference:.2g} at most from those of amd64's file",
        ]


def failures(records: Sequence[Record]) -> list[str]:
    """Return what failed in a run, as sentences."""
    return [
        f"{record['target']}: {record.get('message') or record['state']}"
        for record in records
        if record.get("reason") != "Succeeded"
    ]
