"""Builds a TensorFlow function from an exported program, operator by operator.

Values of four axes are kept with channels last where an operator of TensorFlow wants them so, and turned back only
where an operator of torch names axes in its own order. What depends on weights alone is computed once, by torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from torch.export import ExportedProgram
from torch.fx import Node, map_arg

from modelexport.matrix.support import Recipe
from modelexport_converter.backends.exported_program import is_operator, quantise_per_channel, static_tensors

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations between (batch, channels, height, width) and (batch, height, width, channels)."""
_AXES_LAST = (0, 3, 1, 2)
"""Where each axis of torch is in a tensor with channels last."""

Translation = Callable[..., Any]
TRANSLATIONS: dict[str, Translation] = {}
"""Functions by the operator of torch that they translate, such as ``relu.default``."""


@dataclass(frozen=True)
class Value:
    """A tensor of TensorFlow that depends on the image; ``last``: it has four axes with channels last."""

    tensor: Any
    last: bool = False

    @property
    def rank(self) -> int:
        """Return the number of axes."""
        return len(self.tensor.shape)

    def axis(self, axis: int) -> int:
        """Return where an axis of torch is."""
        return _AXES_LAST[axis % 4] if self.last else axis % max(self.rank, 1)

    def first(self) -> Any:
        """Return the tensor in torch's order of axes."""
        return tf.transpose(self.tensor, TO_FIRST) if self.last else self.tensor

    def channels_last(self) -> Any:
        """Return the tensor of four axes with channels last."""
        return self.tensor if self.last else tf.transpose(self.tensor, TO_LAST)

    def with_tensor(self, tensor: Any) -> "Value":
        """Return another tensor in the same layout."""
        return Value(tensor, self.last)


@dataclass(frozen=True)
class Call:
    """A call of an operator: its node, and the graph that holds its weights."""

    node: Node
    graph: "GraphBuilder"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of its result."""
        return tuple(self.node.meta["val"].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of its result."""
        dtype: torch.dtype = self.node.meta["val"].dtype
        return dtype

    def weight(self, position: int, values: torch.Tensor, order: Sequence[int], axis: int, part: str = "") -> Any:
        """Return an argument that is a weight, in another order of its axes, of which ``axis`` is the outputs'."""
        source = self.node.args[position]
        name = source.name if isinstance(source, Node) else self.node.name
        return self.graph.weight(f"{name}{part}", values, order, axis)


def translates(*operators: str) -> Callable[[Translation], Translation]:
    """Register the decorated function, which takes a ``Call`` and the arguments of the operator."""

    def register(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(operators, function))
        return function

    return register


def dtype_of(dtype: torch.dtype) -> Any:
    """Return the type of TensorFlow that is the same as one of torch."""
    return tf.as_dtype(str(dtype).removeprefix("torch."))


def tensor_of(value: "Value | torch.Tensor") -> Any:
    """Return a value or a constant as a tensor in torch's order of axes."""
    return value.first() if isinstance(value, Value) else tf.constant(value.numpy())


def name_of(operator: torch._ops.OpOverload) -> str:
    """Return the name of an operator with its overload, such as ``relu.default``; with its library if not of ATen."""
    return str(operator).removeprefix("aten.")


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Return a program in the operators of the table, as far as torch can decompose the others."""
    table = {**torch._decomp.decomposition_table, **torch.export.default_decompositions()}
    decomposed: ExportedProgram = program.run_decompositions(
        {operator: rule for operator, rule in table.items() if name_of(operator) not in TRANSLATIONS}
    )
    return decomposed


class GraphBuilder(tf.Module):  # type: ignore[misc]
    """Holds the weights of a program as variables, and computes it in TensorFlow."""

    def __init__(self, program: ExportedProgram, recipe: Recipe) -> None:
        """Take a decomposed program, and the recipe by which its weights are stored."""
        super().__init__()
        self._state = static_tensors(program)
        self._nodes = list(program.graph.nodes)
        self._recipe = recipe
        self._weights: dict[tuple[str, tuple[int, ...]], tuple[Any, ...]] = {}
        self.stored: list[Any] = []

    def run(self, image: Any) -> list[Any]:
        """Return the outputs for an image (1, height, width, channels), in torch's order of axes."""
        values: dict[Node, Any] = {}
        for node in self._nodes:
            if node.op == "placeholder":
                values[node] = self._state[node.name] if node.name in self._state else Value(image, last=True)
            elif node.op == "output":
                return [tensor_of(values[output]) for output in node.args[0]]
            else:
                arguments = map_arg(node.args, values.__getitem__)
                values[node] = self._call(node, arguments, map_arg(node.kwargs, values.__getitem__))
        raise AssertionError("a graph ends with its outputs")

    def _call(self, node: Node, arguments: Any, named: Mapping[str, Any]) -> Any:
        target: Any = node.target
        if not is_operator(target):
            return target(*arguments, **named)  # an item of several results, or arithmetic of sizes
        if not _holds_value((arguments, named)):
            with torch.no_grad():
                return target(*arguments, **named)
        translation = TRANSLATIONS.get(name_of(target))
        if translation is None:
            raise refusal(node)
        with tf.name_scope(node.name.lstrip("_")):
            return translation(Call(node, self), *arguments, **named)

    def weight(self, key: str, values: torch.Tensor, order: Sequence[int], axis: int) -> Any:
        """Return a weight as float32; it is stored once, by the recipe.

        Args:
            key: its name.
            values: the weight in torch's order of axes.
            order: its axes in TensorFlow's order.
            axis: the axis of the outputs, in TensorFlow's order.
        """
        place = (key, tuple(order))
        if place not in self._weights:
            array = np.ascontiguousarray(values.numpy().transpose(order))
            parts: tuple[Any, ...] = (array,)
            if self._recipe is Recipe.FP16:
                parts = (array.astype(np.float16),)
            elif self._recipe is Recipe.WEIGHT_ONLY_WI8_AFP32:
                parts = quantise_per_channel(array, axis)
            with tf.init_scope():
                self._weights[place] = tuple(
                    tf.Variable(part, trainable=False, name=f"{key}{end}")
                    for part, end in zip(parts, ("", "_scale"), strict=False)
                )
            self.stored += self._weights[place]
        value, *scale = self._weights[place]
        floats = value if value.dtype == tf.float32 else tf.cast(value, tf.float32)
        return floats * scale[0] if scale else tf.convert_to_tensor(floats)


def refusal(node: Node, detail: str = "") -> NotImplementedError:
    """Return the error for an operator, or a call of it, that has no translation: the one that the model calls."""
    called = node.meta.get("original_aten") or node.target
    part = f" (its part {node.target})" if called is not node.target else ""
    return NotImplementedError(f"{called}{part}{detail} has no translation to TensorFlow")


def _holds_value(arguments: Any) -> bool:
    if isinstance(arguments, list | tuple):
        return any(map(_holds_value, arguments))
    if isinstance(arguments, dict):
        return any(map(_holds_value, arguments.values()))
    return isinstance(arguments, Value)
