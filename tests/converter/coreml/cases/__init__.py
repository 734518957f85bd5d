"""Cases per op."""

from converter.coreml.building import Case
from converter.coreml.cases import (
    activation,
    constexpr,
    convolution,
    elementwise,
    indexing,
    linear,
    pooling,
    reduction,
    resize,
    shape,
)

CASES: dict[str, list[Case]] = {
    **activation.CASES,
    **constexpr.CASES,
    **convolution.CASES,
    **elementwise.CASES,
    **indexing.CASES,
    **linear.CASES,
    **pooling.CASES,
    **reduction.CASES,
    **resize.CASES,
    **shape.CASES,
}
