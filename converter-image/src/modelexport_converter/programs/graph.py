"""A program as a graph of our own: values are numbers, operators come from our table, weights have our own keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Ref:
    """An argument that is the value of this number."""

    value: int


@dataclass(frozen=True)
class Shape:
    """The sizes and the type of a value."""

    sizes: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Node:
    """One call of an operator of the table.

    ``arguments`` are by the names of the operator's own signature: plain values, ``Ref``, and tuples of both.
    ``results`` has the number of each value that it returns, in order; ``None`` for one that it leaves undefined.
    ``line`` is where the user's code calls it, in brackets and cleaned, or empty.
    """

    operator: str
    arguments: Mapping[str, Any]
    results: tuple[int | None, ...]
    line: str = ""


@dataclass(frozen=True)
class Program:
    """A pure function of its inputs.

    ``inputs`` and ``outputs`` are numbers of values, ``shapes`` their sizes and types. ``weights`` are the parameters
    and ``buffers`` the other tensors that nodes use, by the number of their value. ``tensors`` has all that the archive
    keeps under its own names, which are for messages only, and ``parameters`` the names of the parameters among them.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[int, torch.Tensor]
    buffers: Mapping[int, torch.Tensor]
    shapes: Mapping[int, Shape]
    tensors: Mapping[str, torch.Tensor]
    parameters: frozenset[str]


def refs(argument: Any) -> tuple[int, ...]:
    """Return the values that an argument refers to."""
    if isinstance(argument, Ref):
        return (argument.value,)
    return tuple(value for item in argument for value in refs(item)) if isinstance(argument, tuple) else ()


def substitute(argument: Any, values: Any) -> Any:
    """Return an argument with ``values(number)`` for every ``Ref``, and lists for tuples."""
    if isinstance(argument, Ref):
        return values(argument.value)
    return [substitute(item, values) for item in argument] if isinstance(argument, tuple) else argument
