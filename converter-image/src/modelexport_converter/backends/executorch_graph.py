"""Rewrites an exported program for XNNPACK: layers with weights of their own, in half precision or in 8 bits."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import Interpreter, Node, map_arg

from modelexport_converter.backends import Array
from modelexport_converter.backends.activation_ranges import trace_to_weights
from modelexport_converter.backends.exported_program import add_weight, static_targets, static_tensors
from modelexport_converter.model import LoadedModel

Range = tuple[float, float]
Extremes = dict[str, list[Range]]

_aten = torch.ops.aten
_LAYERS = (_aten.convolution.default, _aten.linear.default)
"""Operators whose weights XNNPACK stores and packs itself."""
_FUSED = (_aten.relu.default, _aten.hardtanh.default)
"""Activations that XNNPACK fuses with the layer before."""
_IN_HALF = {
    *(_aten.relu.default, _aten.hardtanh.default, _aten.sigmoid.default, _aten.tanh.default),
    *(_aten.leaky_relu.default, _aten.hardswish.default, _aten.add.Tensor, _aten.mul.Tensor),
    *(_aten.cat.default, _aten.slice.Tensor, _aten.max_pool2d.default),
}
"""Operators between layers that compute in half precision if all that they read is."""
_LEAST_SCALE = 1e-10
"""The least scale of a weight: XNNPACK refuses subnormal products of scales."""
_MOST_BIAS = 2.0**30
"""A bias in steps of the scales of input and weight, at most: XNNPACK stores it in 32 bits."""
_MOST_RESCALING = 256.0
"""The scales of input and weight, at most, as a multiple of that of the result; XNNPACK refuses more."""
_LOW, _HIGH = -128, 127


def static_nodes(program: ExportedProgram) -> dict[Node, torch.Tensor]:
    """Return the weights, buffers and constants of a program by their nodes."""
    tensors = static_tensors(program)
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    return {node: tensors[node.name] for node in placeholders if node.name in tensors}


def arguments_of(node: Node) -> Any:
    """Return the arguments of a node, whose types depend on its operator."""
    return node.args


def layers_of(program: ExportedProgram) -> list[Node]:
    """Return the convolutions and linear layers of a program."""
    return [node for node in program.graph.nodes if node.op == "call_function" and node.target in _LAYERS]


def give_layers_their_weights(program: ExportedProgram) -> None:
    """Let each layer have a weight and a bias of its own, as numbers, in place.

    XNNPACK keeps the first meaning of a tensor that two layers of a delegate read: the scale of a bias would be that of
    another layer's input, and a weight that is also read transposed ends the runtime.
    """
    static, taken = static_nodes(program), set[Node]()
    for node in layers_of(program):
        for place, source in enumerate(arguments_of(node)[1:3], 1):
            if not isinstance(source, Node) or (values := _compute(source, static)) is None:
                continue
            if source not in static or (len(source.users) > 1 and source in taken):
                beside = next(origin for origin in _origins(source) if origin in static)
                node.update_arg(place, add_weight(program, beside, f"of_{node.name}", values.clone().contiguous()))
            taken.add(source)
    _finish(program)


def _compute(node: Node, static: Mapping[Node, torch.Tensor]) -> torch.Tensor | None:
    """Return the value of a node that reads weights alone; ``None`` for any other node."""
    if node in static:
        return static[node]
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    known = {source: _compute(source, static) for source in node.all_input_nodes}
    if any(values is None for values in known.values()):
        return None
    target: Any = node.target
    with torch.no_grad():
        found = target(*map_arg(arguments_of(node), known.__getitem__), **map_arg(node.kwargs, known.__getitem__))
    return found if isinstance(found, torch.Tensor) else None


def _origins(node: Node) -> Iterator[Node]:
    yield node
    for source in node.all_input_nodes:
        yield from _origins(source)


def split_by_slices(program: ExportedProgram) -> None:
    """Replace splits by slices, in place; XNNPACK has no splits, and each would divide the network in two parts."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not _aten.split_with_sizes.default:
            continue
        source, sizes, axis = (*arguments_of(node), 0)[:3]
        ends = np.cumsum(sizes).tolist()
        for item in list(node.users):
            place = arguments_of(item)[1]
            with graph.inserting_before(item):
                piece = graph.call_function(_aten.slice.Tensor, (source, axis, ends[place] - sizes[place], ends[place]))
            piece.meta.update(item.meta)
            item.replace_all_uses_with(piece)
            graph.erase_node(item)
        graph.erase_node(node)
    _finish(program)


