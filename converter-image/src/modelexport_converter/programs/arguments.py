"""Converts the JSON arguments of a node into plain values of the types in the operator's own signature."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from modelexport_converter.programs.errors import shown, unfit, unreadable, unsafe
from modelexport_converter.programs.graph import Ref
from modelexport_converter.programs.json_fields import (
    Json,
    check,
    integer,
    take,
    take_choice,
    take_name,
    take_objects,
)

Find = Callable[[str], Ref]
"""Returns the value of a name."""
_Read = Callable[[Any, str, Find], Any]

STATIC = "export the model with static shapes, without dynamic_shapes"
_ARITHMETIC = re.compile(r"[A-Za-z0-9_ +\-*/%(),<>=&|~]{1,500}")
_WORDS = frozenset(
    {
        *(
            "none",
            "tanh",
            "floor",
            "trunc",
            "constant",
            "reflect",
            "replicate",
            "circular",
            "same",
            "valid",
            "ij",
            "xy",
        ),
        *("sum", "prod", "mean", "amax", "amin"),
    }
)
_EQUATION = re.compile(r"[A-Za-z., \->]{1,200}")

# The numbers that torch.export gives to types; those of complex, quantised and 8-bit floats are left out.
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_STRIDED = 7
_PLACES = ("device", "layout", "pin_memory")
"""Arguments about the location of numbers, which is always the same here; they are checked and then dropped."""


def read_call(operator: Any, node: Json, where: str, find: Find) -> Mapping[str, Any]:
    """Return a node's arguments by the names of the operator's signature, in its order.

    Raises:
        Failure: an argument is unknown, missing, given twice, or of another type.
    """
    given: dict[str, Any] = {}
    for item in take_objects(node, "inputs", where):
        name = take_name(item, "name", where)
        if name in given:
            raise unreadable(f"{where} has two arguments {shown(name)}")
        given[name] = take(item, "arg", dict, where)
    arguments = {}
    for expected in operator._schema.arguments:
        if expected.name in given:
            argument = _read(str(expected.real_type), given.pop(expected.name), f"{expected.name} of {where}", find)
            if not (expected.kwarg_only and expected.name in _PLACES):
                arguments[expected.name] = argument
        elif not expected.has_default_value():
            raise unreadable(f"{where} lacks its argument {expected.name}")
    if given:
        raise unreadable(f"{where} has no argument {shown(next(iter(given)))}")
    return arguments


def read_dtype(value: Any, where: str) -> torch.dtype:
    """Return the dtype of a number in torch.export's schema."""
    number = integer(value, where)
    if number not in _DTYPES:
        raise unfit(f"{where} has the type {number}, which is not a real number of 8 to 64 bits", "use float32")
    return _DTYPES[number]


def read_sizes(content: Json, key: str, where: str) -> tuple[int, ...]:
    """Return a list of sizes, whole numbers from 0."""
    sizes = tuple(read_size(item, where) for item in take_objects(content, key, where))
    if any(size < 0 for size in sizes) or len(sizes) > 64:
        raise unreadable(f"{key} of {where} are not sizes")
    return sizes


def read_size(content: Any, where: str) -> int:
    """Return a size, which must be a number and no symbolic expression."""
    kind, value = take_choice(content, where)
    if kind == "as_int":
        return integer(value, where)
    raise symbolic(value, where)


def symbolic(value: Any, where: str) -> Exception:
    """Return the failure of a program with symbolic shapes. Text that is no arithmetic is unsafe."""
    text = value.get("expr_str") if isinstance(value, dict) else value
    if isinstance(text, str) and not _ARITHMETIC.fullmatch(text):
        return unsafe(f"symbolic shapes that are not accepted: {shown(text)}")
    return unfit(f"it has symbolic shapes ({shown(where)})", STATIC)


def check_device(content: Any, where: str) -> None:
    """Refuse a program that was exported on a device: its results may differ, and this machine does not have it."""
    kind = take_name(check(content, dict, where), "type", where)
    if kind != "cpu":
        raise unfit(
            f"it was exported on {shown(kind)}",
            "move the model and its example input to the CPU before torch.export.export",
        )


