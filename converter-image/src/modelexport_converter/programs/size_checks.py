"""Checks sizes that torch's kernels do not check: with wrong ones they would read memory behind a tensor.

torch's fake tensors miss them: seen with torch 2.14, whose recurrent layers (oneDNN) accept weights of any size and
whose attention (flash, on the CPU) accepts values of another length than the keys.
"""

from collections.abc import Callable, Mapping
from typing import Any

from modelexport_converter.programs.builder import Builder
from modelexport_converter.programs.errors import unreadable
from modelexport_converter.programs.graph import Ref

Arguments = Mapping[str, Any]


def check_sizes(builder: Builder, name: str, arguments: Arguments) -> None:
    """Refuse a node whose tensors do not fit each other.

    Raises:
        Failure: ``CheckpointUnreadable``.
    """
    fits = next((fits for start, fits in _FITS.items() if name.startswith(start)), None)
    if fits is not None and not fits(builder, arguments):
        raise unreadable(f"{name}{builder.line} takes tensors or factors of sizes that do not fit each other")


def _recurrent(gates: int) -> Callable[[Builder, Arguments], bool]:
    def fits(builder: Builder, arguments: Arguments) -> bool:
        states = arguments["hx"] if isinstance(arguments["hx"], tuple) else (arguments["hx"],)
        given, *held = (builder.shape(value).sizes for value in (arguments["input"], *states))
        weights = [builder.shape(value).sizes for value in arguments["params"]]
        if len(given) != 3 or any(len(state) != 3 for state in held):
            return False
        layers, directions = arguments["num_layers"], 1 + arguments["bidirectional"]
        batch = given[0 if arguments["batch_first"] else 1]
        output, hidden = held[0][2], held[-1][2]
        wanted = []
        for layer in range(max(1, min(layers, len(weights)))):
            width = given[2] if layer == 0 else output * directions
            rows = gates * hidden
            biases = [(rows,), (rows,)] if arguments["has_biases"] else []
            projection = [(output, hidden)] if output != hidden else []
            wanted += [(rows, width), (rows, output), *biases, *projection] * directions
        return weights == wanted and all(state[:2] == (layers * directions, batch) for state in held)

    return fits


def _attention(builder: Builder, arguments: Arguments) -> bool:
    query, key, value = (builder.shape(arguments[name]).sizes for name in ("query", "key", "value"))
    return len(query) == len(key) == len(value) >= 2 and query[-1] == key[-1] and key[:-1] == value[:-1]


def _resizing(builder: Builder, arguments: Arguments) -> bool:
    """Return whether scale factors, if given together with a size, lead to that size."""
    source: Ref = arguments.get("self") or arguments["input"]
    found = builder.shape(source).sizes[2:]
    wanted = arguments.get("output_size") or ()
    factors = [arguments.get(name) for name in _FACTORS[len(found)]] if len(found) in _FACTORS else []
    return all(
        factor is None or abs(size * factor - target) <= 1
        for size, target, factor in zip(found, wanted, factors, strict=False)
    )


_FACTORS = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}
_FITS: Mapping[str, Callable[[Builder, Arguments], bool]] = {
    "lstm.": _recurrent(4),
    "gru.": _recurrent(3),
    "rnn_tanh.": _recurrent(1),
    "rnn_relu.": _recurrent(1),
    "scaled_dot_product_attention.": _attention,
    "upsample_": _resizing,
    "_upsample_": _resizing,
}
