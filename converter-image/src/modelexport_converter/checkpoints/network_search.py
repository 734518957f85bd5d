"""Finds the network in a checkpoint among optimisers, metrics, averaged and earlier weights.

Names are searched in the order of ``MODELS``, at every depth: averaged weights come first, since their author evaluates
those. Without any of these names, every part with weights counts, each under its own name: a generator and a
discriminator stay ``generator.`` and ``discriminator.``, and the architecture decides which one is its network.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelexport.text import clean
from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.pickles import PickledObject, StoredTensor, explain_refused_tensor

AVERAGED = ("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema")
"""Names of parts with averaged weights."""
MODELS = (*AVERAGED, "model", "state_dict", "model_state_dict", "params")
"""Names of parts with weights, in order of preference."""
_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that ``DataParallel`` and ``torch.compile`` add to every name."""
_COUNTER = "n_averaged"
"""The update counter of torch's averaged models."""
_TRAINING = (
    "optim",
    "scheduler",
    "lr_sched",
    "scaler",
    "amp",
    "grad_scaler",
    "loops",
    "callbacks",
    "rng",
    "random",
    "criterion",
    "loss",
)
"""Prefixes of parts that hold the state of a training, with tensors of its own."""

DEPTH = 8
"""Nesting of dicts; weights are two or three deep."""
MODULE_DEPTH = 64
_ARRAY_DEPTH, _LOOKED_AT = 3, 16
"""Depth, and parts of a dict, of the search for NumPy arrays instead of weights."""
NAME_SHOWN = 200
NAME_LIMIT = 100_000
"""Modules, parameters and buffers of a checkpoint; a YOLOv8x has 1,500."""


@dataclass(frozen=True)
class FoundNetwork:
    """The network of a checkpoint: its tensors by name, and its module if it was pickled as one.

    ``part`` is the dotted path of the network within the file; it is empty for the whole file.
    """

    stored: Mapping[str, StoredTensor]
    module: PickledObject | None = None
    part: str = ""

    def within(self, name: str) -> "FoundNetwork":
        """Return the same network below another name."""
        return replace(self, part=f"{name}.{self.part}" if self.part else name)


def find_network(content: Any) -> FoundNetwork:
    """Return the network in the content of ``torch.save``.

    Raises:
        Unreadable: it holds no weights, weights that are no plain tensors, or more parts than any network.
    """
    steps = _Steps()
    found = _find(content, steps, DEPTH) or FoundNetwork({})
    if not found.stored:
        if _holds_arrays(content, _ARRAY_DEPTH):
            raise Unreadable("its weights are arrays of NumPy; save them as tensors: torch.from_numpy of each")
        raise Unreadable(f"it holds no weights, neither bare nor under {', '.join(MODELS)}")
    return replace(found, stored=strip_wrapper_prefixes(found.stored), part=clean(found.part, NAME_SHOWN))


def _holds_arrays(content: Any, depth: int) -> bool:
    """Return whether there are NumPy arrays in the place of weights."""
    if (
        isinstance(content, PickledObject)
        and content.kind.startswith("numpy.")
        and content.kind.endswith("._reconstruct")
    ):
        return True
    parts = list(_parts(content).values())[:_LOOKED_AT] if depth else []
    return any(_holds_arrays(part, depth - 1) for part in parts)


class _Steps:
    """Limits the visited parts: with shared objects there are endless paths."""

    def __init__(self) -> None:
        self._left = NAME_LIMIT

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"it has more than {NAME_LIMIT:,} parts")


def _find(content: Any, steps: _Steps, depth: int) -> FoundNetwork | None:
    """Return the network in a module, a state dict, or a dict or object of several parts."""
    steps.take()
    if isinstance(content, PickledObject) and _is_module(content):
        return _of_module(content, steps)
    parts = _parts(content)
    if not parts or not depth:
        return None
    for name in MODELS:
        if name in parts and (found := _find(parts[name], steps, depth - 1)):
            return found.within(name)
    own = {name: value for name, value in parts.items() if isinstance(name, str) and isinstance(value, StoredTensor)}
    for name, value in parts.items():
        if isinstance(name, str) and (problem := explain_refused_tensor(value)):
            raise Unreadable(f"{clean(name, 100)} is {problem}")
    beside = {
        name: found
        for name, value in parts.items()
        if isinstance(name, str) and not name.startswith(_TRAINING) and (found := _find(value, steps, depth - 1))
    }
    if not beside or any("." in name for name in own):
        return FoundNetwork(own) if own else None
    if len(beside) == 1:
        ((name, found),) = beside.items()
        return found.within(name)
    return FoundNetwork(
        {f"{part}.{name}": value for part, found in beside.items() for name, value in found.stored.items()}
    )


def _parts(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, PickledObject):
        return content.items or content.state
    return content if isinstance(content, dict) else {}


def _is_module(node: PickledObject) -> bool:
    return isinstance(node.state.get("_modules"), dict) and isinstance(node.state.get("_parameters"), dict)


def _of_module(node: PickledObject, steps: _Steps) -> FoundNetwork | None:
    """Return a module with weights. Unwraps modules that only average or compile another one."""
    for _ in range(DEPTH):
        children = node.state["_modules"]
        wrapped = children.get("module", children.get("_orig_mod")) if len(children) == 1 else None
        if not isinstance(wrapped, PickledObject) or not _is_module(wrapped):
            break
        node = wrapped
    stored = dict(_walk(node, "", steps, MODULE_DEPTH))
    return FoundNetwork(stored, node) if stored else None


def _walk(node: PickledObject, prefix: str, steps: _Steps, depth: int) -> Iterator[tuple[str, StoredTensor]]:
    """Yield every parameter and buffer below a module with its name in the state dict."""
    steps.take()
    if not depth:
        raise Unreadable(f"its modules lie more than {MODULE_DEPTH} deep in each other")
    for kind in ("_parameters", "_buffers"):
        held = node.state.get(kind)
        for name, value in held.items() if isinstance(held, dict) else ():
            steps.take()
            if problem := explain_refused_tensor(value):
                raise Unreadable(f"{clean(f'{prefix}{name}', 100)} is {problem}")
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
    children = node.state.get("_modules")
    for name, child in children.items() if isinstance(children, dict) else ():
        if isinstance(child, PickledObject):
            yield from _walk(child, f"{prefix}{name}.", steps, depth - 1)


def strip_wrapper_prefixes(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefixes of wrappers from all names, and the counter of averaged weights, which has none."""
    weights = {name: value for name, value in stored.items() if name != _COUNTER}
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            return strip_wrapper_prefixes({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights
