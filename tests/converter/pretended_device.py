"""A device that only exists in tests: its tensors lie in the memory of the CPU, but cannot be mixed with the CPU's.

torch computes on it with the CPU's kernels, so that answers can be compared. As on a GPU, an operator that gets tensors
of both devices fails, except for single numbers of the CPU in elementwise operators. The device carries the name of
``meta``, the only other device of which every build of torch has what its Python interface needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from modelexport_converter import compute_device
from modelexport_converter.compute_device import CPU

DEVICE = torch.device("meta")
_COPY = torch.ops.aten.copy_.default
_BETWEEN_DEVICES = (torch.ops.aten._to_copy.default, _COPY)


@contextmanager
def pretended_device() -> Iterator[None]:
    """Make the device that of this process."""
    with chosen_device(DEVICE), _Functions(), _Operators():
        yield


@contextmanager
def chosen_device(device: torch.device) -> Iterator[None]:
    """Choose a device, and afterwards the one before again."""
    choice, compute_device._choice = compute_device._choice, compute_device._Choice(device)
    try:
        yield
    finally:
        compute_device._choice = choice
        compute_device._weights.clear()


class _Tensor(torch.Tensor):
    """A tensor of the device, with its numbers in ``held``, a tensor of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: Any, held: torch.Tensor) -> "_Tensor":
        made: Any = torch.Tensor._make_wrapper_subclass
        tensor: _Tensor = made(cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE)
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]  # torch's own is a function of C
        return _call(func, args, kwargs or {})


class _Operators(TorchDispatchMode):
    """Calls every operator on the device of its tensors, or on the one that it names."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Does what torch cannot: numbers for ``torch.tensor`` on the device ``meta``, a list of those of our tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is torch.tensor and options.get("device") == DEVICE:
            return func(*args, **options | {"device": CPU}).to(DEVICE)
        if func is torch.Tensor.tolist:
            return _held(args[0]).tolist()
        return func(*args, **options)


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = any(isinstance(tensor, _Tensor) for tensor in tensors)
    if ours and func not in _BETWEEN_DEVICES:
        _check(func, tensors)
    if kwargs.get("device") is not None:
        ours = kwargs["device"] == DEVICE
        kwargs = kwargs | {"device": CPU}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func._schema.is_mutable and isinstance(found, torch.Tensor) and found is _held(args[0]):
        return args[0]
    return tree_map(lambda leaf: _Tensor(leaf) if ours and isinstance(leaf, torch.Tensor) else leaf, found)


def _check(func: Any, tensors: list[torch.Tensor]) -> None:
    for tensor in tensors:
        is_number = tensor.device == CPU and not tensor.dim() and torch.Tag.pointwise in func.tags
        if not isinstance(tensor, _Tensor) and not is_number:
            raise RuntimeError(f"{func} gets a tensor of the CPU beside those of the device: {list(tensor.shape)}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _Tensor) else value
