"""ExecuTorch (``.pte``): a program of ``torch.export``, compiled for XNNPACK; ExecuTorch's runtime runs it."""

import json
import logging
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import resources
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ruamel.yaml
import torch
import yaml
from torch.export import ExportedProgram
from torch.fx import Node

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends import executorch_runner as runner
from modelexport_converter.backends.activation_ranges import Budget, CalibrationMemo, Provide, pick_float_layers
from modelexport_converter.backends.decompositions import DecompositionMode
from modelexport_converter.backends.executorch_graph import (
    Layer,
    arguments_of,
    body_of,
    give_layers_their_weights,
    layers_of,
    measure_extremes,
    quantisable_layers,
    quantise_layers,
    shuffle_transposed,
    split_by_slices,
    to_half,
)
from modelexport_converter.backends.exported_program import CONVERSION, export_program, store_weights
from modelexport_converter.backends.file_metadata import file_metadata_of
from modelexport_converter.backends.file_process import FileProcess
from modelexport_converter.backends.noise_budget import plan_ranges
from modelexport_converter.file_input import feed, fill_batch, to_file_input
from modelexport_converter.model import LoadedModel
from modelexport_converter.runtime.absent_modules import absent
from modelexport_converter.runtime.replaced import replaced

METADATA = "modelexport"
"""Name of the method that returns the metadata, one JSON object of texts."""
METHOD = "forward"
_XNNPACK_TYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qint32": "int32",
    "xnn_datatype_qcint32": "int32",
}
"""Types of tensors by their names in XNNPACK's schema; 8 bits are with a scale, or with one for each channel."""
_TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}
"""Types of tensors by their numbers in ExecuTorch's schema."""

_UNUSED = (
    *("coremltools", "cpuinfo", "expecttest", "hydra", "hypothesis", "jax", "kgb", "matplotlib", "omegaconf", "pandas"),
    *("parameterized", "pytorch_tokenizers", "scipy", "sklearn", "tensorflow"),
)
"""Libraries that the compiler imports for language models and its own tests, or if they are there."""


def _calls(*operators: str) -> Callable[[Node], bool]:
    """Return a test for nodes that call one of these operators, each given by a part of its name."""
    return lambda node: (
        node.op == "call_function" and any(name in getattr(node.target, "__name__", "") for name in operators)
    )


_PASSES: Mapping[str, Callable[[Node], bool]] = {
    "ConstPropPass": lambda node: node.op in ("call_function", "get_attr") and not node.all_input_nodes,
    "Conv1dUnsqueezePass": lambda node: _calls("convolution")(node) and node.meta["val"].ndim == _LINE,
    "ConvertToLinearPass": _calls("mm"),
    "ConvertToSDPAPass": _calls(),
    "ConvertToUpsampleBilinear2d": _calls(),
    "DecomposeBatchNorm": _calls("batch_norm"),
    "DecomposeConcatenate": lambda node: _calls("aten.cat.default")(node) and len(arguments_of(node)[0]) > _JOINED,
    "DimOrderOpsRevertPass": _calls("dim_order"),
    "FuseActivationPass": _calls("relu", "hardtanh"),
    "FuseBatchNormPass": _calls("batch_norm"),
    "InsertPadQDQPass": _calls("pad"),
    "NormalizeTransposePass": lambda node: node.target is torch.ops.aten.t.default,
    "PReLUReshapePass": _calls("prelu"),
    "PropagateCustomMetaPass": lambda node: "custom" in node.meta,
    "RemoveGetItemPass": _calls("max_pool2d_with_indices", "max.dim"),
    "SymToTensorPass": lambda node: isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool),
}
"""Passes of the compiler, each with the nodes that it changes: all shapes are computed anew in each.

Programs of ours have no use for those without operators.
"""
_LINE = 3
"""Axes of the output of a one-dimensional convolution: batch, channels and positions."""
_JOINED = 5
"""Tensors that XNNPACK concatenates at once."""
_UNSUPPORTED = {"aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa", "aten::col2im"}
"""Operators without a kernel, that torch decomposes into others without one."""


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore the warnings of ExecuTorch, which are about its own code: it uses what newer Pythons will not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log free of what libraries say while they are imported, and as it is configured."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with replaced(logging, "basicConfig", lambda **_: None), _without_warnings():
            yield
    finally:
        logging.disable(before)


def _parse_quickly(typ: str) -> SimpleNamespace:
    """Return a parser of YAML in C; ruamel's is in Python, and takes half of the import for a table of operators."""
    return SimpleNamespace(load=partial(yaml.load, Loader=yaml.CSafeLoader))


with absent(_UNUSED), _quiet(), replaced(ruamel.yaml, "YAML", _parse_quickly):
    from executorch.backends.xnnpack import serialization, xnnpack_preprocess
    from executorch.backends.xnnpack.operators.node_visitor import _node_visitor_dict, register_node_visitor
    from executorch.backends.xnnpack.partition.config.gemm_configs import GEMMConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.exir._serialize._flatbuffer import _flatc_decompile
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.program import _program as compiler
    from executorch.exir.schema import Tensor


