"""ONNX: torch exports, ONNX Runtime quantises and runs."""

import importlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxscript import optimizer

from modelexport.matrix import Scheme
from modelexport_converter.backends import Array, Facts, Run
from modelexport_converter.backends.expressing import Expressing
from modelexport_converter.backends.ranges import find_range, trace_back
from modelexport_converter.backends.usage import AUTHOR, DESCRIPTION, describe_usage
from modelexport_converter.model import LoadedModel, Output

OPSET = 17
"""Old enough for every runtime in use (ONNX Runtime since 1.12, of 2022), and all that convolutional networks need."""
_EXPORTER = "torch.onnx._internal.torchscript_exporter"
_QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RECURRENT = {1: 1, 2: 1}
_STORED: Mapping[str, Mapping[int, int]] = {
    "ConvTranspose": {1: 1},
    "Einsum": {0: 0, 1: 0},
    "Gemm": {1: 0},
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "MatMul": {0: -2, 1: -1},
    "RNN": _RECURRENT,
}
"""The inputs of operators that are weights when they are constant, each with the axis of its output channels."""


def convert(model: LoadedModel, base: Scheme, path: Path) -> None:
    """Write the model to ``path``, in FP32."""
    assert base is Scheme.FP32
    with warnings.catch_warnings():
        # The exporter by tracing is deprecated; it is ten times as fast as the new one and its files are smaller.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.onnx|modelexport_converter")
        # Sizes are constants here, so what tracing makes of them is what is meant.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # A normalisation without statistics takes those of its input in evaluation too.
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL", category=UserWarning)
        # The exporter says that it leaves the widths of padding as nodes; they are folded below.
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1", category=UserWarning)
        with Expressing(_has_symbolic), patch.object(torch._C, "_jit_is_onnx_log_enabled", None):
            # The exporter asks whether this function is there, not what it returns, and then prints whole graphs.
            torch.onnx.export(
                model.module,
                (model.example_input(),),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[model.input_name],
                output_names=[output.name for output in model.outputs],
            )
    content = onnx.load(path)
    _fold_constants(content)
    _declare_outputs(content.graph, model)
    _finish(content, model, path)


def _has_symbolic(name: str) -> bool:
    """Whether the exporter translates an operator, e.g. ``aten::relu``."""
    for opset in range(9, OPSET + 1):
        importlib.import_module(f"{_EXPORTER}.symbolic_opset{opset}")
    return bool(importlib.import_module(f"{_EXPORTER}.registration").registry.is_registered_op(name, OPSET))


def _fold_constants(content: onnx.ModelProto) -> None:
    """Compute what no image changes: the exporter leaves widths of padding as nodes, and shapes after them unknown."""
    optimizer.fold_constants(content, should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None)
    optimizer.remove_unused_nodes(content)


def _declare_outputs(graph: onnx.GraphProto, model: LoadedModel) -> None:
    """Give every output its name and its shape; the exporter does not name an output that no image changes."""
    with torch.inference_mode():
        shapes = [tuple(output.shape) for output in model.module(model.example_input())]
    for value, output, shape in zip(graph.output, model.outputs, shapes, strict=True):
        if value.name != output.name:
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [output.name], f"/{output.name}"))
        value.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))


def quantise(model: LoadedModel, source: Path, scheme: Scheme, samples: Sequence[Array], path: Path) -> None:
    """Write the FP32 file ``source`` to ``path`` by another scheme."""
    if scheme is Scheme.FP16:
        _finish(_halve(onnx.load(source), model), model, path)
        return
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    if scheme is Scheme.STATIC_WI8_AI8:
        _quantise_static(model, prepared, samples, path)
    else:
        outside = _outside(onnx.load(prepared).graph, model)
        quantization.quantize_dynamic(
            prepared, path, weight_type=quantization.QuantType.QUInt8, nodes_to_exclude=outside
        )
    prepared.unlink()
    content = onnx.load(path)
    _store_remaining(content.graph)
    _finish(content, model, path)


def inspect(path: Path) -> Facts:
    """Read back what a file holds."""
    graph = onnx.load(path).graph
    weights: Counter[str] = Counter()
    for tensor in _constants(graph):
        weights[_type_name(tensor.data_type)] += int(np.prod(tensor.dims, dtype=np.int64))
    return Facts(
        weight_types=weights,
        op_types=Counter(node.op_type for node in graph.node if node.op_type != "Constant"),
        inputs={value.name: _shape(value) for value in graph.input},
        outputs={value.name: _shape(value) for value in graph.output},
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in model.outputs]
    return lambda image: tuple(session.run(names, {model.input_name: image}))


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration inputs to the quantiser one at a time."""

    def __init__(self, name: str, samples: Sequence[Array]) -> None:
        self._inputs: Iterator[dict[str, Array]] = ({name: sample} for sample in samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next input, ``None`` at the end."""
        return next(self._inputs, None)


