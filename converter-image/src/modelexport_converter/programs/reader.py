"""Reads a ``.pt2`` archive into a program and checks every reference, type and size on the way."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from modelexport.text import clean
from modelexport_converter.programs.archive import GRAPH, ProgramArchive
from modelexport_converter.programs.arguments import read_call, symbolic
from modelexport_converter.programs.builder import NODES_LIMIT, Builder
from modelexport_converter.programs.decompositions import call, is_reshaped
from modelexport_converter.programs.errors import STATISTICS, shown, trained, unfit, unreadable, unsafe
from modelexport_converter.programs.graph import Program, Ref, Shape
from modelexport_converter.programs.json_fields import Json, check, take, take_choice, take_name, take_objects
from modelexport_converter.programs.operators import ASSERTIONS, WRAPPERS, is_random, refusal, signatures
from modelexport_converter.programs.stored_tensors import read_meta, read_tensors
from modelexport_converter.programs.treespecs import check_specs

NESTING_LIMIT = 8
LINE_LIMIT = 200
"""Characters of a line of the user's code in a message."""
_FRAME = re.compile(
    r'File "(?P<file>[^"\n]{1,500})", line (?P<line>\d{1,7}), in (?P<function>[^\n]{1,200})\n(?P<code>[^\n]{0,500})'
)
_FOREIGN = re.compile(r"[/\\](site-packages|dist-packages|torch)[/\\]|^<eval_with_key>")
"""Files of libraries, and code that torch generates for branches."""


def read_program(path: Path) -> Program:
    """Read a ``.pt2`` archive.

    Raises:
        Failure: ``CheckpointUnsafe`` if it could do harm, ``CheckpointUnreadable`` if it is damaged, or
            ``CheckpointMismatch`` if it cannot be converted.
    """
    archive = ProgramArchive(path)
    content = archive.json(GRAPH)
    if guards := content.get("guards_code"):
        raise unsafe(f"guards that are not accepted: {shown(guards)}")
    if content.get("range_constraints"):
        raise symbolic(None, "range_constraints")
    graph_module = take(content, "graph_module", dict, GRAPH)
    check_specs(graph_module)
    tensors, parameters = read_tensors(archive)
    reader = _Reader(tensors, parameters)
    return reader.read(take(graph_module, "graph", dict, GRAPH), take(graph_module, "signature", dict, GRAPH))


