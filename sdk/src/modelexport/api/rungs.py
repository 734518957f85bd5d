"""The rungs that a conversion tried for an INT8 file, as results, reports and statuses record them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelexport import untrusted
from modelexport.api.quantization import MOST_FLOAT_LAYERS, Effort
from modelexport.text import clean

MOST_RUNGS = 12
"""Files that are tried for one target, at most: layers double from 4 to 1024."""
STOP_LENGTH = 200
MOST_SECONDS = 10**7


@dataclass(frozen=True)
class Rung:
    """One file that was tried, and how near it comes to the original. Decimals are text, as in ``Verification``.

    Attributes:
        rung: an ``Effort``, or the word of a later version.
        float_layers: layers that stay in float.
        size_ratio: size of the file relative to the FP32 file.
        seconds: seconds that it took.
        agreement: its agreement with the original; ``None`` if the file was too large to be measured.
        fidelity: its fidelity, if it was measured.
        drop: its loss of accuracy, if there is an evaluation and the file reached agreement and fidelity.
    """

    rung: str
    float_layers: int
    size_ratio: str
    seconds: int
    agreement: str | None = None
    fidelity: str | None = None
    drop: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, a report or a message, without empty fields."""
        values = {
            "rung": self.rung,
            "floatLayers": self.float_layers,
            "sizeRatio": self.size_ratio,
            "seconds": self.seconds,
            "agreement": self.agreement,
            "fidelity": self.fidelity,
            "drop": self.drop,
        }
        return {key: value for key, value in values.items() if value is not None}

    def __str__(self) -> str:
        """Return a phrase for a message: ``MixedPrecision with 4 layers in float (drop 0.0117, 0.388 of FP32)``."""
        layers = f" with {self.float_layers} layers in float" if self.float_layers else ""
        measured = {"drop": self.drop, "fidelity": self.fidelity, "agreement": self.agreement}
        name, found = next(((name, found) for name, found in measured.items() if found), ("", "not measured"))
        return f"{self.rung}{layers} ({f'{name} {found}'.strip()}, {self.size_ratio} of the bytes of FP32)"


@dataclass(frozen=True)
class QuantizationResult:
    """How an INT8 file was made: the rung and layers in float of the file, and all that were tried, in order.

    ``stopped`` says why no other rung was tried if none kept what is required.
    """

    effort: str
    float_layers: int
    size_ratio: str
    rungs: tuple[Rung, ...]
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, a report or a message."""
        return {
            "effort": self.effort,
            "floatLayers": self.float_layers,
            "sizeRatio": self.size_ratio,
            "rungs": [rung.to_dict() for rung in self.rungs],
            **({"stopped": clean(self.stopped, STOP_LENGTH)} if self.stopped else {}),
        }

    @property
    def is_plain(self) -> bool:
        """Whether the first rung was enough, so that there is nothing to tell."""
        return len(self.rungs) == 1 and self.effort == Effort.RANGES and not self.stopped

    def describe(self) -> str:
        """Return a phrase for a message: what was tried, and why no more was."""
        tried = f"tried {', then '.join(map(str, self.rungs))}"
        return f"{tried}; {self.stopped}" if self.stopped else tried


def read_quantization(value: Any, name: str = "quantization") -> QuantizationResult:
    """Read how a file was made."""
    fields, listed = untrusted.record(value, name), untrusted.record(value, name).get("rungs")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_RUNGS:
        raise ValueError(f"{name}.rungs is not a list of 1 to {MOST_RUNGS} rungs")
    stopped = fields.get("stopped")
    return QuantizationResult(
        effort=untrusted.word(fields.get("effort"), f"{name}.effort"),
        **_size(fields, name),
        rungs=tuple(_read_rung(item, f"{name}.rungs") for item in listed),
        stopped="" if stopped is None else untrusted.text(stopped, f"{name}.stopped", STOP_LENGTH),
    )


def _read_rung(value: Any, name: str) -> Rung:
    fields = untrusted.record(value, name)
    return Rung(
        rung=untrusted.word(fields.get("rung"), f"{name}.rung"),
        **_size(fields, name),
        seconds=untrusted.whole(fields.get("seconds"), f"{name}.seconds", MOST_SECONDS),
        agreement=_decimal(fields, name, "agreement"),
        fidelity=_decimal(fields, name, "fidelity"),
        drop=_decimal(fields, name, "drop"),
    )


def _decimal(fields: Mapping[str, Any], name: str, key: str) -> str | None:
    return None if fields.get(key) is None else untrusted.decimal(fields[key], f"{name}.{key}")


def _size(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        "float_layers": untrusted.whole(fields.get("floatLayers"), f"{name}.floatLayers", MOST_FLOAT_LAYERS),
        "size_ratio": untrusted.decimal(fields.get("sizeRatio"), f"{name}.sizeRatio"),
    }