@dataclass(frozen=True)
class Body:
    """The part of a program that may run in less than float32.

    Attributes:
        inside: the nodes of the modules that may, or all of them.
        layers: the layers among them, in the order of computation.
        last: the layers after which no other follows before the outputs.
        following: the nodes after those, which stay in float32.
    """

    inside: frozenset[Node]
    layers: Sequence[Node]
    last: frozenset[Node]
    following: frozenset[Node]


def body_of(program: ExportedProgram, model: LoadedModel) -> Body:
    """Return the part of a program in the modules that ``model.low_precision_modules`` name; all if these are none."""
    static, computed = static_nodes(program), [node for node in program.graph.nodes if node.op == "call_function"]
    names = {node.name: node for node in computed}
    sources = {node.name: [source.name for source in node.all_input_nodes] for node in computed}
    weighted = [node.name for node in layers_of(program)]
    following, last = trace_to_weights(program.graph_signature.user_outputs, sources, weighted)
    modules = model.low_precision_modules
    inside = frozenset(node for node in computed if not modules or _module(node) in modules)
    return Body(
        inside,
        [node for node in layers_of(program) if node in inside and arguments_of(node)[1] in static],
        frozenset(names[name] for name in last),
        frozenset(names[name] for name in following),
    )


def _path(node: Node) -> str:
    """Return the path of the module that computes a node."""
    stack = node.meta.get("nn_module_stack") or {}
    return max((path for path, _ in stack.values()), key=len, default="")


def _module(node: Node) -> str:
    """Return the child of the network that computes a node."""
    return _path(node).partition(".")[0]


