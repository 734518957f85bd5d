"""Counts the weights of a program that are multiplied with its values: in products, convolutions and recurrent layers.

Precision is about these. Weights that are added, e.g. learned positions, or looked up are few, and no format stores
them in less than floats.
"""

from collections import defaultdict
from collections.abc import Iterator
from math import prod

from modelexport_converter.programs.graph import Node, Program, refs

_PRODUCTS = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear bilinear matmul mm bmm mv
    dot addmm addmv baddbmm addbmm einsum tensordot chain_matmul lstm gru rnn_tanh rnn_relu lstm_cell gru_cell
    rnn_tanh_cell rnn_relu_cell
    """.split()  # noqa: SIM905 (a list would take forty lines)
)


def count_multiplied_weights(program: Program) -> int:
    """Return the number of multiplied elements of a program's weights; shared ones count once.

    A computed weight, as by ``weight_norm``, counts by its result; a weight that is split, as for query, key and value,
    counts by its parts, but never by more than itself.
    """
    origins: dict[int, frozenset[int]] = {value: frozenset([value]) for value in program.weights}
    origins |= dict.fromkeys(program.buffers, frozenset())
    multiplied: dict[frozenset[int], set[int]] = defaultdict(set)
    for node in program.nodes:
        used = [value for argument in node.arguments.values() for value in refs(argument)]
        if node.operator.partition(".")[0] in _PRODUCTS and not all(value in origins for value in used):
            for value in _factors(node):
                if origins.get(value) and len(program.shapes[value].sizes) > 1:
                    multiplied[origins[value]].add(value)
        elif all(value in origins for value in used):
            joined = frozenset[int]().union(*(origins[value] for value in used))
            origins |= {value: joined for value in node.results if value is not None}
    return sum(
        min(sum(_size(program, value) for value in values), sum(_size(program, weight) for weight in weights))
        for weights, values in multiplied.items()
    )


def _factors(node: Node) -> Iterator[int]:
    """Yield the values that a product multiplies, without added ones and initial states of recurrent layers."""
    added = {"bias", "hx", "self"} if node.operator.startswith(("add", "baddbmm")) else {"bias", "hx"}
    for name, argument in node.arguments.items():
        if name not in added:
            yield from refs(argument)


def _size(program: Program, value: int) -> int:
    return prod(program.shapes[value].sizes)
