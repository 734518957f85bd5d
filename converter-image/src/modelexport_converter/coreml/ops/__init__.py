"""The table of ops: MIL op type to kernel, one module per family.

Meaning and defaults of every parameter follow coremltools' documentation of the MIL ops
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
"""

from modelexport_converter.coreml.ops import (
    activation,
    constexpr,
    convolution,
    elementwise,
    indexing,
    linear,
    normalisation,
    padding,
    pooling,
    quantisation,
    reduction,
    resize,
    shape,
    sorting,
)
from modelexport_converter.coreml.ops.kernel import Kernel

_FAMILIES = (
    activation,
    constexpr,
    convolution,
    elementwise,
    indexing,
    linear,
    normalisation,
    padding,
    pooling,
    quantisation,
    reduction,
    resize,
    shape,
    sorting,
)

KERNELS = {op: Kernel(function) for family in _FAMILIES for op, function in family.OPS.items()}