class _Reader:
    """Reads a graph and its nested graphs."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], parameters: frozenset[str]) -> None:
        self._tensors, self._parameters = tensors, parameters
        self._builder = Builder()
        self._state: dict[int, tuple[str, torch.Tensor]] = {}
        self._inputs: list[Ref] = []

    def read(self, graph: Json, signature: Json) -> Program:
        """Read the whole graph; the signature gives the roles of its inputs and outputs."""
        scope = _Scope(graph, "the graph")
        specs = [take_choice(item, "an input") for item in take_objects(signature, "input_specs", "signature")]
        names = [_argument_name(item) for item in take_objects(graph, "inputs", "the graph")]
        if len(specs) != len(names):
            raise unreadable(f"its signature has {len(specs)} inputs, its graph {len(names)}")
        for (kind, spec), name in zip(specs, names, strict=True):
            self._add_input(kind, check(spec, dict, "an input"), name, scope)
        _survey(graph, 0)
        self._run(graph, scope, 0)
        outputs = list(self._outputs(signature, scope))
        return self._builder.build(self._inputs, outputs, self._state, self._parameters, self._tensors)

    def _add_input(self, kind: str, spec: Json, name: str | None, scope: "_Scope") -> None:
        if kind == "constant_input" or (kind == "user_input" and name is None):
            return  # a number or None in the call; the nodes that use it contain it
        if kind not in {"user_input", *_STATE}:
            raise unsafe(f"inputs that are not accepted: {shown(kind)}")
        argument = take(spec, "arg", dict, f"the input {kind}")
        given = _argument_name(argument) if kind == "user_input" else take_name(argument, "name", f"the input {kind}")
        if name is None or given != name:
            raise unreadable(f"its signature calls an input {shown(given)}, its graph {shown(name)}")
        declared = scope.declared(name)
        if kind == "user_input":
            self._inputs.append(self._builder.add_input(declared))
            scope.bind(name, self._inputs[-1])
            return
        key = take_name(spec, _STATE[kind], f"the input {shown(name)}")
        if key not in self._tensors:
            raise unreadable(f"the tensor {shown(key)} is missing")
        tensor = self._tensors[key]
        value = self._builder.add_input(Shape(tuple(tensor.shape), tensor.dtype), key)
        self._state[value.value] = key, tensor
        scope.bind(name, value)
        scope.check(name, self._builder)

    def _outputs(self, signature: Json, scope: "_Scope") -> Iterator[Ref]:
        """Yield the tensors that the program returns, in their order, without ``None``."""
        for item in take_objects(signature, "output_specs", "signature"):
            kind, spec = take_choice(item, "an output")
            if kind == "user_input_mutation":
                continue  # of the caller's tensor, which is not used afterwards
            if kind in _CHANGES:
                name = take_name(check(spec, dict, kind), _CHANGES[kind], kind)
                if name.endswith(STATISTICS):
                    raise trained(f"{shown(name)} changes at every call")
                raise unfit(f"it changes {shown(name)} at every call", "keep no state in the model")
            if kind != "user_output":
                raise unfit(f"it returns {shown(kind)}", "export a model that returns its outputs only")
            tag, value = take_choice(take(check(spec, dict, kind), "arg", dict, kind), kind)
            if tag == "as_tensor":
                yield scope.find(take_name(check(value, dict, kind), "name", kind))
            elif tag != "as_none":
                raise unfit(f"it returns {shown(value)}, which is not a tensor", "return tensors only")

    def _run(self, graph: Json, scope: "_Scope", depth: int) -> None:
        for index, node in enumerate(take_objects(graph, "nodes", "the graph")):
            target = take_name(node, "target", f"node {index}")
            where = f"node {index} ({shown(target.removeprefix('torch.ops.'))})"
            if target in ASSERTIONS:
                continue
            self._builder.line = _line(node)
            if target in WRAPPERS:
                self._run_wrapped(node, where, scope, depth + 1)
            else:
                operator = signatures()[target]
                arguments = read_call(operator, node, where, scope.find)
                name = str(operator).removeprefix("aten.")
                results = call(self._builder, name, arguments)
                self._bind(take_objects(node, "outputs", where), results, where, scope)
                if is_reshaped(name):
                    scope.rebind(node, results)

    def _run_wrapped(self, node: Json, where: str, scope: "_Scope", depth: int) -> None:
        """Run a graph below ``torch.no_grad`` or a disabled autocast, which do not change numbers."""
        arguments = [take_choice(take(item, "arg", dict, where), where) for item in take_objects(node, "inputs", where)]
        places = [index for index, (tag, _) in enumerate(arguments) if tag == "as_graph"]
        if len(places) != 1:
            raise unreadable(f"{where} has {len(places)} graphs instead of one")
        options, (_, wrapped), given = arguments[: places[0]], arguments[places[0]], arguments[places[0] + 1 :]
        if len(options) > 1 and ("as_bool", False) not in options[2:3]:
            raise unfit(f"it was exported under torch.autocast{self._builder.line}", "export it without autocast")
        graph = take(check(wrapped, dict, where), "graph", dict, where)
        inner = _Scope(graph, where)
        names = [_argument_name(item) for item in take_objects(graph, "inputs", where)]
        if len(names) != len(given):
            raise unreadable(f"{where} passes {len(given)} values to a graph of {len(names)} inputs")
        for name, (tag, value) in zip(names, given, strict=True):
            if tag != "as_tensor" or name is None:
                raise unreadable(f"{where} passes {shown(tag)} to a graph")
            inner.bind(name, scope.find(take_name(check(value, dict, where), "name", where)))
        self._run(graph, inner, depth)
        results = tuple(inner.find(_tensor_name(item, where)) for item in take_objects(graph, "outputs", where))
        self._bind(take_objects(node, "outputs", where), results, where, scope)

    def _bind(self, outputs: list[Json], results: tuple[Ref | None, ...], where: str, scope: "_Scope") -> None:
        """Bind the results of a node to the names in the archive."""
        names: list[str | None] = []
        for output in outputs:
            tag, value = take_choice(output, where)
            if tag == "as_tensors":
                names += [take_name(check(item, dict, where), "name", where) for item in check(value, list, where)]
            else:
                names.append(_argument_name(output))
        if len(names) != len(results):
            raise unreadable(f"{where} names {len(names)} results, it has {len(results)}")
        for name, result in zip(names, results, strict=True):
            if name is not None:
                scope.bind(name, result)
                scope.check(name, self._builder)


class _Scope:
    """The values of one graph by their names in the archive, each once."""

    def __init__(self, graph: Json, where: str) -> None:
        self._where = where
        self._values: dict[str, Ref | None] = {}
        self._declared = take(graph, "tensor_values", dict, where)
        for kind in ("sym_int_values", "sym_bool_values", "sym_float_values"):
            if graph.get(kind):
                raise symbolic(None, kind)
        if graph.get("custom_obj_values"):
            raise unsafe("custom objects that are not accepted")

    def declared(self, name: str) -> Shape:
        """Return the sizes and the dtype that the archive declares for a value."""
        return read_meta(take(self._declared, name, dict, f"tensor_values of {self._where}"), shown(name)).shape

    def bind(self, name: str, value: Ref | None) -> None:
        """Bind a value to a name; as in torch.fx, names are Python identifiers."""
        if not name.isidentifier():
            raise unsafe(f"names that are not accepted: {shown(name)}")
        if name in self._values:
            raise unreadable(f"two values of {self._where} are called {shown(name)}")
        self._values[name] = value

    def rebind(self, node: Json, results: tuple[Ref | None, ...]) -> None:
        """Bind the first argument of a node to its result from here on."""
        _, value = take_choice(take(take_objects(node, "inputs", self._where)[0], "arg", dict, ""), "")
        self._values[take_name(value, "name", self._where)] = results[0]

    def check(self, name: str, builder: Builder) -> None:
        """Refuse a value that differs from the archive's declaration."""
        value = self._values[name]
        if value is not None and (found := builder.shape(value)) != (wanted := self.declared(name)):
            raise unreadable(
                f"{shown(name)} is {found.dtype} of the sizes {list(found.sizes)}, where the archive says "
                f"{wanted.dtype} of {list(wanted.sizes)}"
            )

    def find(self, name: str) -> Ref:
        """Return a value that was computed before."""
        if (value := self._values.get(name)) is None:
            raise unreadable(f"{self._where} refers to {shown(name)}, which is not computed before")
        return value


