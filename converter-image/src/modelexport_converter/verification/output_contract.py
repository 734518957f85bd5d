"""Whether a program gives what the outputs of its architecture are said to be: nobody but its author made it so.

Logits have the shape of probabilities, and boxes in pixels that of boxes in parts of the picture. A file of them would
agree with the program and mislead everybody who reads its description.
"""

from collections.abc import Sequence

import numpy as np
import torch

from modelexport.reasons import Reason
from modelexport_converter.backends import Array
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output

ROUNDING = 1e-2
"""What a probability may lie outside of 0 to 1, or a sum of them beside 1: a softmax in half precision stays closer."""
FARTHEST = 4.0
"""Where the middle of all boxes may lie, in sizes of the picture. It is near 0.5, as anchors lie all over a picture,
also of a network that sees nothing; in pixels it is 16 and more."""


def check_program(model: LoadedModel) -> LoadedModel:
    """Run a program once, on noise, and return it where its outputs are what they are said to be.

    Raises:
        Failure: ``CheckpointMismatch``, with what the program has to end in.
    """
    with torch.inference_mode():
        check_outputs(model, [output.numpy() for output in model.module(model.example_input())])
    return model


def check_outputs(model: LoadedModel, found: Sequence[Array]) -> None:
    """Stop at outputs of a program that are not what its architecture gives.

    Raises:
        Failure: ``CheckpointMismatch``, with what the program has to end in.
    """
    for output, values in zip(model.outputs, found, strict=True):
        problem = _problem(output, values)
        if problem:
            raise Failure(Reason.CHECKPOINT_MISMATCH, f"the .pt2 archive does not fit: {problem}")


def _problem(output: Output, values: Array) -> str:
    if not values.size or not np.isfinite(values).all():
        return ""  # what is not finite is refused by itself
    low, high = float(values.min()), float(values.max())
    span = f"its own output {output.name} goes from {low:.3g} to {high:.3g}"
    if "class" in output.axes:
        alone = "anchor" in output.axes or values.shape[1] == 1
        ending = "sigmoid()" if alone else "softmax(1)"
        way_out = f"end the model in {ending} before torch.export.export"
        if low < -ROUNDING or high > 1 + ROUNDING:
            return f"{span}, which are no probabilities; {way_out}"
        sums = values.sum(axis=1)
        if not alone and np.abs(sums - 1).max() > ROUNDING:
            return (
                f"the classes of its own output {output.name} add up to {_farthest(sums):.3g} and not to 1; {way_out}"
            )
    if "coordinate" in output.axes and np.median(np.abs(values[:, :2])) > FARTHEST:
        way_out = "divide them by the input's width and height in the model before torch.export.export"
        return f"{span}, which are no parts of the picture; {way_out}"
    return ""


def _farthest(sums: Array) -> float:
    """The sum that is farthest from 1."""
    return float(sums.flat[np.abs(sums - 1).argmax()])
