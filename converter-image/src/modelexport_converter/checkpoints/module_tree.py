"""The tree of a pickled network: describes each of its modules by the module's own attributes.

Every attribute is read by name and type, and its value is checked, since the author of a pickle is not trusted. Weights
are shared with the state dict: each is read once.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from modelexport.api.reasons import Reason
from modelexport.text import clean
from modelexport_converter.checkpoints.pickles import PickledObject, StoredTensor
from modelexport_converter.failures import Failure

LARGEST = 1 << 20
"""The largest whole number in a network: channels, classes, sizes."""


@dataclass(frozen=True)
class Module:
    """One module: its path in the network, e.g. ``model.2.cv1``, and its pickled content."""

    path: str
    node: PickledObject
    weights: Mapping[str, torch.Tensor]
    read: Callable[[str, StoredTensor], torch.Tensor]

    @property
    def kind(self) -> str:
        """Return the dotted name of its class."""
        return self.node.kind

    @property
    def name(self) -> str:
        """Return its path for messages."""
        return clean(self.path, 100) or "the network itself"

    def refuse(self, problem: str) -> Failure:
        """Return the failure of a network with a module that contradicts its class."""
        way_out = "export the model with torch.export.save as .pt2, architecture Custom"
        return Failure(Reason.CHECKPOINT_MISMATCH, f"layer {self.name} ({self.shown_kind}) {problem}; {way_out}")

    @property
    def shown_kind(self) -> str:
        """Return the name of its class for messages."""
        return clean(self.kind.rpartition(".")[2], 60)

    def has(self, name: str) -> bool:
        """Return whether an attribute is set and not ``None``."""
        return self.node.state.get(name) is not None

    def attribute(self, name: str) -> Any:
        """Return the pickled value of an attribute, of any type."""
        return self.node.state.get(name)

    def children(self) -> Iterator["Module"]:
        """Yield its child modules in their order, without those that are ``None``."""
        held = self.node.state.get("_modules")
        for name, node in held.items() if isinstance(held, dict) else ():
            if isinstance(node, PickledObject):
                yield self._child(name, node)
            elif node is not None:
                raise self.refuse(f"holds something else than a module as {clean(str(name), 60)}")

    def child(self, name: str) -> "Module":
        """Return the child module of a name; it must exist."""
        held = self.node.state.get("_modules")
        node = held.get(name) if isinstance(held, dict) else None
        if not isinstance(node, PickledObject):
            raise self.refuse(f"has no part {name}")
        return self._child(name, node)

    def has_child(self, name: str) -> bool:
        """Return whether it has a child module of a name."""
        held = self.node.state.get("_modules")
        return isinstance(held, dict) and isinstance(held.get(name), PickledObject)

    def _child(self, name: object, node: PickledObject) -> "Module":
        return Module(f"{self.path}.{name}" if self.path else str(name), node, self.weights, self.read)

    def integer(self, name: str, least: int = 0, default: int | None = None) -> int:
        """Return a whole number of at least ``least``."""
        value = self.node.state.get(name, default)
        if type(value) is not int or not least <= value <= LARGEST:
            raise self._wrong(name, f"a whole number of {least} or more")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        value: Any = self.node.state.get(name)
        if type(value) not in (int, float) or not abs(value) < math.inf:
            raise self._wrong(name, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return a boolean."""
        value = self.node.state.get(name, default)
        if type(value) is not bool:
            raise self._wrong(name, "True or False")
        return value

    def text(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return one of the allowed words."""
        value = self.node.state.get(name, default)
        if value not in allowed:
            raise self._wrong(name, f"one of {', '.join(allowed)}")
        return str(value)

    def pair(self, name: str, least: int = 0) -> tuple[int, int]:
        """Return two whole numbers; a single one counts for both."""
        value = self.node.state.get(name)
        values = (value, value) if type(value) is int else value
        if not isinstance(values, list | tuple) or len(values) != 2:
            raise self._wrong(name, "one or two whole numbers")
        if not all(type(item) is int and least <= item <= LARGEST for item in values):
            raise self._wrong(name, f"whole numbers of {least} or more")
        return values[0], values[1]

    def weight(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a floating-point parameter or buffer of exactly this shape."""
        key = f"{self.path}.{name}"
        tensor = self.weights.get(key)
        if tensor is None:
            raise self.refuse(f"has no {name}")
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            found = f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            raise self.refuse(f"has a {name} of shape {found}, by its attributes {shape} of float32")
        return tensor

    def has_weight(self, name: str) -> bool:
        """Return whether it has a parameter or buffer of a name."""
        return f"{self.path}.{name}" in self.weights

    def numbers(self, name: str) -> list[float]:
        """Return finite numbers from a small tensor or a list."""
        value = self.node.state.get(name)
        if isinstance(value, StoredTensor) and value.count <= LARGEST:
            value = self.read(f"{self.path}.{name}", value).float().flatten().tolist()
        if not isinstance(value, list | tuple) or not all(
            type(item) in (int, float) and abs(item) < math.inf for item in value
        ):
            raise self._wrong(name, "finite numbers")
        return [float(item) for item in value]

    def _wrong(self, name: str, wanted: str) -> Failure:
        value = self.node.state.get(name)
        shown = type(value).__name__
        if isinstance(value, str | float | None) or (isinstance(value, int) and abs(value) <= LARGEST):
            shown = clean(str(value), 60)
        return self.refuse(f"has {name}={shown}, expected {wanted}")