def _read(kind: str, content: Any, where: str, find: Find) -> Any:
    tag, value = take_choice(content, where)
    if tag == "as_optional_tensor" and type(value) is dict:
        tag, value = take_choice(value, where)
    if kind.startswith("Optional["):
        if tag == "as_none":
            return None
        return _read(kind.removeprefix("Optional[").removesuffix("]"), {tag: value}, where, find)
    if kind.startswith("List["):
        return _read_list(kind.removeprefix("List[").removesuffix("]"), tag, value, where, find)
    read = _SCALARS.get(kind)
    if read is None or tag not in read:
        raise unreadable(f"{where} is {shown(tag)} instead of {kind}")
    return read[tag](value, where, find)


def _read_list(kind: str, tag: str, value: Any, where: str, find: Find) -> tuple[Any, ...]:
    if type(value) is not list:
        return (_read(kind, {tag: value}, where, find),)
    singular = tag.removesuffix("s")
    items = value if singular in _CHOICES else ({singular: item} for item in value)
    return tuple(_read(kind, item, where, find) for item in items)


def _tensor(value: Any, where: str, find: Find) -> Ref:
    return find(take_name(check(value, dict, where), "name", where))


def _int(value: Any, where: str, find: Find) -> int:
    return integer(value, where)


def _float(value: Any, where: str, find: Find) -> float:
    """Return a number, which may be infinite, as in masks, but not NaN."""
    if value in ("Infinity", "-Infinity"):
        return math.copysign(math.inf, -1 if value.startswith("-") else 1)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise unreadable(f"{where} is not a finite number")
    return float(value)


def _bool(value: Any, where: str, find: Find) -> bool:
    return check(value, bool, where)


def _symbolic(tag: str, read: _Read) -> _Read:
    """Return a reader of a number that may be a symbolic expression, which is refused."""

    def read_number(value: Any, where: str, find: Find) -> Any:
        found, number = take_choice(value, where)
        if found != tag:
            raise symbolic(number, where)
        return read(number, where, find)

    return read_number


def _string(value: Any, where: str, find: Find) -> str:
    text = check(value, str, where)
    if text not in _WORDS and not _EQUATION.fullmatch(text):
        raise unreadable(f"{where} is {shown(text)}, which no operator takes")
    return text


def _name(value: Any, where: str, find: Find) -> Any:
    raise symbolic(value, where)


def _memory_format(value: Any, where: str, find: Find) -> torch.memory_format:
    number = integer(value, where)
    if number not in _MEMORY_FORMATS:
        raise unreadable(f"{where} is {number}, which is not a memory format")
    return _MEMORY_FORMATS[number]


def _layout(value: Any, where: str, find: Find) -> torch.layout:
    if value != _STRIDED:
        raise unfit(f"{where} is a sparse layout", "use dense tensors")
    return torch.strided


def _device(value: Any, where: str, find: Find) -> torch.device:
    check_device(value, where)
    return torch.device("cpu")


_CHOICES = ("as_optional_tensor", "as_sym_int", "as_sym_float")
"""Lists of these hold objects with a type each; other lists hold values of one type."""
_INTEGERS = {"as_int": _int, "as_sym_int": _symbolic("as_int", _int), "as_name": _name}
_FLOATS = {"as_float": _float, "as_int": _float, "as_sym_float": _symbolic("as_float", _float), "as_name": _name}
_SCALARS: Mapping[str, Mapping[str, _Read]] = {
    "Tensor": {
        **_FLOATS,
        **_INTEGERS,
        "as_bool": _bool,
        "as_tensor": _tensor,
    },  # in x + 1, a number stands for a tensor
    "int": _INTEGERS,
    "float": _FLOATS,
    "bool": {"as_bool": _bool},
    "number": {**_FLOATS, **_INTEGERS, "as_bool": _bool},
    "str": {"as_string": _string},
    "ScalarType": {"as_scalar_type": lambda value, where, find: read_dtype(value, where)},
    "MemoryFormat": {"as_memory_format": _memory_format},
    "Layout": {"as_layout": _layout},
    "Device": {"as_device": _device},
}
