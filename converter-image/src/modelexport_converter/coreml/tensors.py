"""Represents values of MIL types while a program runs.

Floats are fp32 tensors; a value of type fp16 is an fp32 tensor whose numbers are all fp16 numbers. Integers of every
width are int32 (their ranges fit, except uint32, which MIL uses for shapes alone), bools are bool.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelexport_converter.coreml.errors import ProgramError

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

FLOATS = ("float16", "float32")
SUB_BYTE_BITS = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "int4": 4, "uint6": 6}
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
# Dtypes by their names in the dtype parameter of ops such as `cast`.
DTYPE_OF_WORD = {"fp16": "float16", "fp32": "float32", "bool": "bool"} | {name: name for name in INTEGERS}


@dataclass(frozen=True)
class TensorType:
    """A declared type: dtype by numpy's name (or a sub-byte one). A size known only at run time is None."""

    dtype: str
    shape: tuple[int | None, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor of this shape is of this type."""
        return len(shape) == len(self.shape) and all(d in (None, n) for d, n in zip(self.shape, shape, strict=True))


def hold(array: Array) -> Tensor:
    """Convert an array to a tensor of the evaluator; fp32 arrays are shared, not copied, if torch can share them."""
    kind = array.dtype.kind
    held = {"f": np.float32, "b": np.bool_}.get(kind, np.int32)
    return torch.from_numpy(np.require(array, held, ["C", "W", "E"]))


def release(tensor: Tensor, dtype: str) -> Array:
    """Convert a tensor of the evaluator, on any device, to a new array of its declared dtype."""
    return tensor.cpu().numpy().astype(dtype)


def conform(tensor: Tensor, declared: TensorType) -> Tensor:
    """Convert a result to its declared type: fp16 rounding, integer and bool conversion.

    Raises:
        ProgramError: the shape differs from the declared one.
    """
    if not declared.admits(tuple(tensor.shape)):
        raise ProgramError(f"has shape {list(tensor.shape)}, the file declares {list(declared.shape)}")
    if declared.dtype == "float16":
        return tensor.to(torch.float16).to(torch.float32)
    if declared.dtype == "float32":
        return tensor.to(torch.float32)
    return tensor.to(torch.bool if declared.dtype == "bool" else torch.int32)


def saturate(tensor: Tensor, dtype: str) -> Tensor:
    """Clamp to the range of an integer dtype; the caller's conversion truncates floats towards zero.

    MIL leaves conversions out of range undefined; saturation is the behaviour of ARM's float-to-int instructions.
    """
    limits = np.iinfo(dtype)
    # int32's own maximum is not an fp32 number: the next one up would wrap around when it is converted.
    highest = 2147483520 if limits.max >= 2**31 - 1 and tensor.is_floating_point() else min(limits.max, 2**31 - 1)
    return tensor.clamp(max(limits.min, -(2**31)), highest)
