"""Captures a model as an exported program of torch, and stores the weights of a program in fewer bytes."""

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.utils import _pytree as pytree

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array
from modelexport_converter.file_input import scale_and_bias
from modelexport_converter.model import LoadedModel

CONVERSION = torch.ops.aten.to.dtype
"""The operator that converts stored weights, and activations."""
_ABOUT_SOURCES = ("from_node", "source_fn_stack", "stack_trace", "torch_fn")
"""Entries of a node about the code that it comes from: our own, with paths of this machine."""
_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear bilinear matmul mm bmm mv
    addmm addmv baddbmm addbmm einsum tensordot lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell
    rnn_relu_cell
    """.split()  # noqa: SIM905 (a list would take thirty lines)
)
"""Operators that multiply weights with values."""
_RIGHT_FACTORS: Mapping[str, int] = {
    **dict.fromkeys(("aten::matmul", "aten::mm", "aten::bmm"), 1),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addbmm"), 2),
}
"""Positions of right factors, whose last axis is that of the outputs."""


def export_program(model: LoadedModel) -> ExportedProgram:
    """Return a model as a program that takes an image, or a batch, and returns a dict of its outputs by name."""
    names = tuple(output.name for output in model.outputs)
    scale, bias = (torch.from_numpy(values).view(1, -1, 1, 1) for values in scale_and_bias(model))
    kind = type(model.module)

    class Named(kind):  # type: ignore[misc, valid-type]  # its base is known at run time only
        """The network itself, under its own names of weights."""

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            prepared = image * scale + bias if model.options.takes_pixels else image
            return dict(zip(names, super().forward(prepared), strict=True))

    network = copy.copy(model.module)
    network.__class__ = Named
    with warnings.catch_warnings(), torch.no_grad():
        # Recurrent layers keep their weights as attributes too.
        warnings.filterwarnings("ignore", "The tensor attributes self", UserWarning)
        program = torch.export.export(network, (model.captured_input(),))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for entry in _ABOUT_SOURCES:
                node.meta.pop(entry, None)
    return program


def static_targets(program: ExportedProgram) -> dict[str, str]:
    """Return the names of weights, buffers and constants in ``state_dict`` or ``constants`` by those of their nodes."""
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def static_tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the weights, buffers and constants of a program by the names of their nodes."""
    tensors = {**program.state_dict, **program.constants}
    return {name: tensors[target].detach() for name, target in static_targets(program).items()}


def store_weights(program: ExportedProgram, recipe: Recipe, kept: Collection[str] = ()) -> None:
    """Store the weights of a program, in place, in half precision or in 8 bits; it computes in float32 from them.

    Only weights that are multiplied with values are stored so, each once; a program reads them by ``aten.to`` and, for
    8 bits, a product with the scale of each output channel. ``kept`` names the nodes of weights that stay in float32.
    """
    targets = program.graph_signature.inputs_to_parameters
    for node, axis in list(_multiplied(program)):
        if node.name in kept:
            continue
        weight = program.state_dict[targets[node.name]]
        if recipe is Recipe.FP16:
            stored, scale = weight.detach().to(torch.float16), None
        else:
            values, scales = quantise_per_channel(weight.detach().numpy(), axis)
            stored, scale = torch.from_numpy(values), torch.from_numpy(scales)
        program.state_dict[targets[node.name]] = torch.nn.Parameter(stored, requires_grad=False)
        _read_as_float(program, node, stored, scale)
    program.graph_module.recompile()
    program.validate()  # type: ignore[no-untyped-call]  # torch has no types for it


def quantise_per_channel(values: Array, axis: int) -> tuple[np.ndarray[Any, np.dtype[np.int8]], Array]:
    """Return weights as 8-bit integers from -127 to 127, and their scales, one per index of an axis.

    Symmetric; the scales have the shape of the weights with 1 for every other axis.
    """
    others = tuple(other for other in range(values.ndim) if other != axis % values.ndim)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
    return np.round(values / scales).astype(np.int8), scales.astype(np.float32)


def add_weight(program: ExportedProgram, beside: Node, name: str, values: torch.Tensor) -> Node:
    """Add a weight to a program after another one, with ``name`` at the end of its name, and return its node."""
    signature = program.graph_signature
    place = next(i for i, spec in enumerate(signature.input_specs) if spec.arg.name == beside.name)
    target = f"{signature.input_specs[place].target}_{name}"
    with program.graph.inserting_after(beside):
        node: Node = program.graph.placeholder(f"{beside.name}_{name}")
    node.meta["val"] = beside.meta["val"].fake_mode.from_tensor(values, static_shapes=True)
    program.state_dict[target] = values
    added = InputSpec(InputKind.BUFFER, TensorArgument(node.name), target, persistent=True)
    signature.input_specs.insert(place + 1, added)
    return node


def _multiplied(program: ExportedProgram) -> Iterator[tuple[Node, int]]:
    """Yield the weights that a product reads, directly or computed from weights alone, and their output axes."""
    state = program.graph_signature.inputs_to_parameters
    origins: dict[Node, frozenset[Node]] = {}
    found: dict[Node, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name not in program.graph_signature.user_inputs:
                origins[node] = frozenset([node])
            continue
        if all(source in origins for source in node.all_input_nodes):
            origins[node] = frozenset[Node]().union(*(origins[source] for source in node.all_input_nodes))
        elif _name(node) in _PRODUCTS:
            for factor in _factors(node):
                for origin in origins.get(factor, ()):
                    found.setdefault(origin, _output_axis(node, factor) if origin is factor else 0)
    for node, axis in found.items():
        value = node.meta["val"]
        if node.name in state and value.ndim > 1 and value.dtype is torch.float32:
            yield node, axis


def _name(node: Node) -> str:
    if not is_operator(node.target):
        return ""
    return str(node.target.name()).partition(".")[0]  # type: ignore[no-untyped-call]  # as above


def is_operator(target: Any) -> TypeGuard[torch._ops.OpOverload]:
    """Return whether a node calls an operator of torch, and not a function of Python."""
    return isinstance(target, torch._ops.OpOverload)


def _factors(node: Node) -> list[Node]:
    """Return the factors of a product, without its summands and the initial states of recurrent layers."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]  # of a product
    added = {"bias", "hx", "self"} if _name(node).startswith(("aten::add", "aten::baddbmm")) else {"bias", "hx"}
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    kept = [value for name, value in given.items() if name not in added]
    return [value for value in pytree.tree_leaves(kept) if isinstance(value, Node)]


def _output_axis(node: Node, weight: Node) -> int:
    """Return the axis of a weight that is that of the outputs."""
    name = _name(node)
    if "conv_transpose" in name or (name == "aten::convolution" and node.args[6]):
        return 1
    position = _RIGHT_FACTORS.get(name)
    return -1 if position is not None and node.args[position] is weight else 0


def _read_as_float(program: ExportedProgram, node: Node, stored: torch.Tensor, scale: torch.Tensor | None) -> None:
    """Replace each use of a weight by its conversion to float32, times its scale if it has one."""
    graph, before = program.graph, node.meta["val"]
    node.meta["val"] = before.fake_mode.from_tensor(stored, static_shapes=True)
    users = list(node.users)
    first = next(other for other in graph.nodes if other.op != "placeholder")
    if scale is not None:
        factor = add_weight(program, node, "scale", scale)
    with graph.inserting_before(first):
        value = graph.call_function(CONVERSION, (node, torch.float32))
        value.meta["val"] = before
        if scale is not None:
            value = graph.call_function(torch.ops.aten.mul.Tensor, (value, factor))
            value.meta["val"] = before
    for user in users:
        user.replace_input_with(node, value)
