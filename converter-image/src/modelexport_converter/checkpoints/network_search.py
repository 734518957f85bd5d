"""Finds the network in what a checkpoint holds beside it: optimisers, metrics, averaged and earlier weights.

The order is that of ``MODELS``, at every depth: averaged weights come first, as they are what their author evaluates.
Where none of these names is there, every part with weights counts, each under its own name: a generator beside a
discriminator stays ``generator.`` and ``discriminator.``, and the architecture decides which of them is its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelexport.text import clean
from modelexport_converter.checkpoints.errors import Unreadable
from modelexport_converter.checkpoints.pickles import Node, Stored, refused_tensor

AVERAGED = ("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema")
"""How parts with averaged weights are called."""
MODELS = (*AVERAGED, "model", "state_dict", "model_state_dict", "params")
"""Where a checkpoint keeps its weights."""
_PREFIXES = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every name."""
_COUNTER = "n_averaged"
"""What torch's averaged models count their updates with."""
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
"""How the names of parts begin that hold the state of a training, and its tensors."""

DEPTH = 8
"""Of dicts in dicts; weights lie two or three deep."""
MODULE_DEPTH = 64
_ARRAY_DEPTH, _LOOKED_AT = 3, 16
"""How deep, and at how many parts of a dict, the reader looks to say what it holds instead of weights."""
NAME_SHOWN = 200
NAME_LIMIT = 100_000
"""Modules, parameters and buffers of a checkpoint; a YOLOv8x has 1,500."""


@dataclass(frozen=True)
class Choice:
    """The network of a checkpoint: its tensors by name, and the module that they lie in, if it came as one.

    ``part`` is the name, or the names with dots between them, under which it lies; it is empty for all of the file.
    """

    stored: Mapping[str, Stored]
    module: Node | None = None
    part: str = ""

    def within(self, name: str) -> "Choice":
        """The same, found under a name."""
        return replace(self, part=f"{name}.{self.part}" if self.part else name)


def choose(content: Any) -> Choice:
    """Find the network in what ``torch.save`` wrote.

    Raises:
        Unreadable: it holds no weights, or weights that are no plain tensors, or more parts than any network.
    """
    steps = _Steps()
    choice = _find(content, steps, DEPTH) or Choice({})
    if not choice.stored:
        if _holds_arrays(content, _ARRAY_DEPTH):
            raise Unreadable("its weights are arrays of NumPy; save them as tensors: torch.from_numpy of each")
        raise Unreadable(f"it holds no weights, neither bare nor under {', '.join(MODELS)}")
    return replace(choice, stored=unwrapped(choice.stored), part=clean(choice.part, NAME_SHOWN))


def _holds_arrays(content: Any, depth: int) -> bool:
    """Whether there are arrays of NumPy where weights would be."""
    if isinstance(content, Node) and content.kind.startswith("numpy.") and content.kind.endswith("._reconstruct"):
        return True
    parts = list(_parts(content).values())[:_LOOKED_AT] if depth else []
    return any(_holds_arrays(part, depth - 1) for part in parts)


class _Steps:
    """Counts what is visited: what is shared can be reached in endless ways."""

    def __init__(self) -> None:
        self._left = NAME_LIMIT

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"it has more than {NAME_LIMIT:,} parts")


def _find(content: Any, steps: _Steps, depth: int) -> Choice | None:
    """The network in a module, a state dict, or a dict or an object of several things."""
    steps.take()
    if isinstance(content, Node) and _is_module(content):
        return _of_module(content, steps)
    parts = _parts(content)
    if not parts or not depth:
        return None
    for name in MODELS:
        if name in parts and (found := _find(parts[name], steps, depth - 1)):
            return found.within(name)
    own = {name: value for name, value in parts.items() if isinstance(name, str) and isinstance(value, Stored)}
    for name, value in parts.items():
        if isinstance(name, str) and (problem := refused_tensor(value)):
            raise Unreadable(f"{clean(name, 100)} is {problem}")
    beside = {
        name: found
        for name, value in parts.items()
        if isinstance(name, str) and not name.startswith(_TRAINING) and (found := _find(value, steps, depth - 1))
    }
    if not beside or any("." in name for name in own):
        return Choice(own) if own else None
    if len(beside) == 1:
        ((name, found),) = beside.items()
        return found.within(name)
    return Choice({f"{part}.{name}": value for part, found in beside.items() for name, value in found.stored.items()})


def _parts(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, Node):
        return content.items or content.state
    return content if isinstance(content, dict) else {}


def _is_module(node: Node) -> bool:
    return isinstance(node.state.get("_modules"), dict) and isinstance(node.state.get("_parameters"), dict)


def _of_module(node: Node, steps: _Steps) -> Choice | None:
    """A module, unless it holds no weights; of one that only wraps another, to average or compile it, the other."""
    for _ in range(DEPTH):
        children = node.state["_modules"]
        wrapped = children.get("module", children.get("_orig_mod")) if len(children) == 1 else None
        if not isinstance(wrapped, Node) or not _is_module(wrapped):
            break
        node = wrapped
    stored = dict(_walk(node, "", steps, MODULE_DEPTH))
    return Choice(stored, node) if stored else None


def _walk(node: Node, prefix: str, steps: _Steps, depth: int) -> Iterator[tuple[str, Stored]]:
    """Every parameter and buffer below a module, by the name that it has in a state dict."""
    steps.take()
    if not depth:
        raise Unreadable(f"its modules lie more than {MODULE_DEPTH} deep in each other")
    for kind in ("_parameters", "_buffers"):
        held = node.state.get(kind)
        for name, value in held.items() if isinstance(held, dict) else ():
            steps.take()
            if problem := refused_tensor(value):
                raise Unreadable(f"{clean(f'{prefix}{name}', 100)} is {problem}")
            if isinstance(value, Stored):
                yield f"{prefix}{name}", value
    children = node.state.get("_modules")
    for name, child in children.items() if isinstance(children, dict) else ():
        if isinstance(child, Node):
            yield from _walk(child, f"{prefix}{name}.", steps, depth - 1)


def unwrapped(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Take off the prefixes of wrappers; the counter of averaged weights has none."""
    weights = {name: value for name, value in stored.items() if name != _COUNTER}
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            return unwrapped({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights
