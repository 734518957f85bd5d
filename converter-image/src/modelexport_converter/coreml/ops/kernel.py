"""What turns a typed Python function into the implementation of an op.

MIL stores every parameter, from the picture to the stride, as a tensor. A kernel function says by its annotations
what it wants: `Tensor`, `list[Tensor]`, or plain `int`, `float`, `bool`, `str`, `list[int]`, `list[bool]`, each
with a default when MIL makes it optional.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from torch import Tensor

Value = Tensor | str
Parameters = dict[str, list[Value]]
Results = Tensor | tuple[Tensor, ...]
Function = Callable[..., Results]
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
    """An op's function together with how to give it its parameters."""

    def __init__(self, function: Function) -> None:
        self._function = function
        hints = get_type_hints(function)
        self._converters = {name: _converter(hints[name]) for name in inspect.signature(function).parameters}

    def __call__(self, parameters: Parameters) -> tuple[Tensor, ...]:
        """Compute the op's results.

        Raises NotImplementedError for a parameter (or a value of one) that the function does not know.
        """
        unknown = sorted(set(parameters) - set(self._converters))
        if unknown:
            raise NotImplementedError(f"the evaluator does not know its parameter {', '.join(unknown)}")
        given = {name: self._converters[name](group) for name, group in parameters.items()}
        results = self._function(**given)
        return (results,) if isinstance(results, Tensor) else results


def _converter(hint: Any) -> Callable[[list[Any]], Any]:
    """The converter for an annotation; `X | None` is an optional X."""
    options = [option for option in getattr(hint, "__args__", ()) if option is not type(None)]
    return _CONVERT[hint] if hint in _CONVERT else _CONVERT[options[0]]


def unary(function: Callable[[Tensor], Tensor]) -> Function:
    """The kernel function of an op whose only parameter is x."""

    def op(x: Tensor) -> Tensor:
        return function(x)

    return op


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """The kernel function of an op whose parameters are x and y."""

    def op(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return op


def one_of(choices: dict[str, Choice], word: str, parameter: str) -> Choice:
    """The choice that a word stands for; raises NotImplementedError when the evaluator does not know the word."""
    if word not in choices:
        raise NotImplementedError(f"the evaluator does not know {parameter} {word!r}, only {sorted(choices)}")
    return choices[word]
