"""Programs made to do harm: one valid archive, and a change in it."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

Graph = dict[str, Any]
Records = dict[str, bytes]
Edit = Callable[[Records], None]

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


class Network(nn.Module):
    """Has a parameter, a buffer, a constant, a change in place, a split and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("k", torch.arange(64.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = nn.functional.relu(self.norm(self.conv(x)), inplace=True).chunk(2, 1)
        return (first + second).mean((2, 3)) + self.get_buffer("k")[:4] * torch.tensor(2.0)


def save_base(path: Path) -> Records:
    """Write the sound archive, and return its records."""
    torch.export.save(torch.export.export(Network().eval(), (torch.rand(1, 3, 16, 16),)), path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(f"x/{name}", content)


def editing(record: str, change: Callable[[Any], None]) -> Edit:
    """Change one record that is JSON."""

    def edit(records: Records) -> None:
        content = json.loads(records[record])
        change(content)
        records[record] = json.dumps(content).encode()

    return edit


def model(change: Callable[[Graph], None]) -> Edit:
    return editing(MODEL, change)


def graph(change: Callable[[Graph], None]) -> Edit:
    return model(lambda content: change(content["graph_module"]["graph"]))


def signature(change: Callable[[Graph], None]) -> Edit:
    return model(lambda content: change(content["graph_module"]["signature"]))


def renamed(old: str, new: str) -> Edit:
    """Rename a value or a tensor everywhere."""

    def edit(records: Records) -> None:
        for record in (MODEL, WEIGHTS, CONSTANTS):
            records[record] = records[record].replace(json.dumps(old).encode(), json.dumps(new).encode())

    return edit


def meta(*sizes: int, dtype: int = 7) -> Graph:
    """The metadata of a contiguous tensor in an archive."""
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    return {
        "dtype": dtype,
        "sizes": [{"as_int": size} for size in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": step} for step in strides[: len(sizes)]],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def given(name: str, kind: str, value: Any) -> Graph:
    return {"name": name, "arg": {kind: value}, "kind": 1}


X = {"as_tensor": {"name": "x"}}
IMAGE = given("self", "as_tensor", {"name": "x"})


def call(target: str, *arguments: Graph, sizes: tuple[int, ...] = (1,), name: str = "evil", dtype: int = 7) -> Edit:
    """Put a node before all others; nobody uses its result."""

    def change(content: Graph) -> None:
        metadata = {"stack_trace": 'File "/home/me/net.py", line 7, in forward\n    x = evil(x)'}
        node = {"target": target, "inputs": list(arguments), "outputs": [{"as_tensor": {"name": name}}]}
        content["nodes"].insert(0, {**node, "metadata": metadata, "is_hop_single_tensor_return": None, "name": name})
        content["tensor_values"][name] = meta(*sizes, dtype=dtype)

    return graph(change)


def aten(name: str, *arguments: Graph, sizes: tuple[int, ...] = (1,), dtype: int = 7) -> Edit:
    return call(f"torch.ops.aten.{name}", *arguments, sizes=sizes, dtype=dtype)


def node_of(content: Graph, name: str) -> Graph:
    return next(node for node in content["nodes"] if node["name"] == name)


def argument_of(node: Graph, name: str) -> Graph:
    argument: Graph = next(item for item in node["inputs"] if item["name"] == name)
    return argument


def spec(kind: str, text: str) -> Edit:
    """Another treespec, ``in_spec`` or ``out_spec``."""

    def change(content: Graph) -> None:
        content["graph_module"]["module_call_graph"][0]["signature"][kind] = text

    return model(change)


def tree(kind: Any, context: Any, *children: Any) -> str:
    leaf: Graph = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": list(children) or [leaf]}])


def weight(**changes: Any) -> Edit:
    """Another description of the first weight."""

    def change(content: Graph) -> None:
        content["config"]["conv.weight"]["tensor_meta"] |= changes

    return editing(WEIGHTS, change)


def entry(**changes: Any) -> Edit:
    def change(content: Graph) -> None:
        content["config"]["conv.weight"] |= changes

    return editing(WEIGHTS, change)


def record(name: str, content: bytes) -> Edit:
    return lambda records: records.update({name: content})


def integers(*values: int) -> list[Graph]:
    return [{"as_int": value} for value in values]


def nested(depth: int) -> Edit:
    """Graphs within graphs."""

    def change(content: Graph) -> None:
        wrapped: Graph = {
            "inputs": [X],
            "outputs": [X],
            "nodes": [],
            "tensor_values": {"x": content["tensor_values"]["x"]},
        }
        for level in range(depth):
            node = _wrapper(wrapped, [given("", "as_bool", False)], f"y{level}")
            wrapped = {**wrapped, "nodes": [node], "tensor_values": {**wrapped["tensor_values"], f"y{level}": meta(1)}}
        content["nodes"] = wrapped["nodes"] + content["nodes"]

    return graph(change)


def _wrapper(wrapped: Graph, options: list[Graph], name: str) -> Graph:
    inputs = [
        *options,
        given("", "as_graph", {"name": "submod", "graph": wrapped}),
        given("", "as_tensor", {"name": "x"}),
    ]
    target = "torch.ops.higher_order.wrap_with_" + ("set_grad_enabled" if len(options) == 1 else "autocast")
    return {
        "target": target,
        "inputs": inputs,
        "outputs": [{"as_tensor": {"name": name}}],
        "metadata": {},
        "name": name,
    }


def wrapped(options: list[Graph], target: str = "torch.ops.aten.relu.default") -> Edit:
    """A graph within the graph, with one operator."""

    def change(content: Graph) -> None:
        image = content["tensor_values"]["x"]
        node = {
            "target": target,
            "inputs": [IMAGE],
            "outputs": [{"as_tensor": {"name": "y"}}],
            "metadata": {},
            "name": "y",
        }
        inner = {
            "inputs": [X],
            "outputs": [{"as_tensor": {"name": "y"}}],
            "nodes": [node],
            "tensor_values": {"x": image, "y": image},
        }
        content["nodes"].insert(0, _wrapper(inner, options, "evil"))
        content["tensor_values"]["evil"] = image

    return graph(change)


def cut(name: str, count: int) -> Edit:
    return lambda records: records.update({name: records[name][:count]})


def flips(records: Records, seeds: range) -> Iterator[tuple[int, Records]]:
    """Change one byte of a record; the seed chooses which."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        name = sorted(records)[int(torch.randint(len(records), (), generator=generator))]
        content = bytearray(records[name])
        if content:
            place, value = (int(torch.randint(end, (), generator=generator)) for end in (len(content), 256))
            content[place] = value
        yield seed, {**records, name: bytes(content)}