# The decorator that registers a visitor returns None, so only the registry has the compiler's class.
_visitor: Any = _node_visitor_dict["aten.convolution.default"]


@register_node_visitor
class _Convolution(_visitor):  # type: ignore[misc]  # mypy cannot know the class that the registry holds
    """Writes a convolution; the compiler widens its weights in half precision to four bytes (1.5)."""

    def define_tensor(self, tensor: Node, *args: Any, force_fp32: bool = False, **kwargs: Any) -> None:
        """Write a tensor: a weight in the precision that it has."""
        narrow = tensor.meta["val"].dtype is torch.float16 and tensor.meta["val"].ndim > 1
        super().define_tensor(tensor, *args, force_fp32=force_fp32 and not narrow, **kwargs)


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``: in FP32 or FP16, and for INT8 the program that ``quantise`` takes."""
    program = _capture(model)
    if base.needs_calibration:
        with path.open("wb") as file:  # torch asks the name of a file for another suffix
            torch.export.save(program, file)
        return
    if base is Recipe.FP16:
        shuffle_transposed(program)
        body = body_of(program, model)
        to_half(program, body)
        store_weights(program, Recipe.FP16, kept=_weights(set(layers_of(program)).difference(body.layers)))
    _compile(program, model, path)


def quantise(
    model: LoadedModel,
    source: Path,
    recipe: Recipe,
    samples: Sequence[Array],
    path: Path,
    *,
    max_float_layers: int = 0,
    memo: CalibrationMemo | None = None,
) -> Mapping[str, float]:
    """Write the program ``source`` to ``path`` by another recipe; return the layers that noise keeps in float."""
    with source.open("rb") as file:
        program = torch.export.load(file)
    body = body_of(program, model)
    layers = list(quantisable_layers(body))
    budget = (memo or CalibrationMemo()).recall(partial(_calibrate, model, program, layers, samples))
    allowed = [layer for layer in layers if not (model.int8_sensitive and layer.node in body.last)]
    float_layers = pick_float_layers(budget.noise, {one.name: one.tensors for one in allowed}, max_float_layers)
    done = quantise_layers(program, [one for one in allowed if one.name not in float_layers], budget.ranges)
    others = set(body.layers).difference(layer.node for layer in layers)
    quantised = {layer.node for layer in done}
    kept = _weights(set(layers_of(program)) - others - quantised)
    store_weights(program, Recipe.WEIGHT_ONLY_WI8_AFP32, kept=kept)
    _compile(program, model, path)
    return float_layers


def _capture(model: LoadedModel) -> ExportedProgram:
    """Return a model as a program in the operators that the compiler takes."""
    with DecompositionMode(lambda name: name not in _UNSUPPORTED):
        program = export_program(model)
    kept, _ = XnnpackPartitioner().ops_to_not_decompose(program)
    table = torch.export.default_decompositions()
    for operator in kept:
        table.pop(operator, None)  # type: ignore[no-untyped-call]  # torch has no types for it
    with _without_traces():
        decomposed: ExportedProgram = program.run_decompositions(table)
    give_layers_their_weights(decomposed)
    split_by_slices(decomposed)
    return decomposed


def _weights(layers: Iterable[Node]) -> set[str]:
    return {arguments_of(layer)[1].name for layer in layers}


def _calibrate(
    model: LoadedModel,
    program: ExportedProgram,
    layers: Sequence[Layer],
    samples: Sequence[Array],
    provide: Provide | None,
) -> Budget:
    """Measure the extremes of what layers read and give, one image at a time, and choose their ranges."""
    images = (to_file_input(model, fill_batch(model, sample)) for sample in samples)
    extremes = measure_extremes(program, {name for layer in layers for name in layer.tensors}, images)
    return plan_ranges(model, samples, extremes, provide=provide)


def _compile(program: ExportedProgram, model: LoadedModel, path: Path) -> None:
    """Compile a program for XNNPACK, with its metadata as a method, and write it."""
    metadata = json.dumps(file_metadata_of(model), ensure_ascii=False)
    with _compiler(program):
        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[_partitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
            constant_methods={METADATA: metadata},
        )
        compiled = lowered.to_executorch()
    path.write_bytes(compiled.buffer)


def _partitioner() -> Any:
    """Return what gives XNNPACK its parts: of the operators, layers alone are in 8 bits.

    Between two conversions it would compute others in 8 bits as well, such as a pooling, and XNNPACK then refuses to
    load them (error 0x1) if the conversions have different scales.
    """
    partitioner = XnnpackPartitioner()
    for config in partitioner.target_partitioner_configs.values():
        if ConfigPrecisionType.FP32 in config.supported_precision_types() and not isinstance(config, GEMMConfig):
            config.set_enabled_precision_types([ConfigPrecisionType.FP32])
    return partitioner


@contextmanager
def _compiler(program: ExportedProgram) -> Iterator[None]:
    """Change the compiler within the block, which spares two thirds of its time.

    It decomposes a program three times, copies the history of each node in every pass, and runs all passes over a
    program and its parts, also those that have nothing to change there.
    """
    manager = xnnpack_preprocess.XNNPACKPassManager
    decompose, passes = ExportedProgram.run_decompositions, compiler.base_pre_op_replace_passes

    def decompose_others(program: ExportedProgram, table: Mapping[Any, Any] | None = None) -> ExportedProgram:
        found = {node.target for node in program.graph.nodes if node.op == "call_function"}
        # `CONVERSION` may return its own input. The compiler refuses that, so the program must be decomposed.
        is_done = table is not None and found.isdisjoint([CONVERSION, *table])
        return program if is_done else decompose(program, table)

    def plan_passes(part: ExportedProgram, passes: Any = None) -> Any:
        planned = manager(part, passes)
        planned.passes = _needed(part, planned.passes)
        return planned

    with (
        _without_warnings(),
        _without_traces(),
        replaced(ExportedProgram, "run_decompositions", decompose_others),
        replaced(compiler, "base_pre_op_replace_passes", _needed(program, passes)),
        replaced(xnnpack_preprocess, manager.__name__, plan_passes),
        replaced(torch.fx.traceback.NodeSource, "__deepcopy__", lambda self, memo: self),
    ):
        yield


def _needed(program: ExportedProgram, passes: Iterable[Any]) -> list[Any]:
    """Return the passes that change a node of a program, and those that ``_PASSES`` does not list."""
    nodes = list(program.graph.nodes)
    unneeded = {name for name, changes in _PASSES.items() if not any(map(changes, nodes))}
    return [one for one in passes if one.__name__ not in unneeded]


def _without_traces() -> AbstractContextManager[None]:
    """Keep torch from looking up the source of each node: the program has none of them."""
    return replaced(torch.fx.config, "do_not_emit_stack_traces", True)


def inspect(path: Path) -> FileContents:
    """Read back the contents of a file."""
    file = _read(path)
    plan = next(plan for plan in file.program.execution_plan if plan.name == METHOD)
    metadata = read_metadata(path)
    weights: Counter[str] = Counter()
    operators: Counter[str] = Counter(f"{one.name}.{one.overload}".rstrip(".") for one in plan.operators)
    activations: Counter[str] = Counter()
    values = [value.val for value in plan.values]
    for value in values:
        if isinstance(value, Tensor) and value.data_buffer_idx:
            weights[_TYPES[value.scalar_type]] += prod(value.sizes)
    for delegate in plan.delegates:
        graph = _read_delegate(file.program.backend_delegate_data[delegate.processed.index].data)
        operators.update(node["xnode_union_type"] for node in graph["xnodes"])
        for entry in graph["xvalues"]:
            value = entry["xvalue_union"]
            tensor = value.get("tensor_value", value)
            kind = _XNNPACK_TYPES[tensor["datatype"]]
            if tensor.get("constant_buffer_idx"):
                weights[kind] += prod(tensor["dims"])
            elif kind == "int8":
                activations[kind] += 1
    (image,) = (values[place] for place in plan.inputs)
    names = [output["name"] for output in json.loads(metadata["outputs"])]
    return FileContents(
        weight_types=weights,
        op_types=operators,
        inputs={json.loads(metadata["input"])["name"]: tuple(image.sizes)},
        outputs={name: tuple(values[place].sizes) for name, place in zip(names, plan.outputs, strict=True)},
        activation_types=activations,
    )


def _read(path: Path) -> Any:
    with _without_warnings():
        return deserialize_pte_binary(path.read_bytes())


def _read_delegate(data: bytes) -> dict[str, Any]:
    """Return the graph in what XNNPACK reads, by its schema."""
    header = XNNHeader.from_bytes(data[: XNNHeader.EXPECTED_LENGTH])
    content = data[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size]
    with tempfile.TemporaryDirectory() as folder:
        schema, graph = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes(resources.files(serialization).joinpath("schema.fbs").read_bytes())
        graph.write_bytes(content)
        _flatc_decompile(folder, str(schema), str(graph))
        text = (Path(folder) / "graph.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(re.sub(r": (-?inf)\b", r': "\1"', text))  # bounds of activations
    return found


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that ``convert`` wrote into a file."""
    plan = next(plan for plan in _read(path).program.execution_plan if plan.name == METADATA)
    file_metadata: dict[str, str] = json.loads(plan.values[plan.outputs[0]].val.string_val)
    return file_metadata


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into ExecuTorch's runtime, in a process of its own that ends with the result."""
    process = FileProcess("ExecuTorch", runner.__file__, path)
    return feed(lambda images: tuple(process.run(images).values()), model)
