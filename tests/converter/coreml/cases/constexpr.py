"""Compressed weights and quantised activations.

A program cannot return a constant, so these add the decompressed weight to an input of zeros.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from coremltools.converters.mil.mil import types

from converter.coreml.building import TARGET, Case

_INT8 = np.array([[-128, -1, 0], [1, 64, 127]], np.int8)
_ZEROS = np.zeros((2, 3), np.float32)
_PALETTE = np.array([-1.5, 0.25, 2, 7], np.float32)
_SCALE = np.array([0.5, 0.25], np.float32)


def _added(weight: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda x: mb.add(x=x, y=weight())


def _typed(values: Any, dtype: Any) -> np.ndarray:
    """An array of the numpy type by which coremltools represents a type of fewer than 8 bits."""
    return np.array(values).astype(types.nptype_from_builtin(dtype))


def _constant(*values: Any) -> Callable[[Any], np.ndarray]:
    return lambda _: np.array(values, np.float32)


CASES: dict[str, list[Case]] = {
    "constexpr_affine_dequantize": [
        Case(
            "has a scale and a zero point per element of its axis",
            _added(
                lambda: mb.constexpr_affine_dequantize(
                    quantized_data=_INT8, zero_point=np.array([0, 1], np.int8), scale=_SCALE, axis=0
                )
            ),
            (_ZEROS,),
            _constant([-64, -0.5, 0], [0, 15.75, 31.5]),
        ),
        Case(
            "has one scale and zero point for all, of unsigned data",
            _added(
                lambda: mb.constexpr_affine_dequantize(
                    quantized_data=np.array([[0, 128, 255], [1, 2, 3]], np.uint8),
                    zero_point=np.uint8(128),
                    scale=np.float32(2),
                    axis=0,
                )
            ),
            (_ZEROS,),
            _constant([-256, 0, 254], [-254, -252, -250]),
        ),
    ],
    "constexpr_cast": [
        Case(
            "widens fp16",
            _added(lambda: mb.constexpr_cast(source_val=np.full((2, 3), 0.1, np.float16), output_dtype="fp32")),
            (_ZEROS,),
            lambda x: np.full((2, 3), np.float16(0.1), np.float32),
        )
    ],
    "constexpr_lut_to_dense": [
        Case(
            "looks up packed 2-bit indices, lowest bits first",
            _added(
                lambda: mb.constexpr_lut_to_dense(
                    indices=np.array([0b00_01_10_11, 0b11_10], np.uint8),
                    lut=_PALETTE,
                    shape=np.array([2, 3], np.uint32),
                )
            ),
            (_ZEROS,),
            _constant([7, 2, 0.25], [-1.5, 2, 7]),
        ),
        Case(
            "looks up 6-bit indices that cross bytes",
            _added(
                lambda: mb.constexpr_lut_to_dense(
                    indices=np.array([0b10_000001, 0b0100_0000, 0b111111_00, 0b00_000101, 0b0000], np.uint8),
                    lut=np.arange(64, dtype=np.float32),
                    shape=np.array([2, 3], np.uint32),
                )
            ),
            (_ZEROS,),
            _constant([1, 2, 4], [63, 5, 0]),
        ),
        Case(
            "has a palette per block of rows",
            _added(
                lambda: mb.constexpr_lut_to_dense(
                    indices=_typed([[3, 2, 1], [0, 1, 2]], types.uint2),
                    lut=np.stack([_PALETTE, 10 * _PALETTE]).reshape(2, 1, 4, 1),
                )
            ),
            (_ZEROS,),
            _constant([7, 2, 0.25], [-15, 2.5, 20]),
            TARGET.iOS18,
        ),
        Case(
            "fills vectors along their axis",
            _added(
                lambda: mb.constexpr_lut_to_dense(
                    indices=_typed([[0, 1, 1], [1, 0, 0]], types.uint1),
                    lut=np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2),
                    vector_axis=0,
                )
            ),
            (np.zeros((4, 3), np.float32),),
            _constant([1, 3, 3], [2, 4, 4], [3, 1, 1], [4, 2, 2]),
            TARGET.iOS18,
        ),
    ],
    "constexpr_sparse_to_dense": [
        Case(
            "puts values where the packed mask has bits",
            _added(
                lambda: mb.constexpr_sparse_to_dense(
                    nonzero_data=np.array([5, 6], np.float32),
                    mask=np.array([0b010010], np.uint8),
                    shape=np.array([2, 3], np.uint32),
                )
            ),
            (_ZEROS,),
            _constant([0, 5, 0], [0, 6, 0]),
        ),
        Case(
            "puts values where the mask of its own shape is one",
            _added(
                lambda: mb.constexpr_sparse_to_dense(
                    nonzero_data=np.array([5, 6], np.float32), mask=_typed([[0, 0, 1], [1, 0, 0]], types.uint1)
                )
            ),
            (_ZEROS,),
            _constant([0, 0, 5], [6, 0, 0]),
            TARGET.iOS18,
        ),
    ],
    "constexpr_blockwise_shift_scale": [
        Case(
            "has a scale and an offset per block",
            _added(
                lambda: mb.constexpr_blockwise_shift_scale(
                    data=np.arange(8, dtype=np.int8).reshape(2, 4),
                    scale=np.array([[1, 10], [2, 20]], np.float32),
                    offset=np.array([[0, 1], [0, 1]], np.int8),
                )
            ),
            (np.zeros((2, 4), np.float32),),
            _constant([0, 1, 10, 20], [8, 10, 100, 120]),
            TARGET.iOS18,
        ),
        Case(
            "reads negative 4-bit integers",
            _added(
                lambda: mb.constexpr_blockwise_shift_scale(
                    data=_typed([[-8, -1, 0], [1, 6, 7]], types.int4), scale=_SCALE[:, None]
                )
            ),
            (_ZEROS,),
            _constant([-4, -0.5, 0], [0.25, 1.5, 1.75]),
            TARGET.iOS18,
        ),
        Case(
            "reads 4-bit weights from the weight file",
            _added(
                lambda: mb.constexpr_blockwise_shift_scale(
                    data=_typed(np.arange(-8, 8).repeat(2).reshape(2, 16), types.int4), scale=_SCALE[:, None]
                )
            ),
            (np.zeros((2, 16), np.float32),),
            lambda x: (np.arange(-8, 8).repeat(2).reshape(2, 16) * _SCALE[:, None]).astype(np.float32),
            TARGET.iOS18,
        ),
    ],
    "quantize": [
        Case(
            "rounds halves to even and saturates",
            lambda x: mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8"),
            (np.array([0.25, 0.75, -0.25, 100, -100], np.float32),),
            lambda x: np.array([0, 2, 0, 127, -128], np.int8),
            TARGET.iOS17,
        ),
        Case(
            "shifts by a zero point per element of its axis",
            lambda x: mb.quantize(
                input=x, scale=_SCALE, zero_point=np.array([0, 128], np.uint8), axis=0, output_dtype="uint8"
            ),
            (np.array([[1, -1], [1, -1]], np.float32),),
            lambda x: np.array([[2, 0], [132, 124]], np.uint8),
            TARGET.iOS17,
        ),
    ],
    "dequantize": [
        Case(
            "undoes quantize per element of its axis",
            lambda x: mb.dequantize(
                input=x, scale=np.array([1, 2, 4], np.float32), zero_point=np.array([0, 1, -128], np.int8), axis=-1
            ),
            (_INT8,),
            lambda x: np.array([[-128, -4, 512], [1, 126, 1020]], np.float32),
            TARGET.iOS17,
        ),
        Case(
            "needs no zero point",
            lambda x: mb.dequantize(input=x, scale=np.float32(0.5)),
            (_INT8,),
            lambda x: np.array([[-64, -0.5, 0], [0.5, 32, 63.5]], np.float32),
            TARGET.iOS17,
        ),
    ],
}
