"""ONNX: torch exports, ONNX Runtime quantises and runs."""

import importlib
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxscript import optimizer

from modelexport.logs import announce
from modelexport.matrix.options import OPSET_OF_16_BITS
from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends.activation_ranges import (
    Budget,
    CalibrationMemo,
    Provide,
    pick_float_layers,
    trace_to_weights,
)
from modelexport_converter.backends.decompositions import DecompositionMode
from modelexport_converter.backends.file_metadata import AUTHOR, DESCRIPTION, file_metadata_of
from modelexport_converter.backends.noise_budget import measure_outputs, plan_ranges
from modelexport_converter.backends.small_layers import Layer, pick_small_layers
from modelexport_converter.file_input import feed, fill_batch
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.runtime.replaced import replaced

OPSET = 17
"""Supported by ONNX Runtime since 1.12 (2022), and sufficient for convolutional networks."""
_EXPORTED_OPSET = 20
"""The newest opset of the exporter; ONNX's own converter does the rest."""
_EXPORTER = "torch.onnx._internal.torchscript_exporter"
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTISED = (*_WEIGHTED, "Clip", "Relu")
"""The operators that are quantised.

The quantiser removes a Relu or Clip after an operator with weights: the range of the result cuts the same values. A
range of the values before would spend half of its steps on those.
"""
_MOST_OPERATIONS = 0.10
"""The share of all operations in small layers that stay in float.

ONNX Runtime computes a SiLU in float. A convolution before one spares the conversion of what it reads and of its
result, and files with such layers are no slower (ADR 17).
"""
_ACTIVATIONS = {
    Recipe.STATIC_WI8_AI8: quantization.QuantType.QUInt8,
    Recipe.STATIC_WI8_AI16: quantization.QuantType.QUInt16,
}
_RECURRENT = {1: 1, 2: 1}
_WEIGHT_INPUTS: Mapping[str, Mapping[int, int]] = {
    "ConvTranspose": {1: 1},
    "Einsum": {0: 0, 1: 0},
    "Gemm": {1: 0},
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "MatMul": {0: -2, 1: -1},
    "RNN": _RECURRENT,
}
"""Operator inputs that are weights if they are constant, each with the axis of its output channels."""


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``, in FP32."""
    assert base is Recipe.FP32
    opset = model.options.opset or OPSET
    exported = min(opset, _EXPORTED_OPSET)
    outputs, shapes = [output.name for output in model.outputs], _output_shapes(model)
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but ten times as fast as the new one, and its files are smaller.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.onnx|modelexport_converter")
        # Sizes are constants here, so tracing them as constants is correct.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # A normalisation without running statistics uses those of its input in eval mode too.
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL", category=UserWarning)
        # Recurrent layers start with zeros for a batch of one, the batch size of every model here.
        warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size", category=UserWarning)
        # The exporter warns that it keeps padding widths as nodes; they are folded below.
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1", category=UserWarning)
        is_translated = partial(_has_symbolic, exported)
        with DecompositionMode(is_translated), replaced(torch._C, "_jit_is_onnx_log_enabled", None):
            # The exporter checks that this function exists, not its result, and then prints whole graphs.
            torch.onnx.export(
                model.module,
                (model.captured_input(),),
                path,
                dynamo=False,
                opset_version=exported,
                input_names=[model.input_name],
                output_names=outputs,
                dynamic_axes=_open_axes(model, shapes),
            )
    content = onnx.load(path)
    # The exporter leaves widths of padding as nodes, and shapes after them unknown.
    optimizer.fold_constants(content, should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None)
    optimizer.remove_unused_nodes(content)
    _declare_outputs(content.graph, model, shapes)
    finish(content if opset == exported else version_converter.convert_version(content, opset), model, path)


def _has_symbolic(opset: int, name: str) -> bool:
    """Return whether the exporter translates an operator, e.g. ``aten::relu``, to an opset."""
    for older in range(9, opset + 1):
        importlib.import_module(f"{_EXPORTER}.symbolic_opset{older}")
    return bool(importlib.import_module(f"{_EXPORTER}.registration").registry.is_registered_op(name, opset))


def _output_shapes(model: LoadedModel) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs for the input with which the network is captured."""
    with torch.inference_mode():
        return [tuple(output.shape) for output in model.module(model.captured_input())]


