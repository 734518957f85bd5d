"""Computes the value of a tensor after a write into one of its views, by the operator that made the view."""

from math import prod
from typing import Any, Protocol

from modelexport_converter.programs.graph import Node, Ref, Shape

_RESHAPES = """
view.default view_as.default reshape.default reshape_as.default flatten.using_ints unflatten.int squeeze.default
squeeze.dim squeeze.dims unsqueeze.default atleast_1d.default atleast_2d.default atleast_3d.default contiguous.default
to.dtype to.dtype_layout to.device to.other type_as.default _to_copy.default expand.default expand_as.default
broadcast_to.default
"""
"""These return the elements of their source in the same order, in other sizes."""
_SPLITS = """
split.Tensor split.sizes split_with_sizes.default chunk.default tensor_split.sections tensor_split.indices
unsafe_chunk.default unsafe_split.Tensor unsafe_split_with_sizes.default
"""
"""These return the parts of their source along an axis, in their order."""
_IN_ORDER, _PARTS = frozenset(_RESHAPES.split()), frozenset(_SPLITS.split())
_SWAPS = {
    "transpose.int": ("dim0", "dim1"),
    "swapaxes.default": ("axis0", "axis1"),
    "swapdims.default": ("dim0", "dim1"),
}
_SCATTERS = {
    "select.int": ("select_scatter.default", ("dim", "index")),
    "slice.Tensor": ("slice_scatter.default", ("dim", "start", "end", "step")),
    "diagonal.default": ("diagonal_scatter.default", ("offset", "dim1", "dim2")),
}
"""The operator that writes into a view, and the arguments of the view that it needs."""


class Emitter(Protocol):
    """The part of ``Builder`` that adds nodes to a graph."""

    def shape(self, ref: Ref) -> Shape:
        """Return the sizes and the dtype of a value."""

    def emit(self, operator: str, /, **arguments: Any) -> Ref:
        """Add a node with one result."""


def written(builder: Emitter, node: Node, position: int, source: Ref, new: Ref) -> Ref | None:
    """Return the value of ``source`` with ``new`` in place of the view that ``node`` made of it at ``position``.

    Returns ``None`` if writes into views of this operator are not supported.
    """
    name, arguments = node.operator, node.arguments
    sizes = builder.shape(source).sizes
    if name in _IN_ORDER:
        same = prod(sizes) == prod(builder.shape(new).sizes)
        return builder.emit("reshape.default", self=new, shape=sizes) if same else None
    if name in _SWAPS:
        first, second = (arguments[key] for key in _SWAPS[name])
        return builder.emit("transpose.int", self=new, dim0=first, dim1=second)
    if name in {"t.default", "permute.default"}:
        dims = list(range(len(sizes)))
        order = [dim % len(sizes) for dim in arguments["dims"]] if name == "permute.default" else dims[::-1]
        return builder.emit("permute.default", self=new, dims=tuple(order.index(dim) for dim in dims))  # the inverse
    if name in _PARTS:
        results = [Ref(value) for value in node.results if value is not None]
        dim = int(arguments.get("dim", 0))
        start = sum(builder.shape(part).sizes[dim] for part in results[:position])
        end = start + builder.shape(results[position]).sizes[dim]
        name, arguments = "slice.Tensor", {"dim": dim, "start": start, "end": end}
    elif name == "narrow.default":
        dim, start = arguments["dim"], arguments["start"]
        start += sizes[dim] if start < 0 else 0
        name, arguments = "slice.Tensor", {"dim": dim, "start": start, "end": start + arguments["length"]}
    elif name == "unbind.int":
        name, arguments = "select.int", {"dim": arguments.get("dim", 0), "index": position}
    if name not in _SCATTERS:
        return None
    scatter, keys = _SCATTERS[name]
    return builder.emit(scatter, self=source, src=new, **{key: arguments[key] for key in keys if key in arguments})
