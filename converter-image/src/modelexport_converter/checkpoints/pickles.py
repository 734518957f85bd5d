"""Reads a pickle as data, by an interpreter whose instructions never import, call or change anything.

An import becomes a ``Global``, which is only a name; a created object becomes a ``PickledObject``, which keeps the
arguments and the state of the object. Tensors become a ``StoredTensor``, a description of numbers that are read later,
on access. Dicts, lists, texts and numbers stay what they are.

A pickle can be small and its content endless: a list may contain itself and a thousand others. So this reader limits
the instructions, and its callers limit the steps of their traversals.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from modelexport_converter.checkpoints.denylist import is_harmful, is_harmful_attribute
from modelexport_converter.checkpoints.errors import Unreadable, Unsafe

INSTRUCTION_LIMIT = 2_000_000
"""Instructions of one pickle; a YOLOv8n has 37,000, and each takes a microsecond or two and 300 bytes at most."""
AXES_LIMIT = 16
"""Axes of a tensor; no network has more than six."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_LARGEST_KEY = 1 << 60
"""A smaller integer is its own hash, so no choice of keys can slow down a dict."""

_DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)
"""Exceptions of instructions that lack their operands."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS: Mapping[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # sets are never read; a list needs no hashes
}
_IGNORED = {"PROTO", "FRAME"}
_UNKNOWN_TO_TORCH = {"PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}

_DTYPES = {
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
    "Untyped": torch.uint8,
}
"""By the name of a storage class, without its suffix."""
_DTYPES_BY_NAME = {
    str(dtype): dtype
    for dtype in (
        *_DTYPES.values(),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """The dotted name of an import."""

    path: str


@dataclass(slots=True, eq=False)
class PickledObject:
    """Represents an object: the dotted name of its class or factory, and its arguments.

    ``state`` holds its attributes, ``items`` its content if it is a dict type.
    """

    kind: str
    arguments: tuple[Any, ...]
    state: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    items: Mapping[Any, Any] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A record of numbers: their type, and the name of the record."""

    dtype: torch.dtype
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor: the location of its numbers, its shape, and its strides in numbers."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def count(self) -> int:
        """Return the number of elements."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def end(self) -> int:
        """Return the position after its last element."""
        if not self.count:
            return 0
        return self.offset + 1 + sum((side - 1) * step for side, step in zip(self.shape, self.steps, strict=True))


def read_pickle(content: bytes) -> Any:
    """Return the content of a pickle of ``torch.save``.

    Raises:
        Unsafe: it names harmful functions, or has instructions that torch never writes.
        Unreadable: it is damaged, or has more instructions than any checkpoint.
    """
    machine = _Machine()
    try:
        return machine.run(content)
    except _DAMAGED as error:
        machine.check_harmless()
        raise Unreadable(f"its content is damaged ({type(error).__name__})") from error
    except Unreadable:
        machine.check_harmless()
        raise


def harmful_names(content: bytes) -> list[str]:
    """Return the harmful names in a sequence of pickles, as far as it can be read."""
    machine, stream = _Machine(), io.BytesIO(content)
    try:
        while True:
            machine.run(stream)
    except (Unreadable, Unsafe, *_DAMAGED):
        return machine.harmful  # the numbers of tensors follow the pickles, or nothing


class _Machine:
    """The state of the interpreter: stack, memo, and harmful names that were found."""

    def __init__(self) -> None:
        self.harmful: list[str] = []
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._spent = 0

    def run(self, content: bytes | io.BytesIO) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            self._spend(1)
            name = opcode.name
            if name == "STOP":
                break
            self._step(name, argument)
        self.check_harmless()
        return self._stack.pop()

    def check_harmless(self) -> None:
        if self.harmful:
            raise Unsafe(", ".join(self.harmful))

    def _spend(self, steps: int) -> None:
        self._spent += steps
        if self._spent > INSTRUCTION_LIMIT:
            raise Unreadable(f"its pickle has more than {INSTRUCTION_LIMIT:,} instructions")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _STEPS:
            _STEPS[name](self)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name == "GLOBAL":
            stack.append(self._named(argument.replace(" ", ".")))
        elif name == "INST":
            arguments = self._pop_mark()
            self._stack.append(self._make(self._named(argument.replace(" ", ".")), tuple(arguments)))
        elif name in _UNKNOWN_TO_TORCH:
            raise Unsafe(f"instructions that torch.save never writes ({name})")
        elif name not in _IGNORED:
            stack.append(argument)  # numbers, texts and bytes

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def pop_mark(self) -> None:
        self._pop_mark()

    def duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def marked(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self._pop_mark()
        self._stack.append(kind(items))

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, PickledObject):  # an object may be a list type; its items are not needed
            raise TypeError

    def setitem(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def setitems(self) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            if target.items is _EMPTY:
                target.items = {}
            target = target.items
        if not isinstance(target, dict):
            raise TypeError
        _fill(target, items)

    def stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self._stack.append(self._named(f"{module}.{name}"))

    def _named(self, path: str) -> Global:
        if is_harmful(path):
            self._note(path)
        return Global(path)

    def _note(self, path: str) -> None:
        if path not in self.harmful and len(self.harmful) < 5:
            self.harmful.append(path)

    def reduce(self) -> None:
        arguments, made_by = self._stack.pop(), self._stack.pop()
        if not isinstance(arguments, tuple):
            raise TypeError
        self._stack.append(self._make(made_by, arguments))

    def newobj_ex(self) -> None:
        self._stack.pop()
        self.reduce()

    def obj(self) -> None:
        made_by, *arguments = self._pop_mark()
        self._stack.append(self._make(made_by, tuple(arguments)))

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, PickledObject):
            return  # attributes of a dict, a tensor or a number are not needed
        parts = [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, dict)]
        if target.state is not _EMPTY or len(parts) > 1:
            self._spend(sum(map(len, parts)) + len(target.state))
            parts = [{**target.state, **{key: value for part in parts for key, value in part.items()}}]
        if parts:
            target.state = parts[0]

    def persistent(self) -> None:
        match self._stack.pop():
            case ("storage", Global(path=path), str(key), _, int(_)):
                self._stack.append(_storage(path, key))
            case ("storage", Global(path=path), int(key), _, int(_)):
                self._stack.append(_storage(path, str(key)))
            case _:
                raise Unsafe("a reference that torch.save never writes")

    def _make(self, made_by: Any, arguments: tuple[Any, ...]) -> Any:
        """Return the representation of a call's result."""
        if not isinstance(made_by, Global):
            return PickledObject("the result of another call", (made_by, *arguments[:1]))
        path = made_by.path.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")
        if path == "builtins.getattr":
            name = arguments[1] if len(arguments) > 1 else None
            if not isinstance(name, str) or is_harmful_attribute(name):
                self._note(f"getattr of {name if isinstance(name, str) else 'a name that is computed'}")
        if path in _OF_CLASS and arguments and isinstance(arguments[0], Global):
            return self._make(arguments[0], ())
        if path in _DICTS or path in _LISTS:
            self._spend(sum(len(a) for a in arguments if isinstance(a, dict | list | tuple)))
        if path in _DICTS:
            return _dict_of(arguments)
        if path in _LISTS:
            return list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []
        if path in _TENSORS:
            made = _TENSORS[path](arguments)
            return PickledObject(path, arguments) if made is None else made
        return PickledObject(path, arguments)