def _quantise_static(model: LoadedModel, source: Path, samples: Sequence[Array], path: Path) -> None:
    """Quantise what has weights; everything else, the decoding above all, stays in float.

    Unsigned activations with signed weights per channel are what ONNX Runtime's documentation advises for CPUs.
    """
    ranges, graph = path.with_suffix(".ranges.json"), onnx.load(source).graph
    quantization.save_tensors_data(_calibrate(model, source, samples), ranges)
    quantization.quantize_static(
        source,
        path,
        calibration_cache_path=ranges,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_QUANTISED,
        nodes_to_exclude=[*_outside(graph, model), *(_trace_back(graph, model.outputs)[1] if model.delicate else ())],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    ranges.unlink()


def _calibrate(model: LoadedModel, source: Path, samples: Sequence[Array]) -> Any:
    """Measure the range of every tensor, one picture at a time."""
    extremes: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        measuring = f"{folder}/measuring.onnx"
        calibrator = quantization.create_calibrator(source, _QUANTISED, measuring)
        calibrator.infer_session = _open_frugally(measuring)
        for sample in samples:
            calibrator.calibrate_tensors_range = None  # else it would join the ranges of all pictures
            calibrator.collect_data(_Reader(model.input_name, [sample]))
            for name, found in calibrator.compute_data().items():
                extremes.setdefault(name, []).append((found.lowest.item(), found.highest.item()))
    ranges = {name: find_range(found, model.delicate) for name, found in extremes.items()}
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(quantization.CalibrationMethod.MinMax, data)


def _open_frugally(path: str) -> onnxruntime.InferenceSession:
    """Open a file that measures its own tensors, so that each is measured as soon as it is there.

    By default ONNX Runtime measures at the end and holds every tensor until then: 3.4 GiB for a U-Net of 512 x 512
    pixels, where this takes 1.1, in the same time.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _trace_back(graph: onnx.GraphProto, outputs: Iterable[Output]) -> tuple[list[str], list[str]]:
    """Names of the nodes between the last weights and some outputs, and of the last nodes with weights."""
    sources = {name: node.input for node in graph.node for name in node.output}
    names = {name: node.name for node in graph.node for name in node.output}
    weighted = {name for node in graph.node if node.op_type in _QUANTISED for name in node.output}
    following, last = trace_back((output.name for output in outputs), sources, weighted)
    return [names[name] for name in following], [names[name] for name in last]


def _outside(graph: onnx.GraphProto, model: LoadedModel) -> list[str]:
    """Names of the nodes that stay in float; torch names a node by the modules that it comes from."""
    if not model.body:
        return []
    return [node.name for node in graph.node if node.name.split("/")[1:2] not in [[child] for child in model.body]]


def _halve(content: onnx.ModelProto, model: LoadedModel) -> onnx.ModelProto:
    exact, _ = _trace_back(content.graph, (output for output in model.outputs if output.exact))
    outside = [*_outside(content.graph, model), *exact]
    halved: Any = OnnxModel(convert_float_to_float16(content, keep_io_types=True, node_block_list=outside))
    # The library casts what a node outside gives to float16, and back for the next: places of boxes would be rounded
    # to half a pixel, and detections appear that the model does not have.
    _skip_halves(halved.model.graph)
    halved.remove_cascaded_cast_nodes()
    halved.remove_useless_cast_nodes()
    halved.topological_sort()  # the casts at the input come last
    content = halved.model
    del content.graph.value_info[:]  # some tell the types of before
    return content


def _skip_halves(graph: onnx.GraphProto) -> None:
    """Let casts of what has been cast to float16 begin with the value before: labels and places are whole numbers."""
    casts = [node for node in graph.node if node.op_type == "Cast"]
    halves = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == onnx.TensorProto.FLOAT16}
    for node in casts:
        node.input[0] = halves.get(node.input[0], node.input[0])
    read = {name for node in graph.node for name in node.input}
    for node in casts:
        if node.output[0] in halves and node.output[0] not in read:
            graph.node.remove(node)


def _store_remaining(graph: onnx.GraphProto) -> None:
    """Store in 8 bits the weights that ONNX Runtime has no integer operator for, as ``_STORED`` lists them.

    Symmetric, one scale per output channel; a runtime turns them to floats when it loads the file.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    for node in list(graph.node):
        for position, axis in _STORED.get(node.op_type, {}).items():
            name = node.input[position] if position < len(node.input) else ""
            if name in weights and len(weights[name].dims) > 1:
                _store_in_8_bits(graph, weights.pop(name), axis)


def _store_in_8_bits(graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int) -> None:
    """Quantise a weight in place, one scale for each index of ``axis``; its name becomes that of the floats."""
    values, name = onnx.numpy_helper.to_array(weight), weight.name
    axis %= values.ndim
    others = tuple(other for other in range(values.ndim) if other != axis)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
    quantized, scale, zero = (f"{name}_{end}" for end in ("quantized", "scale", "zero_point"))
    weight.CopyFrom(onnx.numpy_helper.from_array(np.round(values / scales).astype(np.int8), quantized))
    graph.initializer.append(onnx.numpy_helper.from_array(scales.reshape(-1), scale))
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(scales.size, np.int8), zero))
    graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", [quantized, scale, zero], [name], axis=axis))


def _finish(content: onnx.ModelProto, model: LoadedModel, path: Path) -> None:
    """Attach what a user has to know, drop what only a debugger needs, check and write."""
    for node in content.graph.node:
        node.ClearField("doc_string")
    content.producer_name, content.producer_version = AUTHOR, describe_usage(model)["modelexport_version"]
    content.doc_string = DESCRIPTION
    onnx.helper.set_model_props(content, describe_usage(model))
    onnx.checker.check_model(content, full_check=True)
    onnx.save(content, path)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _type_name(code: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(code))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
