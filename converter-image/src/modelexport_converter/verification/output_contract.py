"""Checks that a ``.pt2`` program's outputs have the meaning that its architecture promises.

Logits have the shape of probabilities, boxes in pixels have that of boxes in fractions of the image, and angles in
degrees that of radians. A file of them would agree with the program and mislead everyone who reads its description.
"""

from collections.abc import Sequence

import numpy as np
import torch

from modelexport.api.reasons import Reason
from modelexport_converter.backends import Array
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output

ROUNDING = 1e-2
"""Tolerance of the range 0 to 1 of probabilities, and of their sums; a softmax in half precision stays closer."""
FARTHEST = 4.0
"""The largest median of box centres, in sizes of the image. It is near 0.5, as anchors cover the image, even for a
network that detects nothing; in pixels it is 16 and more.
"""

LARGEST_ANGLE = 2 * np.pi
"""If more than a quarter of the angles are larger than this, regardless of sign, they are not radians.

The largest angle does not tell: YOLO26 does not limit its angles, and the trained YOLO26-OBB of the tests reaches 13
radians on noise. But three quarters of its angles stay below 0.4 radians, and a quarter exceed 10 degrees.
"""


def check_program(model: LoadedModel) -> LoadedModel:
    """Run a program once, on noise, and return it if its outputs meet the contract of its architecture.

    Raises:
        Failure: ``CheckpointMismatch``, with the operator that the program has to end in.
    """
    with torch.inference_mode():
        check_outputs(model, [output.numpy() for output in model.module(model.example_input())])
    return model


def check_outputs(model: LoadedModel, found: Sequence[Array]) -> None:
    """Refuse outputs of a program that violate the contract of its architecture.

    Raises:
        Failure: ``CheckpointMismatch``, with the operator that the program has to end in.
    """
    in_pixels = any("angle" in output.axes for output in model.outputs)
    for output, values in zip(model.outputs, found, strict=True):
        problem = _problem(output, values, in_pixels)
        if problem:
            raise Failure(Reason.CHECKPOINT_MISMATCH, f"the .pt2 archive does not fit: {problem}")


def _problem(output: Output, values: Array, in_pixels: bool) -> str:
    if not values.size or not np.isfinite(values).all():
        return ""  # other checks refuse values that are not finite
    low, high = float(values.min()), float(values.max())
    span = f"its own output {output.name} goes from {low:.3g} to {high:.3g}"
    if "class" in output.axes:
        alone = "anchor" in output.axes or values.shape[1] == 1
        ending = "sigmoid()" if alone else "softmax(1)"
        way_out = f"end the model in {ending} before torch.export.export"
        if low < -ROUNDING or high > 1 + ROUNDING:
            return f"{span}, which are not probabilities; {way_out}"
        sums = values.sum(axis=1)
        if not alone and np.abs(sums - 1).max() > ROUNDING:
            farthest = sums.flat[np.abs(sums - 1).argmax()]
            return f"the classes of its own output {output.name} add up to {farthest:.3g} and not to 1; {way_out}"
    if "coordinate" in output.axes and in_pixels != bool(np.median(np.abs(values[:, :2])) > FARTHEST):
        wanted, change = ("pixels", "multiply") if in_pixels else ("fractions of the image", "divide")
        way_out = f"{change} them by the input's width and height in the model before torch.export.export"
        return f"{span}, which are not {wanted}; {way_out}"
    if "angle" in output.axes and np.quantile(np.abs(values), 0.75) > LARGEST_ANGLE:
        return f"{span}, which are not radians; multiply them by pi / 180 in the model before torch.export.export"
    return ""
