"""Decompresses compressed weights, and reports how they are stored."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelexport_converter.coreml.blobs import unpack
from modelexport_converter.coreml.ops.kernel import KernelFunction
from modelexport_converter.coreml.ops.quantisation import dequantize
from modelexport_converter.coreml.reader import Constant, Operation
from modelexport_converter.coreml.tensors import FLOATS


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """scale * (quantized_data - zero_point), per tensor or per element of an axis."""
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), where each number of scale and offset applies to a block of data."""
    shifted = data if offset is None else data - _per_block(offset, data)
    return _per_block(scale, data) * shifted


def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """fp16 numbers as fp32; the declared type converts them."""
    return source_val


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    """Palettised weights: packed indices with one palette (iOS16, has a shape), or a palette per block (iOS18).

    In iOS18 lut is [*blocks, palette, vector]; each index stands for a vector along vector_axis.
    """
    if shape is not None:
        return lut[_unpack(indices, int(math.log2(lut.numel())), shape)]
    palettes = _per_block(lut, indices, trailing=2)
    vectors = palettes.gather(-2, indices.long()[..., None, None].expand(*indices.shape, 1, lut.shape[-1])).squeeze(-2)
    axis = (vector_axis or 0) % indices.dim()
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None) -> Tensor:
    """Pruned weights: the mask (packed bits in iOS16, with a shape) marks the positions of the values."""
    where = (mask if shape is None else _unpack(mask, 1, shape)) != 0
    return torch.zeros(where.shape, dtype=nonzero_data.dtype).masked_scatter(where, nonzero_data)


def _per_block(parameter: Tensor, data: Tensor, trailing: int = 0) -> Tensor:
    """Repeat so that the leading dimensions match data's sizes; `trailing` more dimensions stay unchanged."""
    if parameter.dim() - trailing != data.dim():
        raise ValueError(f"a parameter of shape {list(parameter.shape)} does not fit data of {list(data.shape)}")
    for dim, size in enumerate(data.shape):
        if parameter.shape[dim] not in (1, size):
            parameter = parameter.repeat_interleave(size // parameter.shape[dim], dim)
    return parameter.expand(*data.shape, *parameter.shape[data.dim() :])


def _unpack(packed: Tensor, bits: int, shape: list[int]) -> Tensor:
    raw = packed.numpy().astype(np.uint8)
    return torch.from_numpy(unpack(raw, bits, math.prod(shape)).astype(np.int64)).reshape(shape)


@dataclass(frozen=True)
class Storage:
    """How a weight is stored in the file."""

    label: str
    elements: int


def storage_of(op: Operation) -> Storage | None:
    """Return how the weight of an op is stored, or None if the op has none.

    Scalars are settings of ops (an epsilon, a scale factor), not weights.
    """
    if op.type == "const":
        label = _dtype(op, "val")
        is_weight = label in FLOATS and op.outputs[0].type.shape
        return Storage(label, _elements(op)) if label and is_weight else None
    label_of = _LABELS.get(op.type)
    label = label_of(op) if label_of else None
    return Storage(label, _elements(op)) if label else None


def _elements(op: Operation) -> int:
    return math.prod(size or 0 for size in op.outputs[0].type.shape)


def _dtype(op: Operation, parameter: str) -> str | None:
    """Return the dtype of a stored parameter, or None if another decompression, counted itself, computes it."""
    operand = op.parameters[parameter][0]
    return operand.dtype if isinstance(operand, Constant) else None


def _palette(op: Operation) -> str | None:
    lut = op.parameters["lut"][0]
    if not isinstance(lut, Constant) or isinstance(lut.value, str):
        return None
    entries = lut.value.size if "shape" in op.parameters else lut.value.shape[-2]
    return f"palette{int(math.log2(entries))}"


def _sparse(op: Operation) -> str | None:
    dtype = _dtype(op, "nonzero_data")
    return dtype and f"sparse {dtype}"


_LABELS = {
    "constexpr_affine_dequantize": lambda op: _dtype(op, "quantized_data"),
    "constexpr_blockwise_shift_scale": lambda op: _dtype(op, "data"),
    "constexpr_cast": lambda op: _dtype(op, "source_val"),
    "constexpr_lut_to_dense": _palette,
    "constexpr_sparse_to_dense": _sparse,
}

OPS: dict[str, KernelFunction] = {
    function.__name__: function
    for function in (
        constexpr_affine_dequantize,
        constexpr_blockwise_shift_scale,
        constexpr_cast,
        constexpr_lut_to_dense,
        constexpr_sparse_to_dense,
    )
}