def _open_axes(model: LoadedModel, shapes: Sequence[tuple[int, ...]]) -> dict[str, dict[int, str]]:
    """Return the names of the axes of any size of input and outputs, by position.

    A runtime takes axes of one name for equally long ones, and prototypes of masks are smaller than the image.
    """
    names, (height, width) = [model.input_name, *(output.name for output in model.outputs)], model.input_size
    image = ("batch", "channels", "height", "width")
    axes = [zip(image, model.input_shape, strict=True)]
    # The outputs of a part of a program, which is converted to find an operator, have no names of axes.
    axes += [zip(output.axes, shape, strict=False) for output, shape in zip(model.outputs, shapes, strict=True)]
    sides = {("row", height): "height", ("column", width): "width"}
    return {
        name: {place: sides.get((axis, size), axis) for place, (axis, size) in sized if axis in model.open_axes}
        for name, sized in zip(names, map(enumerate, axes), strict=True)
    }


def _declare_outputs(graph: onnx.GraphProto, model: LoadedModel, shapes: Sequence[tuple[int, ...]]) -> None:
    """Give every output its name and shape; the exporter does not name an output that is constant."""
    opened = _open_axes(model, shapes)
    for value, output, sizes in zip(graph.output, model.outputs, shapes, strict=True):
        shape = [opened.get(output.name, {}).get(axis, size) for axis, size in enumerate(sizes)]
        if value.name != output.name:
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [output.name], f"/{output.name}"))
        value.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))


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
    """Write the FP32 file ``source`` to ``path`` by another recipe; return the layers that noise keeps in float."""
    if recipe is Recipe.FP16:
        finish(_to_fp16(onnx.load(source), model), model, path)
        return {}
    float_layers: Mapping[str, float] = {}
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    if recipe.needs_calibration:
        if recipe.activation_bits == 16:
            _raise_opset(prepared)
        budget = (memo or CalibrationMemo()).recall(partial(_calibrate, model, prepared, samples, recipe))
        float_layers = _quantise_static(model, prepared, budget, path, recipe=recipe, count=max_float_layers)
    else:
        outside = _outside_body(onnx.load(prepared).graph, model)
        quantization.quantize_dynamic(
            prepared, path, weight_type=quantization.QuantType.QUInt8, nodes_to_exclude=outside
        )
    prepared.unlink()
    content = onnx.load(path)
    _quantise_remaining_weights(content.graph)
    finish(content, model, path)
    return float_layers


