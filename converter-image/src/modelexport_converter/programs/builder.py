"""Builds the graph of a program node by node: infers the shape of every value, and makes in-place changes pure.

Shapes come from torch's own fake tensors, which have sizes and types but no numbers, so nothing is computed or
allocated, whatever sizes a program has. They also show which values share memory. Where an operator writes into
a value, the graph continues with a new value, and each view of the old one that is used later is recomputed from it, as
torch's functionalisation does
(https://dev-discuss.pytorch.org/t/functionalization-in-pytorch-everything-you-wanted-to-know/965).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from modelexport_converter.failures import Failure
from modelexport_converter.programs.errors import STATISTICS, shown, trained, unfit, unreadable
from modelexport_converter.programs.graph import Node, Program, Ref, Shape, refs, substitute
from modelexport_converter.programs.module import call_of, flat, last_uses
from modelexport_converter.programs.operators import resolve
from modelexport_converter.programs.view_writes import written

NODES_LIMIT = 6_000
"""Nodes of a graph, after in-place changes are rewritten; a Swin v2 has 2,000. Each takes about a millisecond to check,
and an error in the last must be reported within ten seconds.
"""
CALLS_LIMIT = 10_000
"""Operators that torch calls to infer the shapes of a graph: recurrent layers call some at each step."""
PARTS_LIMIT = 4_096
"""Results of one operator, such as a split."""
RANK_LIMIT = 16
"""Axes of a value; window attention has 6."""
VALUE_LIMIT = 1 << 30
"""Elements of one value; 64 channels of an image of 4096 x 4096 have as many."""
MADE_LIMIT = 1 << 26
"""Elements of all values that a program computes from neither image nor weights; files store them as constants."""
MEMORY_LIMIT = 16 << 30
"""Peak bytes of a running program."""
# torch logs a traceback if arguments do not fit an operator; here the archive is wrong, and a message says so.
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)

DTYPES = frozenset(
    {
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    }
)


@dataclass(frozen=True)
class _View:
    """A value that shares the memory of ``source``: the result of ``node`` at ``position``."""

    source: int
    node: Node
    position: int


class _Bounds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts torch's calls, also within composite operators, and checks the size of each result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func.namespace == "aten"
        if self.calls > CALLS_LIMIT:
            raise unfit(f"it takes more than {CALLS_LIMIT:,} operators", "use a smaller model or fewer steps")
        if func in _SPLITS and _parts(func, *args) > PARTS_LIMIT:
            raise unfit(f"{func} returns more than {PARTS_LIMIT:,} values", "split into fewer parts")
        found = func(*args, **(kwargs or {}))
        for tensor in flat(found):
            if isinstance(tensor, torch.Tensor):
                check_size(tensor.shape)
        return found


_SPLITS = frozenset((torch.ops.aten.split.Tensor, torch.ops.aten.unsafe_split.Tensor, torch.ops.aten.unbind.int))


def _parts(func: Any, value: Any, *rest: Any) -> int:
    """Return the number of results of a split: by the size of a part and the axis, or by the axis alone."""
    width, axis = (1, *rest, 0)[:2] if func is torch.ops.aten.unbind.int else (*rest, 0)[:2]
    return -(-int(value.shape[axis]) // max(1, int(width)))


def check_size(sizes: Sequence[int]) -> None:
    """Refuse a value that is too large for any converting machine."""
    if len(sizes) > RANK_LIMIT:
        raise unfit(f"a value has {len(sizes):,} axes, the limit is {RANK_LIMIT}", "use fewer axes")
    if prod(sizes) > VALUE_LIMIT:
        raise unfit(
            f"a value of the shape {list(sizes)[:8]} has {prod(sizes):,} elements, the limit is {VALUE_LIMIT:,}",
            "use a smaller model or image",
        )


class Builder:
    """Collects nodes in their order and returns the program."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._fakes: list[Any] = []
        self._views: dict[int, _View] = {}
        self._written: dict[int, int] = {}
        self._made_again: dict[tuple[int, int], tuple[Ref | None, ...]] = {}
        self._state: dict[int, str] = {}
        self._independent: set[int] = set()
        self._made = 0
        self._mode, self._bounds = FakeTensorMode(allow_fallback_kernels=False), _Bounds()
        self.line = ""

    def add_input(self, shape: Shape, state: str = "") -> Ref:
        """Add a value that is not computed; ``state`` names a weight, which no node may change."""
        check_size(shape.sizes)
        with self._mode:
            value = self._add(torch.empty(shape.sizes, dtype=shape.dtype))
        if state:
            self._state[value.value] = state
        return value

    def shape(self, ref: Ref) -> Shape:
        """Return the sizes and the dtype of a value."""
        fake = self._fakes[ref.value]
        return Shape(tuple(fake.shape), fake.dtype)

    def strides(self, ref: Ref) -> tuple[int, ...]:
        """Return the strides of a value."""
        return tuple(self._fakes[ref.value].stride())

    def emit(self, operator: str, /, **arguments: Any) -> Ref:
        """Add a node with one result."""
        (result,) = self.emit_all(operator, arguments)
        assert result is not None
        return result

    def emit_all(self, operator: str, arguments: Mapping[str, Any]) -> tuple[Ref | None, ...]:
        """Add a node. Return its results in their order, ``None`` for undefined ones.

        Raises:
            Failure: the arguments do not fit the operator, or a value is too large.
        """
        if len(self._nodes) >= NODES_LIMIT:
            raise unfit(f"it has more than {NODES_LIMIT:,} nodes", "use a smaller model")
        current = {name: substitute_refs(argument, self.current) for name, argument in arguments.items()}
        found = self._call(operator, current)
        used = [value for argument in current.values() for value in refs(argument)]
        results = tuple(None if fake is None else self._add(fake) for fake in found)
        node = Node(operator, current, tuple(None if result is None else result.value for result in results), self.line)
        self._nodes.append(node)
        for position, result in enumerate(results):
            if result is not None:
                self._relate(result.value, used, node, position)
        return results

    def write(self, target: Ref, new: Ref) -> None:
        """Replace the content of ``target``, and of every value that shares its memory, by ``new`` from here on."""
        value = self.current(target)
        new = self._fit(new, self.shape(value))
        while (view := self._views.get(value.value)) is not None:
            source = Ref(view.source)
            new = self._write_view(view, source, new)
            value = source
        if name := self._state.get(value.value):
            if name.endswith(STATISTICS):
                raise trained(f"{shown(name)}{self.line} changes at every call")
            problem = f"it changes {shown(name)} at every call{self.line}, so an image's answer depends on those before"
            raise unfit(problem, "keep no state in the model")
        self._written[value.value] = new.value

    def current(self, ref: Ref) -> Ref:
        """Return the current value of a reference: itself, or recomputed from a value that was written since."""
        stale = []
        while True:
            value = ref.value
            root, chain = value, []
            while root in self._views:
                chain.append(root)
                root = self._views[root].source
            if root not in self._written:
                break
            stale.append(chain)
            ref = Ref(self._written[root])
            for link in reversed(chain):
                ref = self._make_again(self._views[link], ref)
        return ref

    def build(
        self,
        inputs: Sequence[Ref],
        outputs: Sequence[Ref],
        state: Mapping[int, tuple[str, torch.Tensor]],
        parameters: frozenset[str],
        tensors: Mapping[str, torch.Tensor],
    ) -> Program:
        """Return the program without unused nodes and weights.

        Raises:
            Failure: it needs too much memory.
        """
        results = tuple(self.current(output).value for output in outputs)
        needed = set(results)
        nodes = []
        for node in reversed(self._nodes):
            if needed & set(node.results):
                nodes.append(node)
                needed |= {value for argument in node.arguments.values() for value in refs(argument)}
        nodes.reverse()
        kept = {value: item for value, item in state.items() if value in needed}
        shapes = needed | {value for node in nodes for value in node.results if value is not None}
        program = Program(
            inputs=tuple(ref.value for ref in inputs),
            outputs=results,
            nodes=tuple(nodes),
            weights={value: tensor for value, (name, tensor) in kept.items() if name in parameters},
            buffers={value: tensor for value, (name, tensor) in kept.items() if name not in parameters},
            shapes={value: self.shape(Ref(value)) for value in sorted(shapes | {ref.value for ref in inputs})},
            tensors=tensors,
            parameters=parameters,
        )
        self._check_memory(program)
        return program

    def _check_memory(self, program: Program) -> None:
        """Refuse a program whose values, as float32 or more, take more memory at once than any converting machine."""
        held = 0
        for node, done in zip(program.nodes, last_uses(program), strict=True):
            held += sum(self._bytes(value) for value in node.results if value is not None)
            if held > MEMORY_LIMIT:
                problem = f"it needs more than {MEMORY_LIMIT:,} bytes at once{node.line}"
                raise unfit(problem, "use a smaller model or image")
            held -= sum(self._bytes(value) for value in done)

    def _bytes(self, value: int) -> int:
        """Return the bytes that a value adds to the memory that it shares."""
        return 0 if value in self._views else prod(self._fakes[value].shape) * max(self._fakes[value].itemsize, 4)

    def _call(self, operator: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        function = resolve(operator)
        positional, named = call_of(function, arguments)
        try:
            with self._mode, self._bounds:
                found = function(
                    *substitute(positional, self._fakes.__getitem__),
                    **{key: substitute(argument, self._fakes.__getitem__) for key, argument in named.items()},
                )
        except Failure:
            raise
        except Exception as error:
            # Fake tensors raise all kinds of exceptions; each means that the arguments do not fit the operator.
            raise unreadable(f"{operator}{self.line} does not take its arguments: {shown(error)}") from error
        results = flat(found)
        for fake in results:
            if fake is not None:
                self._check(operator, fake)
        return results

    def _check(self, operator: str, fake: Any) -> None:
        if not isinstance(fake, torch.Tensor) or fake.device.type != "cpu" or fake.layout is not torch.strided:
            raise unreadable(f"{operator}{self.line} returns something else than a tensor")
        if fake.dtype not in DTYPES:
            raise unfit(f"{operator}{self.line} returns {fake.dtype}", "compute with real numbers of 8 to 64 bits")
        check_size(fake.shape)

    def _add(self, fake: Any) -> Ref:
        self._fakes.append(fake)
        return Ref(len(self._fakes) - 1)

    def _relate(self, value: int, used: Sequence[int], node: Node, position: int) -> None:
        """Record whether a new value is a view, and whether it depends on image or weights."""
        memory = _memory(self._fakes[value])
        source = next((other for other in used if _memory(self._fakes[other]) == memory), None)
        if source is not None:
            self._views[value] = _View(source, node, position)
        if all(other in self._independent for other in used):
            self._independent.add(value)
            self._made += 0 if source is not None else prod(self._fakes[value].shape)
            if self._made > MADE_LIMIT:
                problem = f"it makes {self._made:,} numbers without its image{self.line}, the limit is {MADE_LIMIT:,}"
                raise unfit(problem, "make smaller tensors in forward")

    def _make_again(self, view: _View, source: Ref) -> Ref:
        key = (view.node.results[view.position] or 0, source.value)
        if key not in self._made_again:
            old = Ref(view.source)
            arguments = {
                name: substitute_refs(argument, lambda ref: source if ref == old else ref)
                for name, argument in view.node.arguments.items()
            }
            self._made_again[key] = self.emit_all(view.node.operator, arguments)
        result = self._made_again[key][view.position]
        assert result is not None
        return result

    def _fit(self, new: Ref, wanted: Shape) -> Ref:
        """Convert and expand a written value to the dtype and shape of its target."""
        found = self.shape(new)
        if found.dtype is not wanted.dtype:
            new = self.emit("to.dtype", self=new, dtype=wanted.dtype)
        if found.sizes != wanted.sizes:
            new = self.emit("expand.default", self=new, size=wanted.sizes)
        return new

    def _write_view(self, view: _View, source: Ref, new: Ref) -> Ref:
        """Return the value of ``source`` after ``new`` was written into a view of it."""
        old = self.line
        result = written(self, view.node, view.position, source, new)
        self.line = old
        if result is None:
            problem = f"it changes a view in place, made by {view.node.operator}{self.line}"
            raise unfit(problem, "write x = x + 1 instead of x += 1 in that line")
        return result


def substitute_refs(argument: Any, change: Any) -> Any:
    """Return an argument with every ``Ref`` replaced by ``change(ref)``."""
    if isinstance(argument, Ref):
        return change(argument)
    return tuple(substitute_refs(item, change) for item in argument) if isinstance(argument, tuple) else argument


def _memory(fake: Any) -> int:
    return int(fake.untyped_storage()._cdata)
