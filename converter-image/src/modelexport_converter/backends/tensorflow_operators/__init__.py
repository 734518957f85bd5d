"""Translates operators of torch into TensorFlow's: a small function for each, by the signatures of ATen.

Every module registers those of one family in the table of ``tensorflow_graph``.
"""

from modelexport_converter.backends.tensorflow_operators import (
    convolution,
    elementwise,
    indexing,
    linear,
    normalisation,
    pooling,
    reduction,
    resize,
    shape,
)

__all__ = [
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalisation",
    "pooling",
    "reduction",
    "resize",
    "shape",
]
