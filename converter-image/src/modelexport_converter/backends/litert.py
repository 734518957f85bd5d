"""LiteRT (``.tflite``): litert-torch converts, ai-edge-quantizer quantises, ai-edge-litert runs."""

import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import Quantizer, qtyping
from ai_edge_quantizer import recipe as aeq_recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import CalibrationMode, Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager

from modelexport.logs import announce
from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends.activation_ranges import (
    Budget,
    CalibrationMemo,
    Provide,
    pick_float_layers,
    trace_to_weights,
)
from modelexport_converter.backends.conv_splitting import split_large_convolutions
from modelexport_converter.backends.decompositions import DecompositionMode, mixes_axis, mixes_rows, pads_output
from modelexport_converter.backends.file_metadata import DESCRIPTION, file_metadata_of
from modelexport_converter.backends.litert_labels import METADATA as TASK_METADATA
from modelexport_converter.backends.litert_labels import read_labels
from modelexport_converter.backends.noise_budget import measure_outputs, plan_ranges
from modelexport_converter.backends.quiet import no_progress_bars
from modelexport_converter.backends.small_layers import Layer, pick_small_layers
from modelexport_converter.file_input import Scale, feed, fill_batch
from modelexport_converter.model import LoadedModel
from modelexport_converter.runtime.quick_imports import quick_imports

METADATA = "modelexport"
"""Name of the metadata buffer, which holds one JSON object of texts."""

