"""Turns a typed Python function into the implementation of an op.

MIL stores every parameter, from the image to the stride, as a tensor. The annotations of a kernel function state the
types it needs: `Tensor`, `list[Tensor]`, or plain `int`, `float`, `bool`, `str`, `list[int]`, `list[bool]`, each with a
default if MIL makes it optional.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from modelexport_converter.compute_device import CPU

Value = Tensor | str
Parameters = dict[str, list[Value]]
Results = Tensor | tuple[Tensor, ...]
KernelFunction = Callable[..., Results]
Choice = TypeVar("Choice")


def _scalar(convert: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda group: convert(group[0].item())


_CONVERT: dict[object, Callable[[list[Any]], Any]] = {
    Tensor: lambda group: group[0],
    list[Tensor]: lambda group: group,
    str: lambda group: group[0],
    int: _scalar(int),
    float: _scalar(float),
    bool: _scalar(bool),
    list[int]: lambda group: [int(value) for value in group[0].flatten().tolist()],
    list[bool]: lambda group: [bool(value) for value in group[0].flatten().tolist()],
}


class Kernel:
    """The function of an op, with the conversion of its parameters."""

    def __init__(self, function: KernelFunction) -> None:
        self._function = function
        hints = get_type_hints(function)
        self._converters = {name: _converter(hints[name]) for name in inspect.signature(function).parameters}

    def __call__(self, parameters: Parameters, device: torch.device = CPU) -> tuple[Tensor, ...]:
        """Compute the op's results on a device; settings, such as strides, are read wherever they are.

        Raises:
            NotImplementedError: the function does not support a parameter, or the value of one.
        """
        unknown = sorted(set(parameters) - set(self._converters))
        if unknown:
            raise NotImplementedError(f"the evaluator does not know its parameter {', '.join(unknown)}")
        given = {name: self._converters[name](group) for name, group in parameters.items()}
        if device != CPU:
            given = {name: _move(value, device) for name, value in given.items()}
        results = self._function(**given)
        return (results,) if isinstance(results, Tensor) else results


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_move(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


def _converter(hint: Any) -> Callable[[list[Any]], Any]:
    """Return the converter for an annotation; `X | None` is an optional X."""
    options = [option for option in getattr(hint, "__args__", ()) if option is not type(None)]
    return _CONVERT[hint] if hint in _CONVERT else _CONVERT[options[0]]


def unary(function: Callable[[Tensor], Tensor]) -> KernelFunction:
    """Return the kernel function of an op whose only parameter is x."""

    def op(x: Tensor) -> Tensor:
        return function(x)

    return op


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> KernelFunction:
    """Return the kernel function of an op whose parameters are x and y."""

    def op(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return op


def one_of(choices: dict[str, Choice], word: str, parameter: str) -> Choice:
    """Return the choice for a word.

    Raises:
        NotImplementedError: the evaluator does not support the word.
    """
    if word not in choices:
        raise NotImplementedError(f"the evaluator does not know {parameter} {word!r}, only {sorted(choices)}")
    return choices[word]