def shuffle_transposed(program: ExportedProgram) -> None:
    """Replace transposed convolutions without overlaps by convolutions of one pixel and a pixel shuffle, in place.

    XNNPACK has no transposed convolutions in half precision: a method with one cannot be loaded (error 0x1).
    """
    graph, static = program.graph, static_nodes(program)
    for node in layers_of(program):
        if not _is_transposed(node) or arguments_of(node)[1] not in static or _overlaps(node):
            continue
        source, weight, bias, (stride, _), *_ = arguments_of(node)
        values = static[weight].permute(1, 2, 3, 0).reshape(-1, len(static[weight]), 1, 1).contiguous()
        own = add_weight(program, weight, "shuffled", values)
        if bias is not None:
            bias = add_weight(program, bias, "shuffled", static[bias].repeat_interleave(stride**2))
        arguments = (source, own, bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        with graph.inserting_before(node):
            pixels = graph.call_function(_aten.convolution.default, arguments)
            shuffled = graph.call_function(_aten.pixel_shuffle.default, (pixels, stride))
        batch, channels, height, width = node.meta["val"].shape
        pixels.meta = node.meta | {
            "val": node.meta["val"].new_empty(batch, channels * stride**2, height // stride, width // stride)
        }
        shuffled.meta = dict(node.meta)
        node.replace_all_uses_with(shuffled)
        graph.erase_node(node)
    _finish(program)


def _is_transposed(node: Node) -> bool:
    return node.target is _aten.convolution.default and bool(arguments_of(node)[6])


def _overlaps(node: Node) -> bool:
    """Return whether a transposed convolution adds anything else than whole kernels beside each other."""
    *_, height, width = arguments_of(node)[1].meta["val"].shape
    _, _, _, stride, padding, dilation, _, output_padding, groups = arguments_of(node)
    plain = not any((*padding, *output_padding)) and set(dilation) == {1} and groups == 1
    return not plain or arguments_of(node)[1].meta["val"].ndim != 4 or {height, width} != set(stride)


def to_half(program: ExportedProgram, body: Body) -> None:
    """Let the layers of the body, and the activations between them, compute in half precision, in place.

    What they read is rounded before, and what others read of them is widened after: inputs and outputs stay float32.
    Transposed convolutions compute in float32.
    """
    graph, static = program.graph, static_nodes(program)
    halves, rounded = set[Node](), dict[Node, Node]()
    layers = {node for node in body.layers if not _is_transposed(node)}
    for node in list(graph.nodes):
        if node in layers:
            for source in arguments_of(node)[1:3]:
                if isinstance(source, Node) and source in static:
                    _store(program, source, static[source].to(torch.float16))
            if (source := arguments_of(node)[0]) not in halves:
                if source not in rounded:
                    rounded[source] = _convert(graph, source, torch.float16)
                node.update_arg(0, rounded[source])
        elif not _stays_half(node, halves, body):
            continue
        halves.add(node)
        node.meta["val"] = node.meta["val"].to(torch.float16)
    for node in sorted(halves):
        if others := [user for user in node.users if user not in halves]:
            wide = _convert(graph, node, torch.float32)
            for user in others:
                user.replace_input_with(node, wide)
    _finish(program)


def _stays_half(node: Node, halves: Collection[Node], body: Body) -> bool:
    """Return whether a node that is no layer computes in half precision."""
    if node.op != "call_function" or node.target not in _IN_HALF:
        return False
    sources = node.all_input_nodes
    return node in body.inside and node not in body.following and bool(sources) and all(s in halves for s in sources)


def _convert(graph: torch.fx.Graph, node: Node, kind: torch.dtype) -> Node:
    """Add the conversion of a value after it."""
    with graph.inserting_after(_last_input(node)):
        converted = graph.call_function(_aten.to.dtype, (node, kind))
    converted.meta["val"] = node.meta["val"].to(kind)
    return converted


def _last_input(node: Node) -> Node:
    """Return the last input of a graph in place of an input, after which computed nodes may follow; or the node."""
    while node.op == "placeholder" and node.next.op == "placeholder":
        node = node.next
    return node


def _store(program: ExportedProgram, node: Node, values: torch.Tensor) -> None:
    """Replace the values of a weight, of the same shape."""
    target = static_targets(program)[node.name]
    if target in program.state_dict:
        program.state_dict[target] = torch.nn.Parameter(values, requires_grad=False)
    else:
        program.constants[target] = values
    node.meta["val"] = node.meta["val"].to(values.dtype)


@dataclass(frozen=True)
class Layer:
    """A layer that may be quantised: it reads ``source`` and gives ``result``, after an activation that is fused."""

    node: Node
    source: Node
    result: Node

    @property
    def name(self) -> str:
        """Its name for the user: the path of its module, and its node, as a module may be used twice."""
        return f"{_path(self.node)}:{self.node.name}"

    @property
    def tensors(self) -> tuple[str, str]:
        """The names of the tensors that are in 8 bits for it."""
        return self.source.name, self.result.name


def quantisable_layers(body: Body) -> Iterator[Layer]:
    """Yield the layers of a body that XNNPACK computes in 8 bits.

    It has no convolutions of one or three axes in 8 bits, and no transposed ones in groups.
    """
    for node in body.layers:
        rank = arguments_of(node)[1].meta["val"].ndim
        if node.target is _aten.convolution.default and (
            rank != 4 or (arguments_of(node)[6] and arguments_of(node)[8] > 1)
        ):
            continue
        result = node
        if len(node.users) == 1 and (user := next(iter(node.users))).target in _FUSED:
            result = user
        yield Layer(node, arguments_of(node)[0], result)


class _Extremes(Interpreter):
    """Runs a program and keeps the extremes of some of its tensors, in the order of computation."""

    def __init__(self, program: ExportedProgram, names: Collection[str]) -> None:
        super().__init__(program.graph_module)
        self._names = names
        self.found: dict[str, Range] = {}

    def run_node(self, n: Node) -> Any:
        """Compute a node."""
        result = super().run_node(n)
        if n.name in self._names:
            low, high = result.aminmax()
            self.found[n.name] = (low.item(), high.item())
        return result


def measure_extremes(program: ExportedProgram, names: Collection[str], images: Iterator[Array]) -> Extremes:
    """Return minimum and maximum of tensors on each image."""
    static, measured = static_nodes(program), Extremes()
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for image in images:
        interpreter = _Extremes(program, names)
        with torch.no_grad():
            interpreter.run(*(static.get(node, torch.from_numpy(image)) for node in placeholders))
        for name, extremes in interpreter.found.items():
            measured.setdefault(name, []).append(extremes)
    return measured


def quantise_layers(program: ExportedProgram, layers: Sequence[Layer], ranges: Mapping[str, Range]) -> list[Layer]:
    """Quantise layers in place: their weights, what they read and what they give. Return the quantised layers.

    A layer stays as it is if one step of its weights would be more than 256 of its result.
    """
    static, done = static_nodes(program), list[Layer]()
    for layer in layers:
        given, taken = (_scale_of(*ranges[name]) for name in layer.tensors)
        weight, bias = arguments_of(layer.node)[1], (*arguments_of(layer.node), None)[2]
        axis = 1 if _is_transposed(layer.node) else 0
        numbers, scales = _quantise_weight(static[weight], axis, None if bias is None else static.get(bias), given[0])
        if not given[0] * scales.max().item() < _MOST_RESCALING * taken[0]:
            continue
        _store(program, weight, numbers)
        arguments = (
            add_weight(program, weight, "scale", scales),
            add_weight(program, weight, "zero", torch.zeros(len(scales), dtype=torch.int64)),
        )
        with program.graph.inserting_before(layer.node):
            call = torch.ops.quantized_decomposed.dequantize_per_channel.default
            floats = program.graph.call_function(call, (weight, *arguments, axis, -_HIGH, _HIGH, torch.int8))
        floats.meta["val"] = weight.meta["val"].to(torch.float32)
        layer.node.update_arg(1, floats)
        done.append(layer)
    results = {layer.result: _scale_of(*ranges[layer.result.name]) for layer in done}
    sources = {layer.source: _scale_of(*ranges[layer.source.name]) for layer in done}
    for node, scale in results.items():
        _round(program.graph, node, scale, list(node.users))
    for node, scale in sources.items():
        if node not in results:
            _round(program.graph, node, scale, [layer.node for layer in done if layer.source is node])
    _finish(program)
    return done


def _scale_of(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of a range that holds zero, in 8 bits."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (_HIGH - _LOW), _LEAST_SCALE)
    return scale, int(np.clip(round(_LOW - low / scale), _LOW, _HIGH))


def _quantise_weight(
    weight: torch.Tensor, axis: int, bias: torch.Tensor | None, step: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight in 8 bits, and a scale for each output channel, (channels,).

    The bias of a channel, in steps of the scale times ``step``, has to fit into 32 bits.
    """
    others = [other for other in range(weight.ndim) if other != axis]
    scales = (weight.abs().amax(others) / _HIGH).clamp_min(_LEAST_SCALE)
    if bias is not None:
        scales = torch.maximum(scales, bias.abs() / (step * _MOST_BIAS))
    shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
    return torch.round(weight / scales.view(shape)).to(torch.int8), scales


def _round(graph: torch.fx.Graph, node: Node, scale: tuple[float, int], users: Sequence[Node]) -> None:
    """Let users read a value in 8 bits, each by a conversion of its own, as XNNPACK fuses these with a layer."""
    numbers = (*scale, _LOW, _HIGH, torch.int8)
    operators = torch.ops.quantized_decomposed
    with graph.inserting_after(_last_input(node)):
        rounded = graph.call_function(operators.quantize_per_tensor.default, (node, *numbers))
    rounded.meta["val"] = node.meta["val"].to(torch.int8)
    for user in users:
        with graph.inserting_before(user):
            floats = graph.call_function(operators.dequantize_per_tensor.default, (rounded, *numbers))
        floats.meta["val"] = node.meta["val"]
        user.replace_input_with(node, floats)


def _finish(program: ExportedProgram) -> None:
    """Bring the rest of a program into agreement with its changed graph."""
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    (outputs,) = arguments_of(program.graph.output_node())
    for spec, node in zip(program.graph_signature.output_specs, outputs, strict=True):
        if isinstance(node, Node):
            spec.arg = TensorArgument(node.name)
