"""A program as a graph: values are numbered, operators come from our table, weights have our own keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Ref:
    """An argument that refers to the value of this number."""

    value: int


@dataclass(frozen=True)
class Shape:
    """The sizes and the dtype of a value."""

    sizes: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Node:
    """A call of an operator of the table.

    ``arguments`` are by the names of the operator's own signature: plain values, ``Ref``, and tuples of both.
    ``results`` holds the number of each returned value, in order; ``None`` for an undefined one. ``line`` is the
    calling line of the user's code, in brackets and cleaned, or empty.
    """

    operator: str
    arguments: Mapping[str, Any]
    results: tuple[int | None, ...]
    line: str = ""


@dataclass(frozen=True)
class Program:
    """A pure function of its inputs.

    Attributes:
        inputs: numbers of the input values.
        outputs: numbers of the output values.
        shapes: sizes and dtype by value number.
        weights: the parameters that nodes use, by value number.
        buffers: other tensors that nodes use, by value number.
        tensors: all tensors of the archive by its own names, which are for messages only.
        parameters: the names of the parameters among ``tensors``.
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
    """Return the value numbers that an argument refers to."""
    if isinstance(argument, Ref):
        return (argument.value,)
    return tuple(value for item in argument for value in refs(item)) if isinstance(argument, tuple) else ()


def substitute(argument: Any, values: Any) -> Any:
    """Return an argument with ``values(number)`` for every ``Ref``, and lists for tuples."""
    if isinstance(argument, Ref):
        return values(argument.value)
    return [substitute(item, values) for item in argument] if isinstance(argument, tuple) else argument