_SIGNATURE = "serving_default"
_ALL = qtyping.TFLOperationName.ALL_SUPPORTED
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_RECTIFIERS = {schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
_ACTIVATIONS = {"HARD_SWISH", "LOGISTIC", "MUL"}
"""Operators of activations that LiteRT does not fuse; SiLU is a product with a logistic function."""
_UNSUPPORTED = {"aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa", "aten::col2im"}
"""Operators that litert-torch does not convert, or converts to operators that LiteRT cannot run."""
_UNSUPPORTED_CALLS: Mapping[str, Callable[..., bool]] = {
    "aten::conv_transpose2d": pads_output,
    "aten::einsum": mixes_axis,
    "aten::matmul": mixes_rows,
}
"""Calls that litert-torch cannot convert, or converts to products whose weights no quantiser takes."""
_MOST_OPERATIONS = 0.05
"""The share of all operations in small layers that stay in float, where LiteRT takes up to twice the time for them."""
_FP16_MAX = float(np.finfo(np.float16).max)
"""The largest FP16 number.

Larger values are masks, as in attention (minus infinity is -3.4e38 in LiteRT), not quantities. An 8-bit step would
exceed all other values, and LiteRT aborts when it opens such a file.
"""
_ALIGNMENT = 16
"""Alignment in bytes that TensorFlow Lite's schema requires (``force_align``); flatbuffers ignores it in Python."""


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``, in FP32."""
    assert base is Recipe.FP32
    with quick_imports(), warnings.catch_warnings():
        # Python warns of torchao's strings when it first compiles them.
        warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
        import litert_torch  # imports jax, which takes seconds; only this step needs it
        from litert_torch._config import config

    config.show_progress = False
    with DecompositionMode(lambda name: name not in _UNSUPPORTED, _UNSUPPORTED_CALLS):
        converted = litert_torch.convert(split_large_convolutions(model.module), (model.captured_input(),))
    flat = flatbuffer_utils.read_model_from_bytearray(converted.model_content())
    _pad_with_zeros(flat)
    _rename(flat, model)
    flat.description = DESCRIPTION
    flat.metadata = [*(flat.metadata or ()), schema.MetadataT(METADATA, len(flat.buffers))]
    flat.buffers.append(schema.BufferT(metadata_bytes(model)))
    write(flat, path)


def metadata_bytes(model: LoadedModel, scale: Scale | None = None) -> Any:
    """Return the content of the metadata buffer; ``scale`` is that of an input of quantised values."""
    return np.frombuffer(json.dumps(file_metadata_of(model, scale=scale), ensure_ascii=False).encode(), np.uint8)


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
    quantizer, statistics, float_layers = Quantizer(str(source)), None, dict[str, float]()
    if recipe is Recipe.FP16:
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        fp16 = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        )
        quantizer.update_quantization_recipe(".*", _ALL, fp16, AlgorithmName.FLOAT_CASTING)
    elif recipe.needs_calibration:
        flat = flatbuffer_utils.read_model(str(source))
        calibrate = partial(_calibrate, model, source, samples, flat=flat, recipe=recipe)
        budget = (memo or CalibrationMemo()).recall(calibrate)
        quantizer.load_quantization_recipe(getattr(aeq_recipe, recipe)())
        float_layers = _plan_static(quantizer, flat, model, budget, max_float_layers)
        limits = budget.ranges.items()
        statistics = {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in limits}
    else:
        quantizer.load_quantization_recipe(getattr(aeq_recipe, recipe)())
    with no_progress_bars(), warnings.catch_warnings():
        # To check the statistics, the quantiser opens the file with an option that LiteRT warns about.
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
        result = quantizer.quantize(statistics, enable_progress_report=False)
    write(flatbuffer_utils.read_model_from_bytearray(result.quantized_model), path)
    return float_layers


def inspect(path: Path) -> FileContents:
    """Read back the contents of a file."""
    flat = flatbuffer_utils.read_model(str(path))
    graph, signature = flat.subgraphs[0], flat.signatureDefs[0]
    described = any(text_of(entry.name) == TASK_METADATA for entry in flat.metadata or ())
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    for tensor in graph.tensors:
        if flat.buffers[tensor.buffer].data is not None:
            weights[_TYPES[tensor.type]] += int(np.prod(tensor.shape))
        elif tensor.quantization is not None and tensor.quantization.scale is not None:
            activations[_TYPES[tensor.type]] += 1
    return FileContents(
        weight_types=weights,
        op_types=Counter(operator_of(flat, op) for op in graph.operators),
        inputs={text_of(entry.name): _shape(graph, entry.tensorIndex) for entry in signature.inputs},
        outputs={text_of(entry.name): _shape(graph, entry.tensorIndex) for entry in signature.outputs},
        input_types={text_of(entry.name): _TYPES[graph.tensors[entry.tensorIndex].type] for entry in signature.inputs},
        labels=read_labels(path) if described else (),
        input_scales={
            text_of(entry.name): scale_of(tensor)
            for entry in signature.inputs
            if (tensor := graph.tensors[entry.tensorIndex]).type == schema.TensorType.INT8
        },
        activation_types=activations,
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into the LiteRT interpreter."""
    interpreter = Interpreter(str(path), num_threads=1)
    runner = interpreter.get_signature_runner(_SIGNATURE)

    def run(image: Any) -> tuple[Array, ...]:
        results = runner(**{model.input_name: image})
        return tuple(results[output.name] for output in model.outputs)

    (taken,) = interpreter.get_input_details()
    scale, zero = taken["quantization"]
    return feed(run, model, (scale, zero) if taken["dtype"] is np.int8 else None)


def _calibrate(
    model: LoadedModel, source: Path, samples: Sequence[Array], provide: Provide | None, *, flat: Any, recipe: Recipe
) -> Budget:
    """Measure the extremes of every tensor of a file, whose contents are ``flat``, and choose its range.

    Runs one image at a time and uses the runtime's own minima and maxima, so no intermediate tensor is held. The
    quantiser's default, a moving average over the images, depends on their order and cuts rare large values (it cost
    our classifier 5 % top-1 and our segmenter .02 mAP). With two threads an image takes 1.6 to 1.8 times less, and the
    ranges are the same.
    """
    mode = CalibrationMode.CALIBRATION_PROFILER_BASED
    calibrator = Calibrator(str(source), num_threads=torch.get_num_threads(), mode=mode)
    extremes: dict[str, list[tuple[float, float]]] = {}
    with no_progress_bars():
        for sample in samples:
            calibrator.reset_model_qsvs()
            calibrator.calibrate({_SIGNATURE: [{model.input_name: fill_batch(model, sample)}]}, RecipeManager())
            for name, found in calibrator.get_model_qsvs().items():
                extremes.setdefault(name, []).append((found["min"].item(), found["max"].item()))
    budget = plan_ranges(model, samples, extremes, recipe.activation_bits, provide)
    results = {text_of(flat.subgraphs[0].tensors[op.outputs[0]].name) for op in flat.subgraphs[0].operators}
    rounded = results.difference(_float_tensors(flat, model), _out_of_range(flat, budget.ranges))
    return replace(budget, by_output=measure_outputs(model, samples, extremes, budget, rounded))


def _plan_static(
    quantizer: Quantizer, flat: Any, model: LoadedModel, budget: Budget, max_float_layers: int
) -> dict[str, float]:
    """Quantise everything except input, outputs, masks, and the decoding, whose values need more than 256 steps.

    Small layers before the decoding that cause much of the noise stay in float with it.

    Returns:
        The layers that stay in float because their noise is the largest, with their shares of it.
    """
    for operation in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    kept = [*_float_tensors(flat, model), *_out_of_range(flat, budget.ranges)]
    layers = _layers(flat, kept)
    small = pick_small_layers(budget.by_output, _describe_layers(flat, layers, kept), _MOST_OPERATIONS)
    announce("small layers in float", layers=len(small))
    kept += [text_of(flat.subgraphs[0].tensors[op.outputs[0]].name) for name in small for op in layers.pop(name)]
    float_layers = pick_float_layers(budget.noise, _tensors_of(flat, layers, kept), max_float_layers)
    kept += [text_of(flat.subgraphs[0].tensors[op.outputs[0]].name) for name in float_layers for op in layers[name]]
    names = "|".join(map(re.escape, kept))
    quantizer.update_quantization_recipe(f"^({names});?$", _ALL, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return float_layers


def _layers(flat: Any, kept: Collection[str]) -> dict[str, list[Any]]:
    """Return each operator with weights in 8 bits and the activation after it, by the name of its result."""
    graph = flat.subgraphs[0]
    constants = {index for index, t in enumerate(graph.tensors) if flat.buffers[t.buffer].data is not None}
    layers = {}
    for op in graph.operators:
        name = text_of(graph.tensors[op.outputs[0]].name)
        if operator_of(flat, op) in _WEIGHTED and name not in kept:
            members, inner = [op], {*constants, op.outputs[0]}
            for other in graph.operators:
                if operator_of(flat, other) in _ACTIVATIONS and inner.issuperset(other.inputs):
                    members.append(other)
                    inner.update(other.outputs)
            layers[name] = members
    return layers


def _tensors_of(flat: Any, layers: Mapping[str, Sequence[Any]], kept: Collection[str]) -> dict[str, set[str]]:
    """Return the tensors that are in 8 bits because of layers alone: those that a layer reads, and its results."""
    graph = flat.subgraphs[0]
    names = [text_of(tensor.name) for tensor in graph.tensors]
    inside = {op.outputs[0] for members in layers.values() for op in members}
    others = [op for op in graph.operators if op.outputs[0] not in inside and names[op.outputs[0]] not in kept]
    held = {names[index] for op in others for index in (*op.inputs, *op.outputs) if index >= 0}
    return {
        name: {names[index] for op in members for index in (*op.inputs, *op.outputs) if index >= 0} - held
        for name, members in layers.items()
    }


def _describe_layers(flat: Any, layers: Mapping[str, Sequence[Any]], kept: Collection[str]) -> dict[str, Layer]:
    """Describe layers, by name; the largest constant that an operator reads holds its weights."""
    graph, readers = flat.subgraphs[0], defaultdict[str, set[str]](set)
    names = [text_of(tensor.name) for tensor in graph.tensors]
    for op in graph.operators:
        for index in op.inputs:
            if index >= 0:
                readers[names[index]].add(names[op.outputs[0]])
    described = {}
    for name, members in layers.items():
        results = {names[op.outputs[0]] for op in members}
        read = [graph.tensors[index] for index in members[0].inputs if index >= 0]
        constants = [tensor for tensor in read if flat.buffers[tensor.buffer].data is not None]
        weights = max((int(np.prod(tensor.shape)) for tensor in constants), default=1)
        places = int(np.prod(graph.tensors[members[0].outputs[0]].shape[:-1]))
        reading = {reader for result in results for reader in readers[result]} - results - {*kept}
        described[name] = Layer(results, reading, weights, weights * places)
    return described


def _float_tensors(flat: Any, model: LoadedModel) -> Iterator[str]:
    """Yield the names of the results that stay in float.

    Without ``low_precision_modules``, those after the last weights. With them, all except the results of weighted
    operators inside: with the operators between them in 8 bits, a trained RetinaNet found nothing. If the model is
    ``int8_sensitive``, those of the last weights too. Tensors inside an operator, such as the sum of a pooling, have no
    range of their own.
    """
    graph = flat.subgraphs[0]
    sources = {index: op.inputs for op in graph.operators for index in op.outputs}
    weighted = {index for op in graph.operators if operator_of(flat, op) in _WEIGHTED for index in op.outputs}
    kept, last = trace_to_weights(graph.outputs, sources, weighted)
    if model.low_precision_modules:
        # litert-torch puts the module of a result into its name.
        inside = re.compile(rf"[^/]*/[^/]*_({'|'.join(model.low_precision_modules)})/")
        kept = {i for i in sources if i not in weighted or not inside.match(text_of(graph.tensors[i].name))}
    yield from (text_of(graph.tensors[index].name) for index in (kept | last if model.int8_sensitive else kept))
    for inner in flat.subgraphs[1:]:
        yield from (text_of(inner.tensors[index].name) for op in inner.operators for index in op.outputs)


def _out_of_range(flat: Any, ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield the names of the results that exceed FP16, and of the results computed from them."""
    graph = flat.subgraphs[0]
    names = [text_of(tensor.name) for tensor in graph.tensors]
    far = {index for index, name in enumerate(names) if max(map(abs, ranges.get(name, (0,)))) > _FP16_MAX}
    for op in graph.operators:
        if far & {*op.inputs, *op.outputs}:
            yield from (names[index] for index in op.outputs)


def _pad_with_zeros(flat: Any) -> None:
    """Pad with zeros before a pooling after a ReLU, which gives the same maxima.

    Pooling pads with the lowest float, and no 8-bit scale covers both that and the other values.
    """
    graph = flat.subgraphs[0]
    producers = {index: op for op in graph.operators for index in op.outputs}
    for op in graph.operators:
        options = getattr(producers.get(op.inputs[0]), "builtinOptions", None)
        if operator_of(flat, op) == "PADV2" and getattr(options, "fusedActivationFunction", None) in _RECTIFIERS:
            zero = copy(graph.tensors[op.inputs[2]])
            zero.buffer = len(flat.buffers)
            flat.buffers.append(schema.BufferT(np.zeros(4, np.uint8)))
            op.inputs[2] = len(graph.tensors)
            graph.tensors.append(zero)


def _rename(flat: Any, model: LoadedModel) -> None:
    """Name input and outputs as in every format; shorten other names, which take a twentieth of an INT8 file."""
    graph, signature = flat.subgraphs[0], flat.signatureDefs[0]
    for index, tensor in enumerate(graph.tensors):
        parts = text_of(tensor.name).partition(";")[0].split("/")
        tensor.name = f"{'/'.join(part.rpartition('.')[2] for part in parts)};{index}"
    outputs = sorted(signature.outputs, key=lambda entry: int(text_of(entry.name).rpartition("_")[2]))
    names = (model.input_name, *(output.name for output in model.outputs))
    for entry, name in zip((*signature.inputs, *outputs), names, strict=True):
        entry.name = graph.tensors[entry.tensorIndex].name = name


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that ``convert`` wrote into a file."""
    flat = flatbuffer_utils.read_model(str(path))
    entry = next(entry for entry in flat.metadata if text_of(entry.name) == METADATA)
    file_metadata: dict[str, str] = json.loads(bytes(flat.buffers[entry.buffer].data))
    return file_metadata


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose content is aligned to 16 bytes."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (flatbuffers' name)
        """Write the content and the table that points to it."""
        content = None if self.data is None else bytes(memoryview(self.data))
        if content is not None:
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if content is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def write(flat: Any, path: Path) -> None:
    """Write a file with aligned buffers."""
    flat.buffers = [_AlignedBuffer(buffer.data) for buffer in flat.buffers]
    flatbuffer_utils.write_model(flat, str(path))


def scale_of(tensor: Any) -> Scale:
    """Return scale and zero point of a tensor that has one of each."""
    (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint
    return float(scale), int(zero)


def operator_of(flat: Any, op: Any) -> str:
    """Return the name of an operator, such as ``CONV_2D``."""
    code = flat.operatorCodes[op.opcodeIndex]
    return str(_OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    return tuple(int(size) for size in graph.tensors[index].shape)


def text_of(name: bytes | str) -> str:
    """Return a name, which is bytes in a file that was read."""
    return name.decode() if isinstance(name, bytes) else name
