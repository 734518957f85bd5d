"""What a value holds after something was written into a view of it, by the operator that made the view."""

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from modelexport_converter.programs.graph import Node, Ref

if TYPE_CHECKING:
    from modelexport_converter.programs.building import Builder

_RESHAPES = """
view.default view_as.default reshape.default reshape_as.default flatten.using_ints unflatten.int squeeze.default
squeeze.dim squeeze.dims unsqueeze.default atleast_1d.default atleast_2d.default atleast_3d.default contiguous.default
to.dtype to.dtype_layout to.device to.other type_as.default _to_copy.default expand.default expand_as.default
broadcast_to.default
"""
"""Each gives the elements of its source in their order, in other sizes."""
_SPLITS = """
split.Tensor split.sizes split_with_sizes.default chunk.default tensor_split.sections tensor_split.indices
unsafe_chunk.default unsafe_split.Tensor unsafe_split_with_sizes.default
"""
"""Each gives the parts of its source along an axis, in their order."""
_IN_ORDER, _PARTS = frozenset(_RESHAPES.split()), frozenset(_SPLITS.split())
_SWAPS = {
    "transpose.int": ("dim0", "dim1"),
    "swapaxes.default": ("axis0", "axis1"),
    "swapdims.default": ("dim0", "dim1"),
}


def written(builder: "Builder", node: Node, position: int, source: Ref, new: Ref) -> Ref | None:
    """Return the value of ``source`` with ``new`` in place of the view that ``node`` made of it at ``position``.

    ``None`` where the operator is none of those whose views can be written into.
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
        return builder.emit("permute.default", self=new, dims=_back(name, arguments, len(sizes)))
    if name in _PARTS:
        results = [Ref(value) for value in node.results if value is not None]
        dim = int(arguments.get("dim", 0))
        start = sum(builder.shape(part).sizes[dim] for part in results[:position])
        end = start + builder.shape(results[position]).sizes[dim]
        return builder.emit("slice_scatter.default", self=source, src=new, dim=dim, start=start, end=end)
    if name == "unbind.int":
        return builder.emit("select_scatter.default", self=source, src=new, dim=arguments.get("dim", 0), index=position)
    scatter = _SCATTERS.get(name)
    return scatter(builder, arguments, source, new) if scatter else None


def _back(name: str, arguments: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The permutation that takes back what an operator has permuted."""
    dims = range(rank)
    order = [dim % rank for dim in arguments["dims"]] if name == "permute.default" else list(dims)[::-1]
    return tuple(order.index(dim) for dim in dims)


def _select(builder: "Builder", arguments: Mapping[str, Any], source: Ref, new: Ref) -> Ref:
    place = {key: arguments[key] for key in ("dim", "index")}
    return builder.emit("select_scatter.default", self=source, src=new, **place)


def _slice(builder: "Builder", arguments: Mapping[str, Any], source: Ref, new: Ref) -> Ref:
    place = {key: arguments[key] for key in ("dim", "start", "end", "step") if key in arguments}
    return builder.emit("slice_scatter.default", self=source, src=new, **place)


def _narrow(builder: "Builder", arguments: Mapping[str, Any], source: Ref, new: Ref) -> Ref:
    dim, start = arguments["dim"], arguments["start"]
    start += builder.shape(source).sizes[dim] if start < 0 else 0
    return builder.emit(
        "slice_scatter.default", self=source, src=new, dim=dim, start=start, end=start + arguments["length"]
    )


def _diagonal(builder: "Builder", arguments: Mapping[str, Any], source: Ref, new: Ref) -> Ref:
    place = {key: arguments[key] for key in ("offset", "dim1", "dim2") if key in arguments}
    return builder.emit("diagonal_scatter.default", self=source, src=new, **place)


_Scatter = Callable[["Builder", Mapping[str, Any], Ref, Ref], Ref]
_SCATTERS: Mapping[str, _Scatter] = {
    "select.int": _select,
    "slice.Tensor": _slice,
    "narrow.default": _narrow,
    "diagonal.default": _diagonal,
}