_STATE = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
_CHANGES = {"buffer_mutation": "buffer_name", "parameter_mutation": "parameter_name"}


def _argument_name(content: Json) -> str | None:
    """Return the name of a tensor argument; ``None`` for any other."""
    tag, value = take_choice(content, "an argument")
    if tag in {"as_custom_obj", "as_token", "as_operator", "as_graph"}:
        raise unsafe(f"values that are not accepted: {shown(tag)}")
    if tag.startswith("as_sym"):
        raise symbolic(None, "an argument")
    return take_name(check(value, dict, "an argument"), "name", "an argument") if tag == "as_tensor" else None


def _tensor_name(content: Json, where: str) -> str:
    name = _argument_name(content)
    if name is None:
        raise unreadable(f"{where} returns something else than tensors")
    return name


def _survey(graph: Json, depth: int) -> None:
    """Check all operators of a graph before processing the first.

    Raises:
        Failure: one is not in the table, or there are too many.
    """
    if depth > NESTING_LIMIT:
        raise unreadable(f"its graphs are nested more than {NESTING_LIMIT} deep")
    nodes = take_objects(graph, "nodes", "the graph")
    if len(nodes) > NODES_LIMIT:
        raise unfit(f"it has {len(nodes):,} nodes, the limit is {NODES_LIMIT:,}", "use a smaller model")
    targets = [take_name(node, "target", "a node") for node in nodes]
    known = signatures().keys() | WRAPPERS | ASSERTIONS
    if unknown := [index for index, target in enumerate(targets) if target not in known]:
        # Dropout in training mode allocates its mask before it draws it; report the random operator first.
        first = next((index for index in unknown if is_random(targets[index])), unknown[0])
        raise refusal(targets[first], _line(nodes[first]))
    for node in nodes:
        for argument in take_objects(node, "inputs", "a node"):
            tag, value = take_choice(take(argument, "arg", dict, "a node"), "a node")
            if tag == "as_graph":
                _survey(take(check(value, dict, "a graph"), "graph", dict, "a graph"), depth + 1)


def _line(node: Json) -> str:
    """Return the innermost line of the user's code that a node comes from, outside of libraries, in brackets."""
    metadata = node.get("metadata")
    trace = metadata.get("stack_trace") if isinstance(metadata, dict) else None
    if not isinstance(trace, str):
        return ""
    frames = list(_FRAME.finditer(trace[-10_000:]))
    own = [frame for frame in frames if not _FOREIGN.search(frame["file"])] or frames
    if not own:
        return ""
    frame = own[-1]
    file = re.split(r"[/\\]", frame["file"])[-1]
    text = f"{file}, line {frame['line']}, in {frame['function']}: {frame['code'].strip()}"
    return f" ({clean(text, LINE_LIMIT)})"
