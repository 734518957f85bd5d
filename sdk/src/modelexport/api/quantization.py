"""What an export says of INT8 that loses too much: ``spec.quantization``, and its parser."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelexport.api import fields
from modelexport.api.fields import Body, InvalidSpec
from modelexport.matrix.support import BACKENDS, TARGETS, Target
from modelexport.text import quote

MOST_FLOAT_LAYERS = 1024
DEFAULT_FLOAT_LAYERS = 16
DEFAULT_SIZE_RATIO = "0.40"
SIZE_RATIO_PATTERN = "^(0[.][0-9]*[1-9][0-9]*|1([.]0+)?)$"
NO_SIZE_RATIO = f'not a decimal above 0 and up to 1; write it as text, for example "{DEFAULT_SIZE_RATIO}"'
WITHOUT_CALIBRATION = "layers are measured on images; set spec.calibration, or remove spec.quantization"
WITHOUT_LAYERS = "leaves effort MixedPrecision nothing to do; use 1 or more, or effort: Ranges"
FIRST_FLOAT_LAYERS = 4
"""Layers that the first file of mixed precision keeps in float; each further one keeps twice as many."""


class Effort(StrEnum):
    """How far a conversion goes for an INT8 file that keeps its accuracy.

    ``RANGES`` chooses ranges of 8 bits only; ``MIXED_PRECISION`` keeps the layers in float that cost most; ``AUTO``
    is ``RANGES``, and ``MIXED_PRECISION`` for a file that loses too much.
    """

    AUTO = "Auto"
    RANGES = "Ranges"
    MIXED_PRECISION = "MixedPrecision"


@dataclass(frozen=True)
class Quantization:
    """How INT8 files with 8-bit activations are made.

    ``max_float_layers`` limits the layers that stay in float; ``max_size_ratio``, 0 to 1, limits the size of a file
    that has any, relative to the FP32 file.
    """

    effort: Effort = Effort.AUTO
    max_float_layers: int = DEFAULT_FLOAT_LAYERS
    max_size_ratio: float = float(DEFAULT_SIZE_RATIO)

    def float_layer_counts(self) -> Iterator[int]:
        """Yield how many layers may stay in float in each file that is tried, in order; 0 is the rung ``RANGES``."""
        if self.effort is not Effort.MIXED_PRECISION:
            yield 0
        if self.effort is Effort.RANGES:
            return
        count = FIRST_FLOAT_LAYERS
        while count < self.max_float_layers:
            yield count
            count *= 2
        if self.max_float_layers:
            yield self.max_float_layers


def takes_float_layers(target: Target, *, calibrated: bool) -> bool:
    """Return whether layers of a target's file may stay in float: whether all else is in 8 bits."""
    return BACKENDS[target.format].recipe(target.precision, calibrated=calibrated).takes_float_layers


FLOAT_LAYER_TARGETS = tuple(target for target in TARGETS if takes_float_layers(target, calibrated=True))
NO_TARGET = (
    f"applies to none of the targets: only {', '.join(map(str, FLOAT_LAYER_TARGETS[:-1]))} and "
    f"{FLOAT_LAYER_TARGETS[-1]} can keep layers in float; "
    "add one of them, or remove spec.quantization"
)


def parse_quantization(value: Body | None, targets: Sequence[Target], *, calibrated: bool) -> Quantization | None:
    """Parse ``spec.quantization`` of an export with these targets.

    Raises:
        InvalidSpec: a field is invalid, or applies to nothing.
    """
    if value is None:
        return None
    path = "spec.quantization"
    effort = fields.enum(Effort, value.get("effort", Effort.AUTO), f"{path}.effort")
    layers = fields.optional_int(value, f"{path}.maxFloatLayers", 0, MOST_FLOAT_LAYERS)
    if effort is Effort.MIXED_PRECISION and layers == 0:
        raise InvalidSpec(f"{path}.maxFloatLayers", f"0 {WITHOUT_LAYERS}")
    if not any(target in FLOAT_LAYER_TARGETS for target in targets):
        raise InvalidSpec(f"{path}.effort", f"{effort} {NO_TARGET}")
    if not calibrated:
        raise InvalidSpec(path, WITHOUT_CALIBRATION)
    ratio = value.get("maxSizeRatio", DEFAULT_SIZE_RATIO)
    if not isinstance(ratio, str) or not re.fullmatch(SIZE_RATIO_PATTERN, ratio):
        raise InvalidSpec(f"{path}.maxSizeRatio", f"{quote(ratio)} is {NO_SIZE_RATIO}")
    return Quantization(effort, DEFAULT_FLOAT_LAYERS if layers is None else layers, float(ratio))