def inspect(path: Path) -> FileContents:
    """Read back the contents of a file."""
    graph = onnx.load(path).graph
    weights: Counter[str] = Counter()
    types = {tensor.name: str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) for tensor in graph.initializer}
    constants = [attribute for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
    for tensor in [*graph.initializer, *(attribute.t for attribute in constants if attribute.name == "value")]:
        weights[str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))] += int(
            np.prod(tensor.dims, dtype=np.int64)
        )
    return FileContents(
        weight_types=weights,
        op_types=Counter(node.op_type for node in graph.node if node.op_type != "Constant"),
        inputs={value.name: _shape(value) for value in graph.input},
        outputs={value.name: _shape(value) for value in graph.output},
        input_types={value.name: _type(value) for value in graph.input},
        output_types={value.name: _type(value) for value in graph.output},
        activation_types=Counter(types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"),
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into ONNX Runtime, with exact sums on every processor.

    x86 processors without VNNI add products of unsigned activations and signed weights in pairs of 16 bits, which
    saturate. ``session.x64quantprecision`` (onnxruntime_session_options_config_keys.h) makes the weights unsigned
    first; without it the same file agrees less on such a machine than on any other.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.x64quantprecision", "1")
    open_session = partial(onnxruntime.InferenceSession, sess_options=options, providers=["CPUExecutionProvider"])
    try:
        session = open_session(str(path))
    except onnxruntime_errors.Fail:  # it cannot convert a weight twice (ONNX Runtime 1.32)
        session = open_session(_unshare_weights(onnx.load(path)).SerializeToString())
    names = [output.name for output in model.outputs]
    return feed(lambda image: tuple(session.run(names, {model.input_name: image})), model)


def _unshare_weights(content: onnx.ModelProto) -> onnx.ModelProto:
    """Copy each quantised weight that several operators share, so that each has its own; the values stay."""
    graph = content.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    users = defaultdict(list)
    for node in graph.node:
        for index, name in enumerate(node.input):
            users[name].append((node, index))
    dequantizes = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    for dequantize in dequantizes:
        for number, (user, index) in enumerate(users[dequantize.output[0]][1:], 1):
            copy = graph.node.add()
            copy.CopyFrom(dequantize)
            for position, name in enumerate(dequantize.input):  # weight, scales and zero points
                tensor = graph.initializer.add()
                tensor.CopyFrom(weights[name])
                tensor.name = copy.input[position] = f"{name}_{number}"
            copy.name, copy.output[0] = f"{dequantize.name}_{number}", f"{dequantize.output[0]}_{number}"
            user.input[index] = copy.output[0]
    OnnxModel(content).topological_sort()  # the copies are appended last
    return content


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Passes calibration inputs to the quantiser one at a time."""

    def __init__(self, name: str, samples: Sequence[Array]) -> None:
        self._inputs: Iterator[dict[str, Array]] = ({name: sample} for sample in samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next input, or ``None`` at the end."""
        return next(self._inputs, None)


def _quantise_static(
    model: LoadedModel, source: Path, budget: Budget, path: Path, *, recipe: Recipe, count: int
) -> Mapping[str, float]:
    """Quantise the operators with weights; all others, the decoding above all, stay in float.

    ONNX Runtime's documentation recommends unsigned activations with signed weights per channel for CPUs. 16-bit
    activations are unsigned as well, as Qualcomm's and other NPUs have them.

    Returns:
        The layers that stay in float because their noise is the largest, with their shares of it.
    """
    ranges, content = path.with_suffix(".ranges.json"), onnx.load(source)
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in budget.ranges.items()}
    quantization.save_tensors_data(TensorsData(quantization.CalibrationMethod.MinMax, data), ranges)
    outside = _float_nodes(content.graph, model)
    layers = _layers(content.graph, outside)
    described = _describe_layers(content, model, layers, outside) if budget.by_output else {}
    small = pick_small_layers(budget.by_output, described, _MOST_OPERATIONS)
    announce("small layers in float", layers=len(small))
    others = {name: tensors for name, tensors in layers.items() if name not in small}
    float_layers = pick_float_layers(budget.noise, others, count)
    quantization.quantize_static(
        source,
        path,
        calibration_cache_path=ranges,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_QUANTISED,
        nodes_to_exclude=[*outside, *small, *float_layers],
        per_channel=True,
        activation_type=_ACTIVATIONS[recipe],
        weight_type=quantization.QuantType.QInt8,
        # A range with headroom cuts less than a Relu or a Clip does.
        extra_options={"QDQKeepRemovableActivations": recipe.activation_bits > 8},
    )
    ranges.unlink()
    return float_layers


def _raise_opset(path: Path) -> None:
    """Raise the version of a file's operators to the first that quantises to 16 bits."""
    content = onnx.load(path)
    if next(entry.version for entry in content.opset_import if not entry.domain) < OPSET_OF_16_BITS:
        onnx.save(version_converter.convert_version(content, OPSET_OF_16_BITS), path)


def _float_nodes(graph: onnx.GraphProto, model: LoadedModel) -> set[str]:
    """Return the names of the nodes that no file in 8 bits quantises."""
    last = _trace_to_weights(graph, model.outputs)[1] if model.int8_sensitive else ()
    return {*_outside_body(graph, model), *_clips_without_zero(graph), *last}


def _layers(graph: onnx.GraphProto, outside: Collection[str]) -> dict[str, list[str]]:
    """Return the tensors that each operator with weights needs in 8 bits: those that it reads, and its result."""
    constants = {tensor.name for tensor in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    layers = {}
    for node in graph.node:
        if node.op_type in _WEIGHTED and node.name not in outside:
            result = node.output[0]
            following = readers[result]
            if len(following) == 1 and following[0].op_type in ("Clip", "Relu") and following[0].name not in outside:
                result = following[0].output[0]
            layers[node.name] = [*(name for name in node.input[:2] if name not in constants), result]
    return layers


def _describe_layers(
    content: onnx.ModelProto, model: LoadedModel, layers: Mapping[str, Sequence[str]], outside: Collection[str]
) -> dict[str, Layer]:
    """Describe the layers with weights, by name; each comes with the tensors that it needs, its result last."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in content.graph.initializer}
    shapes, readers = _find_shapes(content, model), defaultdict[str, set[str]](set)
    for node in content.graph.node:
        if node.op_type in _QUANTISED and node.name not in outside:
            for name in node.input:
                readers[name].add(layers[node.name][-1] if node.name in layers else node.output[0])
    described = {}
    for node in content.graph.node:
        weights = max((sizes[name] for name in node.input if name in sizes), default=0)
        # A transposed convolution multiplies each weight once per input position, all others once per output position.
        shape = shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
        if node.name in layers and weights and shape:
            result, channels = layers[node.name][-1], shape[-1 if node.op_type == "MatMul" else 1]
            described[node.name] = Layer(
                [result], readers[result], weights, weights * (int(np.prod(shape)) // channels)
            )
    return described


def _find_shapes(content: onnx.ModelProto, model: LoadedModel) -> dict[str, list[int]]:
    """Return the shapes of the tensors of a network that takes the image with which it is captured."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(content)
    del fixed.graph.value_info[:]
    (image,) = fixed.graph.input
    image.CopyFrom(onnx.helper.make_tensor_value_info(image.name, onnx.TensorProto.FLOAT, model.captured_input().shape))
    graph = onnx.shape_inference.infer_shapes(fixed).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim] for value in values}
    return {name: shape for name, shape in shapes.items() if all(shape)}


