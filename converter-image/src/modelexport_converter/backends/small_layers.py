"""Chooses the layers that stay in float because they are small and cause much of the noise.

Only a layer that nothing reads in 8 bits may stay in float: what it reads is converted in place of its result, so that
a file does not change between 8 bits and float more often. These are layers at the end, since the decoding after the
last weights is in float anyway, and all layers before an activation that a format computes in float.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

WORTH = 5.0
"""The least share of a layer in the noise of an output, relative to its cost.

A layer in float takes up to twice the time that it takes in 8 bits. Each percent of a file's time then takes away at
least 5 % of the noise of an output.
"""
MOST_WEIGHTS = 0.02
"""The share of all layers' weights that is in float at most; a weight takes four times its bytes then."""


@dataclass(frozen=True)
class Layer:
    """An operator with weights in 8 bits, and the activation after it.

    Attributes:
        results: the tensors that it computes.
        readers: the results of other operators in 8 bits that read these.
        weights: the number of its weights.
        operations: the number of its multiplications.
    """

    results: Collection[str]
    readers: Collection[str]
    weights: int
    operations: int


def pick_small_layers(
    by_output: Mapping[str, Mapping[str, float]], layers: Mapping[str, Layer], most_operations: float
) -> list[str]:
    """Return the names of the layers that stay in float, those that are worth most first.

    A layer counts by the output of whose noise it causes most. Boxes and scores have no common unit: the scores of a
    YOLOX have twenty times the noise of its boxes, of which its mean precision loses four times as much.

    Args:
        by_output: the noise of each tensor in each output.
        layers: those in 8 bits.
        most_operations: the share of all layers' operations that is in float at most.
    """
    shares, chosen, floats = _shares(by_output, layers), list[str](), set[str]()
    operations = sum(layer.operations for layer in layers.values())
    weights = sum(layer.weights for layer in layers.values())
    free_operations, free_weights = most_operations * operations, MOST_WEIGHTS * weights
    while True:
        worth = {
            name: shares[name] / max(layer.operations / operations, layer.weights / weights)
            for name, layer in layers.items()
            if name not in chosen
            and floats.issuperset(layer.readers)
            and layer.operations <= free_operations
            and layer.weights <= free_weights
        }
        best = max(worth, key=worth.__getitem__, default="")
        if not best or worth[best] < WORTH:
            return chosen
        chosen.append(best)
        floats.update(layers[best].results)
        free_operations -= layers[best].operations
        free_weights -= layers[best].weights


def _shares(by_output: Mapping[str, Mapping[str, float]], layers: Mapping[str, Layer]) -> dict[str, float]:
    """Return the share of each layer in the noise of all layers, of the output where it is the largest."""
    most = dict.fromkeys(layers, 0.0)
    for noise in by_output.values():
        own = {name: sum(noise.get(tensor, 0.0) for tensor in layer.results) for name, layer in layers.items()}
        total = sum(own.values())
        if total:
            most = {name: max(most[name], own[name] / total) for name in layers}
    return most