_STEPS: Mapping[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "MEMOIZE": _Machine.memoize,
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "TUPLE": lambda machine: machine.marked(tuple),
    "LIST": lambda machine: machine.marked(list),
    "FROZENSET": lambda machine: machine.marked(tuple),
    "DICT": lambda machine: machine.marked(lambda items: _fill({}, items)),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
_OF_CLASS = {"copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"}
"""Functions that create an object of a given class, in pickles of the first protocols."""
_DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
_LISTS = {"torch.Size", "builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset"}


def _fill(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    """Add alternating keys and values to a dict.

    Items with other keys than texts and numbers are left out: they are never read, and crafted keys can make a dict of
    them take hours.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        if key is None or type(key) in (str, bool, float) or (type(key) is int and abs(key) < _LARGEST_KEY):
            target[key] = value
    return target


def _dict_of(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Return a dict from the arguments of a dict type: another dict, pairs, or nothing."""
    for argument in arguments:
        if isinstance(argument, dict):
            return dict(argument)
        if isinstance(argument, list):
            pairs = [pair for pair in argument if isinstance(pair, list | tuple) and len(pair) == 2]
            return _fill({}, [part for pair in pairs for part in pair])
    return {}


def _storage(path: str, key: str) -> "Storage | PickledObject":
    name = path.rpartition(".")[2]
    dtype = _DTYPES.get(name.removesuffix("Storage"))
    if not path.startswith("torch.") or dtype is None:
        return PickledObject(path, ())
    return Storage(dtype, key)


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """Return the tensor of ``storage, offset, size, stride`` and more; ``None`` if it is no plain tensor."""
    match arguments:
        case (Storage() as storage, int(offset), list() | tuple() as shape, list() | tuple() as steps, *rest):
            dtype = next((part.path for part in rest if isinstance(part, Global)), str(storage.dtype))
            if dtype not in _DTYPES_BY_NAME or not all(map(_are_sizes, (shape, steps, (offset,)))):
                return None
            if len(shape) != len(steps):
                return None
            return StoredTensor(storage, _DTYPES_BY_NAME[dtype], offset, tuple(shape), tuple(steps))
    return None


def _are_sizes(values: "list[Any] | tuple[Any, ...]") -> bool:
    return len(values) <= AXES_LIMIT and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _parameter(arguments: tuple[Any, ...]) -> StoredTensor | None:
    return arguments[0] if arguments and isinstance(arguments[0], StoredTensor) else None


def _typed(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """Return a tensor with attributes, which are not needed; ``None`` if it has a class of its own."""
    match arguments:
        case (Global(path=maker), Global(path=kind), tuple() as inner, *_) if maker in _TENSORS and kind in _PLAIN:
            return _TENSORS[maker](inner) if maker != _TYPED else None
    return None


_TYPED = "torch._tensor._rebuild_from_type_v2"
_PLAIN = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_TENSORS: Mapping[str, Callable[[tuple[Any, ...]], "StoredTensor | None"]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    _TYPED: _typed,
}
_REFUSED = {
    "torch._utils._rebuild_qtensor": "a quantised tensor; save the model before it is quantised",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor; save it with to_dense()",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor; save it with to_dense()",
    "torch._utils._rebuild_nested_tensor": "a nested tensor, which no network here has",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor of the meta device, which has no numbers",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of another class; save it as a plain tensor",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of a device; save it after cpu()",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of a device; save it after cpu()",
    "torch._utils._rebuild_tensor_v2": "a tensor of complex or quantised numbers, or with a shape that cannot be",
    "torch._utils._rebuild_tensor_v3": "a tensor of numbers or with a shape that cannot be read",
    "torch._utils._rebuild_parameter": "a parameter that is not a plain tensor; save it as a plain one on the CPU",
    "torch._utils._rebuild_parameter_with_state": "a parameter that is not a plain tensor; save it as a plain one",
    _TYPED: "a tensor of another class; save it as a plain tensor",
}


def explain_refused_tensor(value: Any) -> str | None:
    """Return a phrase about a tensor that cannot be read, with the way out; ``None`` for anything else."""
    return _REFUSED.get(value.kind) if isinstance(value, PickledObject) else None