def _clips_without_zero(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of the Clips that no 8-bit range replaces, because all of these contain zero."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Clip":
            low, high = (constants.get(name) for name in (*node.input[1:], "", "")[:2])
            if (low and onnx.numpy_helper.to_array(low) > 0) or (high and onnx.numpy_helper.to_array(high) < 0):
                yield node.name


def _calibrate(
    model: LoadedModel, source: Path, samples: Sequence[Array], recipe: Recipe, provide: Provide | None
) -> Budget:
    """Measure the extremes of every tensor, one image at a time, and choose its range."""
    extremes: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        measuring = f"{folder}/measuring.onnx"
        calibrator = quantization.create_calibrator(source, _QUANTISED, measuring)
        calibrator.infer_session = _open_calibration_session(measuring)
        for sample in samples:
            calibrator.calibrate_tensors_range = None  # else it would merge the ranges of all images
            calibrator.collect_data(_Reader(model.input_name, [fill_batch(model, sample)]))
            for name, found in calibrator.compute_data().items():
                extremes.setdefault(name, []).append((found.lowest.item(), found.highest.item()))
    # The calibrator holds names in a set, so that their order changes from process to process.
    graph = onnx.load(source).graph
    ordered = {name: extremes[name] for name in _tensors(graph) if name in extremes}
    budget = plan_ranges(model, samples, ordered, recipe.activation_bits, provide)
    rounded = {tensor for tensors in _layers(graph, _float_nodes(graph, model)).values() for tensor in tensors}
    return replace(budget, by_output=measure_outputs(model, samples, ordered, budget, rounded))


def _tensors(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of the tensors of a graph in the order of computation."""
    yield from (one.name for one in graph.input)
    yield from (name for node in graph.node for name in node.output)


def _open_calibration_session(path: str) -> onnxruntime.InferenceSession:
    """Open a file that measures its own tensors, each as soon as it is computed.

    By default ONNX Runtime measures at the end and holds every tensor until then: 3.4 GiB for a U-Net of 512 x 512
    pixels, where this takes 1.1, in the same time.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _trace_to_weights(graph: onnx.GraphProto, outputs: Iterable[Output]) -> tuple[list[str], list[str]]:
    """Return the names of the nodes between the last weights and some outputs, and of the last nodes with weights."""
    # A shape depends on no value of the tensor that has it.
    sources = {name: () if node.op_type == "Shape" else node.input for node in graph.node for name in node.output}
    names = {name: node.name for node in graph.node for name in node.output}
    weighted = {name for node in graph.node if node.op_type in _WEIGHTED for name in node.output}
    following, last = trace_to_weights((output.name for output in outputs), sources, weighted)
    return [names[name] for name in following], [names[name] for name in last]


def _outside_body(graph: onnx.GraphProto, model: LoadedModel) -> list[str]:
    """Return the names of the nodes that stay in float; torch names a node by the modules that it comes from."""
    if not model.low_precision_modules:
        return []
    return [
        node.name
        for node in graph.node
        if node.name.split("/")[1:2] not in [[child] for child in model.low_precision_modules]
    ]


def _to_fp16(content: onnx.ModelProto, model: LoadedModel) -> onnx.ModelProto:
    """Return the file in FP16, except the nodes outside the body and those before exact outputs."""
    exact, _ = _trace_to_weights(content.graph, (output for output in model.outputs if output.keep_float32))
    outside = [*_outside_body(content.graph, model), *exact]
    converted: Any = OnnxModel(convert_float_to_float16(content, keep_io_types=True, node_block_list=outside))
    # The library casts the outputs of excluded nodes to float16, and back for the next one: box positions would be
    # rounded to half a pixel, and detections would appear that the model does not have.
    _bypass_fp16_casts(converted.model.graph)
    converted.remove_cascaded_cast_nodes()
    converted.remove_useless_cast_nodes()
    converted.topological_sort()  # the casts of the input are appended last
    content = converted.model
    del content.graph.value_info[:]  # some hold the types before the conversion
    return content


def _bypass_fp16_casts(graph: onnx.GraphProto) -> None:
    """Let casts of FP16 casts read the original value: labels and positions are whole numbers."""
    casts = [node for node in graph.node if node.op_type == "Cast"]
    fp16_sources = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == onnx.TensorProto.FLOAT16}
    for node in casts:
        node.input[0] = fp16_sources.get(node.input[0], node.input[0])
    read = {name for node in graph.node for name in node.input}
    for node in casts:
        if node.output[0] in fp16_sources and node.output[0] not in read:
            graph.node.remove(node)


def _quantise_remaining_weights(graph: onnx.GraphProto) -> None:
    """Quantise the weights without integer operators in ONNX Runtime to 8 bits, as ``_WEIGHT_INPUTS`` lists them.

    Symmetric, one scale per output channel; runtimes convert them to float when they load the file.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    for node in list(graph.node):
        for position, axis in _WEIGHT_INPUTS.get(node.op_type, {}).items():
            name = node.input[position] if position < len(node.input) else ""
            if name in weights and len(weights[name].dims) > 1:
                _quantise_weight(graph, weights.pop(name), axis)


def _quantise_weight(graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int) -> None:
    """Quantise a weight in place, one scale per index of ``axis``; the dequantised values take its name."""
    values, name = onnx.numpy_helper.to_array(weight), weight.name
    axis %= values.ndim
    others = tuple(other for other in range(values.ndim) if other != axis)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
    quantized, scale, zero = (f"{name}_{end}" for end in ("quantized", "scale", "zero_point"))
    weight.CopyFrom(onnx.numpy_helper.from_array(np.round(values / scales).astype(np.int8), quantized))
    graph.initializer.append(onnx.numpy_helper.from_array(scales.reshape(-1), scale))
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(scales.size, np.int8), zero))
    graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", [quantized, scale, zero], [name], axis=axis))


def finish(content: onnx.ModelProto, model: LoadedModel, path: Path) -> None:
    """Attach metadata, drop debug information, check and write the file."""
    for node in content.graph.node:
        node.ClearField("doc_string")
    content.producer_name, content.producer_version = AUTHOR, file_metadata_of(model)["modelexport_version"]
    content.doc_string = DESCRIPTION
    onnx.helper.set_model_props(content, file_metadata_of(model))
    onnx.checker.check_model(content, full_check=True)
    onnx.save(content, path)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _type(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
