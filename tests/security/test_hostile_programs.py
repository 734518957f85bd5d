"""Archives of torch.export made to do harm: each is refused with its reason, and nothing of it runs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from modelexport.api.reasons import Reason
from modelexport.text import is_clean
from modelexport_converter.architectures.custom import load
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from security.canary import SECRET, canary
from security.hostile_programs import (
    CONSTANTS,
    IMAGE,
    MODEL,
    WEIGHTS,
    Edit,
    Graph,
    Records,
    argument_of,
    aten,
    call,
    cut,
    entry,
    flips,
    given,
    graph,
    integers,
    meta,
    model,
    nested,
    node_of,
    record,
    renamed,
    save_base,
    signature,
    spec,
    tree,
    weight,
    wrapped,
    write,
)
from trained.cells import ask

UNSAFE, MISMATCH, UNREADABLE = Reason.CHECKPOINT_UNSAFE, Reason.CHECKPOINT_MISMATCH, Reason.CHECKPOINT_UNREADABLE
OUTCOMES = {UNSAFE, MISMATCH, UNREADABLE, Reason.WEIGHTS_NOT_FINITE}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """The valid archive, read once so that its imports happen before the canary listens."""
    path = tmp_path_factory.mktemp("base") / "x.pt2"
    records = save_base(path)
    run(path)
    for edit in SIZES.values():
        try_edit(path, records, edit)
    write(path, {**records, MODEL: b"{}"})
    with pytest.raises(Failure):
        read_checkpoint(path)
    return records


def run(path: Path) -> torch.Tensor:
    module = load(read_checkpoint(path), ask("Custom")).module
    output: torch.Tensor
    (output,) = module(torch.zeros(1, 3, 16, 16))
    return output


def refuse(path: Path) -> Failure:
    with canary(path) as held, pytest.raises(Failure) as caught:
        read_checkpoint(path)
    held.check()
    message = str(caught.value)
    assert SECRET not in message
    assert is_clean(message)
    assert len(message) < 1000
    return caught.value


def test_unmodified_archive_runs(base: Records, tmp_path: Path) -> None:
    write(tmp_path / "x.pt2", base)
    with canary(tmp_path / "x.pt2") as held:
        output = run(tmp_path / "x.pt2")
    held.check()
    assert output.shape == (1, 4)


PROOF = "__import__('os').system('touch /tmp/it-ran')"
NAMES = {
    "default": f"x={PROOF}",
    "body": f"x):\n    {PROOF}\n    def f(self",
    "globals": "self.__class__.__init__.__globals__['os']",
    "empty": "",
    "long": "x" * 5000,
    "bidi": "x\u202e\x1b]0;evil\x07",
    "path": "../../etc/passwd",
    "template": "{x.__class__}",
}
VALUES = ("x", "p_conv_weight", "b_k", "c_lifted_tensor_0", "conv2d", "add_1")
TENSORS = ("conv.weight", "norm.running_mean", "k", "lifted_tensor_0")


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("evil", NAMES.values(), ids=NAMES)
def test_value_name_is_not_executed(base: Records, tmp_path: Path, name: str, evil: str) -> None:
    check(base, tmp_path, renamed(name, evil), {UNSAFE, UNREADABLE})


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("evil", [name for name in NAMES if name != "path"])
def test_tensor_name_is_not_executed(base: Records, tmp_path: Path, name: str, evil: str) -> None:
    check(base, tmp_path, renamed(name, NAMES[evil]), {UNSAFE, UNREADABLE})


ENUM = json.dumps([{"__enum__": True, "fqn": "os:environ", "name": "CANARY"}])
FACTORY = {"default_factory_module": "os", "default_factory_name": "system", "dict_context": ["u"]}
SPECS = {
    "enum": (tree("builtins.dict", ENUM), UNSAFE),
    "enum in tuple": (tree("builtins.dict", f"[[1, {ENUM}]]"), UNSAFE),
    "factory": (tree("collections.defaultdict", FACTORY), UNSAFE),
    "factory text": (tree("collections.defaultdict", json.dumps(FACTORY)), UNSAFE),
    "library": (tree("collections.defaultdict", {**FACTORY, "default_factory_module": "ctypes"}), UNSAFE),
    "object": (tree("os.environ", {"a": 1}), UNSAFE),
    "type": (tree({"a": 1}, None), UNSAFE),
    "deep child": (tree("builtins.list", "null", json.loads(tree("builtins.dict", ENUM))[1]), UNSAFE),
    "no JSON": ("os.environ", UNREADABLE),
    "number": ("1", UNREADABLE),
    "bomb": ("[" * 100_000, UNREADABLE),
}


@pytest.mark.parametrize("kind", ["in_spec", "out_spec"])
@pytest.mark.parametrize(("text", "reason"), SPECS.values(), ids=SPECS)
def test_treespec_imports_nothing(base: Records, tmp_path: Path, kind: str, text: str, reason: Reason) -> None:
    check(base, tmp_path, spec(kind, text), {reason})


FILE = given("filename", "as_string", "/etc/hostname")
HARMFUL = (
    *("torch.ops.aten.from_file.default", "torch.ops.aten.from_file.out", "torch.ops.aten.save.default"),
    *("torch.ops.aten._print.default", "torch.ops.aten.set_.source_Tensor", "torch.ops.aten.set_.default"),
    *("torch.ops.aten.resize_.default", "torch.ops.aten.resize_as_.default", "torch.ops.aten.empty.memory_format"),
    *("torch.ops.aten.empty_like.default", "torch.ops.aten.empty_strided.default", "torch.ops.aten.new_empty.default"),
    *("torch.ops.aten.new_empty_strided.default", "torch.ops.aten.empty_permuted.default"),
    *("torch.ops.aten.record_stream.default", "torch.serialization.os.system", "os.system", "builtins.exec"),
    *("torch.ops.aten.relu.default.__class__", "torch.load", "torch.ops.load_library", "", "#os:system"),
    *("torch.ops.aten.relu.default\n", "torch._C._jit_set_profiling_mode", "torch.hub.load", "torch.classes.x.y"),
    *("torch.utils.cpp_extension.load_inline", "subprocess.Popen", "torch.ops.aten.relu.default;import os"),
)
UNKNOWN = (
    *("torch.ops.aten.rand.default", "torch.ops.aten.randn.default", "torch.ops.aten.randint.low"),
    *("torch.ops.aten.bernoulli.p", "torch.ops.aten.normal_.default", "torch.ops.aten.uniform_.default"),
    *("torch.ops.aten.multinomial.default", "torch.ops.aten.rrelu.default", "torch.ops.aten.nonzero.default"),
    *("torch.ops.aten.item.default", "torch.ops.aten.masked_select.default", "torch.ops.aten.relu.out"),
    *("torch.ops.aten.relu", "torch.ops.aten.__class__.default", "torch.ops.aten.as_strided_.default"),
    *("torch.ops.prims.empty_strided.default", "torch.ops.torchvision.nms.default", "torch.ops.mine.evil.default"),
    *("torch.ops.higher_order.cond", "torch.ops.inductor.resize_storage_bytes_.default", "_operator.getitem"),
    *("torch.ops.aten.view_as_complex.default", "torch.ops.aten.quantize_per_tensor.default", "math.trunc"),
    *(
        "torch.ops.aten.to_sparse.default",
        "torch.ops.aten.take_along_dim.default",
        "torch.ops.aten._unsafe_index_put.default",
        "torch.ops.aten.sym_size.int",
    ),
)


@pytest.mark.parametrize("target", HARMFUL)
def test_harmful_operator_is_unsafe(base: Records, tmp_path: Path, target: str) -> None:
    failure = check(base, tmp_path, call(target, FILE), {UNSAFE})
    assert "operators that are not accepted" in str(failure)


@pytest.mark.parametrize("target", UNKNOWN)
def test_unlisted_operator_is_reported_with_its_line(base: Records, tmp_path: Path, target: str) -> None:
    failure = check(base, tmp_path, call(target, IMAGE), {MISMATCH})
    assert f"{target.removeprefix('torch.ops.')} (net.py, line 7, in forward: x = evil(x))" in str(failure)


def huge(kind: str) -> list[Any]:
    return [given("size", kind, [1_000_000_000, 1000])]


SIZES = {
    "zeros": aten("zeros.default", *huge("as_ints"), sizes=(1_000_000_000, 1000)),
    "ones": aten("ones.default", given("size", "as_ints", [1 << 40])),
    "full": aten("full.default", *huge("as_ints"), given("fill_value", "as_float", 1.0)),
    "arange": aten("arange.default", given("end", "as_int", 1 << 50)),
    "linspace": aten(
        "linspace.default", given("start", "as_int", 0), given("end", "as_int", 1), given("steps", "as_int", 1 << 50)
    ),
    "eye": aten("eye.default", given("n", "as_int", 1_000_000)),
    "new_zeros": aten("new_zeros.default", IMAGE, *huge("as_ints")),
    "expand": aten("expand.default", IMAGE, given("size", "as_ints", [1 << 32, 3, 16, 16])),
    "repeat": aten("repeat.default", IMAGE, given("repeats", "as_ints", [1 << 20, 1 << 20, 1, 1])),
    "tile": aten("tile.default", IMAGE, given("dims", "as_ints", [1 << 40])),
    "pad": aten("constant_pad_nd.default", IMAGE, given("pad", "as_ints", [1 << 40, 0])),
    "upsample": aten(
        "upsample_nearest2d.vec",
        given("input", "as_tensor", {"name": "x"}),
        given("output_size", "as_ints", [1 << 20, 1 << 20]),
        given("scale_factors", "as_none", True),
    ),
    "overflow": aten("zeros.default", given("size", "as_ints", [1 << 62, 1 << 62])),
    "negative": aten("zeros.default", given("size", "as_ints", [-5])),
    "many axes": aten("zeros.default", given("size", "as_ints", [1] * 100_000)),
    "outer": aten(
        "einsum.default",
        given("equation", "as_string", "bchw,bcyx->bchwyx"),
        given("tensors", "as_tensors", [{"name": "big"}] * 2),
    ),
    "made": graph(lambda content: made(content, 80)),
}


def made(content: Graph, count: int) -> None:
    """Tensors of a million numbers each that need no image."""
    zeros = {"target": "torch.ops.aten.zeros.default", "inputs": [given("size", "as_ints", [1 << 20])], "metadata": {}}
    for name in (f"made_{index}" for index in range(count)):
        content["tensor_values"][name] = meta(1 << 20)
        content["nodes"].insert(0, {**zeros, "outputs": [{"as_tensor": {"name": name}}], "name": name})


@pytest.mark.parametrize("edit", SIZES.values(), ids=SIZES)
def test_unbounded_size_allocates_nothing(base: Records, tmp_path: Path, edit: Edit) -> None:
    check(base, tmp_path, edit, {MISMATCH, UNREADABLE})


def test_split_into_millions_is_stopped_early(base: Records, tmp_path: Path) -> None:
    def change(content: Graph) -> None:
        made(content, 1)
        content["tensor_values"]["made_0"] = meta(1 << 24)
        content["nodes"][0]["inputs"] = [given("size", "as_ints", [1 << 24])]
        tensor = given("self", "as_tensor", {"name": "made_0"})
        node = {"target": "torch.ops.aten.split.Tensor", "inputs": [tensor, given("split_size", "as_int", 1)]}
        content["nodes"].insert(1, {**node, "outputs": [{"as_tensors": []}], "metadata": {}, "name": "evil"})

    assert "more than 4,096 values" in str(check(base, tmp_path, graph(change), {MISMATCH}))


def changed(node: str, argument: str, **value: Any) -> Edit:
    def change(content: Graph) -> None:
        argument_of(node_of(content, node), argument)["arg"] = dict(value)

    return graph(change)


def node(name: str, **changes: Any) -> Edit:
    return graph(lambda content: node_of(content, name).update(changes))


def values(**changes: Any) -> Edit:
    return graph(lambda content: content["tensor_values"]["x"].update(changes))


INFINITE = aten("add.Scalar", IMAGE, given("other", "as_float", "NaN"), sizes=(1, 3, 16, 16))
SCHEMA = {
    "unknown argument": aten("relu.default", IMAGE, given("evil", "as_int", 1)),
    "missing argument": aten("relu.default"),
    "argument twice": aten("relu.default", IMAGE, IMAGE),
    "argument without name": aten("relu.default", {"arg": {"as_int": 1}}),
    "text for tensor": aten("relu.default", given("self", "as_string", "os")),
    "list for tensor": aten("relu.default", given("self", "as_ints", [1])),
    "truth for number": changed("conv2d", "padding", as_ints=[True, True]),
    "text for number": changed("conv2d", "padding", as_ints=["1", "1"]),
    "float for number": changed("conv2d", "padding", as_ints=[1.5, 1]),
    "object for number": changed("conv2d", "padding", as_ints=[{}, 1]),
    "number of 64 bits": changed("conv2d", "padding", as_ints=[1 << 63, 1]),
    "number without end": changed("conv2d", "padding", as_ints=[10**400, 1]),
    "NaN": INFINITE,
    "text for float": aten("add.Scalar", IMAGE, given("other", "as_float", "os.environ")),
    "type": aten("to.dtype", IMAGE, given("dtype", "as_scalar_type", 999)),
    "complex type": aten("to.dtype", IMAGE, given("dtype", "as_scalar_type", 9)),
    "memory format": aten("contiguous.default", IMAGE, given("memory_format", "as_memory_format", 99)),
    "sparse": aten("zeros.default", given("size", "as_ints", [1]), given("layout", "as_layout", 1)),
    "device": aten("zeros.default", given("size", "as_ints", [1]), given("device", "as_device", {"type": "cuda"})),
    "device path": aten(
        "to.device", IMAGE, given("device", "as_device", {"type": "/etc"}), given("dtype", "as_none", True)
    ),
    "mode": aten("pad.default", IMAGE, given("pad", "as_ints", [1, 1]), given("mode", "as_string", "evil")),
    "equation": aten(
        "einsum.default", given("equation", "as_string", "__import__('os')"), given("tensors", "as_tensors", [])
    ),
    "operator argument": aten("relu.default", given("self", "as_operator", "os.system")),
    "graph argument": aten("relu.default", given("self", "as_graph", {"name": "x", "graph": {}})),
    "object argument": aten("relu.default", given("self", "as_custom_obj", {"name": "x", "class_fqn": "os"})),
    "two types": aten("relu.default", {"name": "self", "arg": {"as_int": 1, "as_float": 1.0}}),
    "no type": aten("relu.default", {"name": "self", "arg": {}}),
    "generator": aten("relu.default", given("generator", "as_none", True)),
    "symbol": changed("conv2d", "padding", as_sym_ints=[{"as_name": "os.system"}]),
    "symbolic size": values(sizes=[{"as_expr": {"expr_str": PROOF, "hint": None}}]),
    "size as text": values(sizes=[{"as_int": "3"}]),
    "negative size": values(sizes=integers(-1, 3, 16, 16)),
    "huge size": values(sizes=integers(1, 3, 1 << 40, 16)),
    "size of no axes": values(sizes=5),
    "strides": values(strides=integers(1)),
    "image on a device": values(device={"type": "cuda"}),
    "image of a type": values(dtype="os"),
    "inputs no list": node("conv2d", inputs={}),
    "outputs no list": node("conv2d", outputs="conv2d"),
    "target no text": node("conv2d", target=["os"]),
    "metadata no object": graph(lambda content: content.update(nodes=[1])),
    "no nodes": graph(lambda content: content.pop("nodes")),
    "no graph": model(lambda content: content.update(graph_module={})),
    "no signature": model(lambda content: content["graph_module"].pop("signature")),
    "guards": model(lambda content: content.update(guards_code=[PROOF])),
    "ranges": model(lambda content: content.update(range_constraints={PROOF: {"min_val": 0, "max_val": 1}})),
    "symbols": graph(lambda content: content.update(sym_int_values={"s0": {"as_int": 1}})),
    "custom objects": graph(lambda content: content.update(custom_obj_values={"x": {"name": "x", "class_fqn": "os"}})),
}


@pytest.mark.parametrize("edit", SCHEMA.values(), ids=SCHEMA)
def test_field_outside_schema_is_refused(base: Records, tmp_path: Path, edit: Edit) -> None:
    check(base, tmp_path, edit, OUTCOMES)


def swap(content: Graph) -> None:
    content["input_specs"].reverse()


def outputs(*items: Any) -> Edit:
    return signature(lambda content: content.update(output_specs=list(items)))


def returning(name: str) -> Graph:
    return {"user_output": {"arg": {"as_tensor": {"name": name}}}}


REFERENCES = {
    "unknown": changed("conv2d", "input", as_tensor={"name": "nowhere"}),
    "forward": changed("conv2d", "input", as_tensor={"name": "mean"}),
    "to itself": changed("conv2d", "input", as_tensor={"name": "conv2d"}),
    "twice": node("batch_norm", outputs=[{"as_tensor": {"name": "conv2d"}}]),
    "as an input": node("conv2d", outputs=[{"as_tensor": {"name": "x"}}]),
    "undeclared": node("conv2d", outputs=[{"as_tensor": {"name": "undeclared"}}]),
    "too many results": node("conv2d", outputs=[{"as_tensor": {"name": "conv2d"}}, {"as_tensor": {"name": "more"}}]),
    "too few results": node("chunk", outputs=[{"as_tensors": []}]),
    "output": outputs(returning("nowhere")),
    "output of a weight's name": outputs(returning("conv.weight")),
    "inputs in another order": signature(swap),
    "inputs missing": signature(lambda content: content["input_specs"].pop()),
    "inputs twice": signature(lambda content: content["input_specs"].append(content["input_specs"][0])),
    "tensor missing": lambda records: records.update({CONSTANTS: b'{"config": {}}'}),
    "token": signature(lambda content: content["input_specs"][-1].update(user_input={"arg": {"as_token": {}}})),
    "custom object": signature(lambda content: content["input_specs"].__setitem__(-1, {"custom_obj": {"arg": {}}})),
    "loss": outputs({"loss_output": {"arg": {"name": "conv2d"}}}),
    "buffer change": outputs({"buffer_mutation": {"arg": {"name": "conv2d"}, "buffer_name": "k"}}),
    "weight change": aten("relu_.default", given("self", "as_tensor", {"name": "p_conv_weight"}), sizes=(8, 3, 3, 3)),
    "other sizes": graph(lambda content: content["tensor_values"].update(conv2d=meta(1, 8, 4, 4))),
    "other type": graph(lambda content: content["tensor_values"]["conv2d"].update(dtype=6)),
    "text returned": outputs({"user_output": {"arg": {"as_string": "/etc/passwd"}}}),
}


@pytest.mark.parametrize("edit", REFERENCES.values(), ids=REFERENCES)
def test_dangling_reference_is_refused(base: Records, tmp_path: Path, edit: Edit) -> None:
    check(base, tmp_path, edit, OUTCOMES)


def with_zeros(target: str, tensors: dict[str, tuple[int, ...]], *arguments: Graph) -> Edit:
    """A node of values that are made before it."""

    def change(content: Graph) -> None:
        for name, sizes in tensors.items():
            zeros = {"target": "torch.ops.aten.zeros.default", "inputs": [given("size", "as_ints", list(sizes))]}
            content["nodes"].insert(
                0, {**zeros, "outputs": [{"as_tensor": {"name": name}}], "metadata": {}, "name": name}
            )
            content["tensor_values"][name] = meta(*sizes)
        node = {"target": f"torch.ops.aten.{target}", "inputs": list(arguments), "metadata": {}, "name": "evil"}
        results = [{"as_tensor": {"name": f"evil_{index}"}} for index in range(3 if "lstm" in target else 1)]
        content["nodes"].insert(len(tensors), {**node, "outputs": results})

    return graph(change)


def recurrent(target: str, states: int, *weights: tuple[int, ...]) -> Edit:
    """A recurrent layer of 4 numbers, which reads 5 steps of 16."""
    tensors: dict[str, tuple[int, ...]] = {"steps": (5, 1, 16), **{f"h{index}": (1, 1, 4) for index in range(states)}}
    tensors |= {f"w{index}": sizes for index, sizes in enumerate(weights)}
    held = [{"name": f"h{index}"} for index in range(states)]
    state = given("hx", "as_tensors", held) if states > 1 else given("hx", "as_tensor", held[0])
    return with_zeros(
        target,
        tensors,
        *(given("input", "as_tensor", {"name": "steps"}), state),
        given("params", "as_tensors", [{"name": f"w{index}"} for index in range(len(weights))]),
        *(given("has_biases", "as_bool", True), given("num_layers", "as_int", 1), given("dropout", "as_float", 0.0)),
        *(given(name, "as_bool", False) for name in ("train", "bidirectional", "batch_first")),
    )


def attention(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> Edit:
    tensors = {"query": query, "key": key, "value": value}
    return with_zeros(
        "scaled_dot_product_attention.default",
        tensors,
        *(given(name, "as_tensor", {"name": name}) for name in tensors),
    )


FALSE, CPU = given("", "as_bool", False), given("", "as_string", "cpu")
MEMORY = {
    "group norm of other sizes": aten(
        "native_group_norm.default",
        given("input", "as_tensor", {"name": "x"}),
        *(given(name, "as_none", True) for name in ("weight", "bias")),
        *(given(name, "as_int", 1_000_000) for name in ("N", "C", "HxW")),
        *(given("group", "as_int", 1), given("eps", "as_float", 1e-5)),
    ),
    "steps of memory": aten(
        "as_strided.default", IMAGE, given("size", "as_ints", [768]), given("stride", "as_ints", [1])
    ),
    "steps behind memory": aten(
        "as_strided.default", IMAGE, given("size", "as_ints", [1 << 20]), given("stride", "as_ints", [1 << 20])
    ),
    "weights of a recurrent layer": recurrent("lstm.input", 2, (16, 5), (4, 4), (16,), (1,)),
    "bias of a recurrent layer": recurrent("gru.input", 1, (12, 16), (12, 4), (12,), (1,)),
    "layers without weights": recurrent("rnn_tanh.input", 1),
    "values of attention": attention((1, 1, 4, 8), (1, 1, 50_000, 8), (1, 1, 3, 8)),
    "keys of attention": attention((1, 1, 4, 8), (1, 1, 5, 4), (1, 1, 5, 8)),
    "factor of a resize": aten(
        "_upsample_bilinear2d_aa.default",
        *(IMAGE, given("output_size", "as_ints", [16, 16]), given("align_corners", "as_bool", False)),
        *(given(name, "as_float", 1e-9) for name in ("scales_h", "scales_w")),
    ),
    "graphs within graphs": nested(60),
    "an operator within": wrapped([FALSE], "torch.ops.aten.from_file.default"),
    "autocast": wrapped([CPU, given("", "as_scalar_type", 13), given("", "as_bool", True), FALSE]),
    "options": wrapped([CPU, CPU]),
}


MISFITS = {"weights", "bias", "layers without weights", "values", "keys", "factor"}


@pytest.mark.parametrize("name", MEMORY)
def test_out_of_bounds_memory_is_not_read(base: Records, tmp_path: Path, name: str) -> None:
    message = str(check(base, tmp_path, MEMORY[name], OUTCOMES))
    assert ("do not fit each other" in message) is (name.partition(" of ")[0] in MISFITS)


def test_mismatched_shapes_raise_no_traceback(base: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit = aten("add.Tensor", IMAGE, given("other", "as_tensor", {"name": "p_conv_weight"}))
    assert "does not take its arguments" in str(check(base, tmp_path, edit, {UNREADABLE}))
    assert not caplog.records


RECORDS = {
    "library": (record("data/aotinductor/model/evil.so", b"\x7fELF"), UNSAFE),
    "object": (record("data/constants/opaque_obj_0", b"cos\nsystem\n"), UNSAFE),
    "script": (record("evil.py", b"import os"), UNSAFE),
    "path": (record("../../../../tmp/it-ran", b""), UNSAFE),
    "earlier weights": (record("data/weights/model.pt", b"cos\nsystem\n"), UNREADABLE),
    "big-endian": (record("byteorder", b"big"), MISMATCH),
    "pickled": (entry(use_pickle=True), UNSAFE),
    "payload path": (entry(path_name="../../models/model.json"), UNSAFE),
    "payload object": (entry(path_name="opaque_obj_0"), UNSAFE),
    "payload missing": (entry(path_name="weight_77"), UNREADABLE),
    "payload number": (entry(path_name=0), UNREADABLE),
    "no meta": (entry(tensor_meta=None), UNREADABLE),
    "offset": (weight(storage_offset={"as_int": 1 << 40}), UNREADABLE),
    "negative offset": (weight(storage_offset={"as_int": -1}), UNREADABLE),
    "negative stride": (weight(strides=integers(-1, 1, 1, 1)), UNREADABLE),
    "stride behind": (weight(strides=integers(1 << 40, 1, 1, 1)), UNREADABLE),
    "sizes behind": (weight(sizes=integers(8, 3, 3, 4)), UNREADABLE),
    "double": (weight(dtype=8), UNREADABLE),
    "complex": (weight(dtype=10), MISMATCH),
    "repeated": (weight(sizes=integers(1 << 40, 1, 1, 1), strides=integers(0, 0, 0, 0)), UNREADABLE),
    "repeated a little": (weight(sizes=integers(1 << 26, 1, 1, 1), strides=integers(0, 0, 0, 0)), UNREADABLE),
    "device": (weight(device={"type": "meta"}), MISMATCH),
    "cut weight": (cut("data/weights/weight_0", 100), UNREADABLE),
    "cut list": (cut(WEIGHTS, 100), UNREADABLE),
    "cut graph": (cut(MODEL, 1000), UNREADABLE),
    "no graph": (lambda records: records.pop(MODEL) and None, UNREADABLE),
    "graph of a list": (record(MODEL, b"[]"), UNREADABLE),
    "graph of nothing": (record(MODEL, b""), UNREADABLE),
    "graph of bytes": (record(MODEL, b"\xff\xfe\x00"), UNREADABLE),
    "keys twice": (record(MODEL, b'{"graph_module": {}, "graph_module": {}}'), UNREADABLE),
    "constant": (record(MODEL, b'{"graph_module": NaN}'), UNREADABLE),
    "depth": (record(MODEL, b"[" * 1_000_000), UNREADABLE),
    "depth of objects": (record(MODEL, b'{"a":' * 1_000_000), UNREADABLE),
    "breadth": (record(MODEL, b'{"a": [' + b"[]," * 3_000_000 + b"1]}"), UNREADABLE),
    "digits": (record(MODEL, b'{"a": ' + b"9" * 1_000_000 + b"}"), UNREADABLE),
    "trace": (node("conv2d", metadata={"stack_trace": 'File "' * 200_000}, target="os"), UNSAFE),
    "nodes": (graph(lambda content: content.update(nodes=content["nodes"] * 2000)), MISMATCH),
}


@pytest.mark.parametrize(("edit", "reason"), RECORDS.values(), ids=RECORDS)
def test_record_is_bounded_and_checked(base: Records, tmp_path: Path, edit: Edit, reason: Reason) -> None:
    check(base, tmp_path, edit, {reason})


def test_compressed_archive_is_no_zip_bomb(base: Records, tmp_path: Path) -> None:
    write(tmp_path / "x.pt2", {**base, "extra/zeros": bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    failure = refuse(tmp_path / "x.pt2")
    assert failure.reason is UNREADABLE
    assert "torch.export.save compresses nothing" in str(failure)


def test_duplicate_record_is_refused(base: Records, tmp_path: Path) -> None:
    write(tmp_path / "x.pt2", base)
    with zipfile.ZipFile(tmp_path / "x.pt2", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"x/{MODEL}", b"{}")
    assert refuse(tmp_path / "x.pt2").reason is UNREADABLE


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_archive_is_refused(base: Records, tmp_path: Path, share: float) -> None:
    write(tmp_path / "x.pt2", base)
    content = (tmp_path / "x.pt2").read_bytes()
    (tmp_path / "x.pt2").write_bytes(content[: int(len(content) * share)])
    assert refuse(tmp_path / "x.pt2").reason is UNREADABLE


def test_two_central_directories_are_read_one_way(base: Records, tmp_path: Path) -> None:
    write(tmp_path / "x.pt2", base)
    write(tmp_path / "y.pt2", {**base, "extra/zeros": bytes(1 << 20)})
    (tmp_path / "x.pt2").write_bytes((tmp_path / "y.pt2").read_bytes() + (tmp_path / "x.pt2").read_bytes())
    with canary(tmp_path / "x.pt2") as held:
        outcome(tmp_path / "x.pt2")
    held.check()


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)])
def test_changed_byte_gives_reason_or_program(base: Records, tmp_path: Path, seeds: range) -> None:
    for seed, records in flips(base, seeds):
        write(tmp_path / "x.pt2", records)
        with canary(tmp_path / "x.pt2") as held:
            found = outcome(tmp_path / "x.pt2")
        held.check()
        assert found in {*OUTCOMES, None}, seed


def try_edit(path: Path, base: Records, edit: Edit) -> Reason | None:
    records = dict(base)
    edit(records)
    write(path, records)
    return outcome(path)


def outcome(path: Path) -> Reason | None:
    try:
        run(path)
    except Failure as failure:
        return failure.reason
    return None


def check(base: Records, folder: Path, edit: Edit, reasons: set[Reason]) -> Failure:
    records = dict(base)
    edit(records)
    write(folder / "x.pt2", records)
    failure = refuse(folder / "x.pt2")
    assert failure.reason in reasons, failure
    return failure
