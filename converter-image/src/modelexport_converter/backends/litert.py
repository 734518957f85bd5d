"""LiteRT (``.tflite``): litert-torch converts, ai-edge-quantizer quantises, ai-edge-litert runs."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import Quantizer, qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import CalibrationMode, Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager

from modelexport.matrix import Scheme
from modelexport_converter.backends import Array, Facts, Run
from modelexport_converter.backends.expressing import Expressing, mixes_axis, mixes_rows, pads_output
from modelexport_converter.backends.quiet import no_progress_bars
from modelexport_converter.backends.ranges import find_range, trace_back
from modelexport_converter.backends.splitting import split_large
from modelexport_converter.backends.usage import DESCRIPTION, describe_usage
from modelexport_converter.model import LoadedModel

METADATA = "modelexport"
"""Name of the metadata buffer, which holds one JSON object of texts."""

_SIGNATURE = "serving_default"
_ALL = qtyping.TFLOperationName.ALL_SUPPORTED
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
_AWKWARD: Mapping[str, Callable[..., bool]] = {
    "aten::conv_transpose2d": pads_output,
    "aten::einsum": mixes_axis,
    "aten::matmul": mixes_rows,
}
"""What litert-torch cannot convert, or converts to products whose weights no quantiser takes."""
_FARTHEST = float(np.finfo(np.float16).max)
"""The largest number of half precision. What lies beyond is no quantity but a mask, as of attention: minus infinity is
-3.4e38 in LiteRT. A step of 8 bits would be larger than all else, and LiteRT aborts when it opens such a file."""
_ALIGNMENT = 16
"""Bytes, as TensorFlow Lite's schema asks by ``force_align``, to which flatbuffers does not keep in Python."""


def convert(model: LoadedModel, base: Scheme, path: Path) -> None:
    """Write the model to ``path``, in FP32."""
    assert base is Scheme.FP32
    with warnings.catch_warnings():
        # Python says so of torchao's texts when it first compiles them.
        warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
        import litert_torch  # with jax it takes seconds, and only this step needs it
        from litert_torch._config import config

    config.show_progress = False
    with Expressing(lambda name: True, _AWKWARD):
        converted = litert_torch.convert(split_large(model.module), (model.example_input(),))
    flat = flatbuffer_utils.read_model_from_bytearray(converted.model_content())
    _pad_with_zeros(flat)
    _rename(flat, model)
    _attach_usage(flat, model)
    _write(flat, path)


def quantise(model: LoadedModel, source: Path, scheme: Scheme, samples: Sequence[Array], path: Path) -> None:
    """Write the FP32 file ``source`` to ``path`` by another scheme."""
    quantizer = Quantizer(str(source))
    statistics = None
    if scheme is Scheme.FP16:
        quantizer.update_quantization_recipe(".*", _ALL, _half_weights(), AlgorithmName.FLOAT_CASTING)
    elif scheme is Scheme.STATIC_WI8_AI8:
        ranges = _calibrate(model, source, samples)
        _plan_static(quantizer, flatbuffer_utils.read_model(str(source)), model, ranges)
        statistics = {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in ranges.items()}
    else:
        quantizer.load_quantization_recipe(getattr(recipe, scheme)())
    with no_progress_bars(), warnings.catch_warnings():
        # To see whether the statistics suffice, the quantiser opens the file in a way against which LiteRT advises.
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
        result = quantizer.quantize(statistics, enable_progress_report=False)
    _write(flatbuffer_utils.read_model_from_bytearray(result.quantized_model), path)


def inspect(path: Path) -> Facts:
    """Read back what a file holds."""
    flat = flatbuffer_utils.read_model(str(path))
    graph, signature = flat.subgraphs[0], flat.signatureDefs[0]
    weights: Counter[str] = Counter()
    for tensor in graph.tensors:
        if flat.buffers[tensor.buffer].data is not None:
            weights[_TYPES[tensor.type]] += int(np.prod(tensor.shape))
    return Facts(
        weight_types=weights,
        op_types=Counter(_operator(flat, op) for op in graph.operators),
        inputs={_text(entry.name): _shape(graph, entry.tensorIndex) for entry in signature.inputs},
        outputs={_text(entry.name): _shape(graph, entry.tensorIndex) for entry in signature.outputs},
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into the LiteRT interpreter."""
    interpreter = Interpreter(str(path), num_threads=1)
    runner = interpreter.get_signature_runner(_SIGNATURE)

    def run(image: Array) -> tuple[Array, ...]:
        results = runner(**{model.input_name: image})
        return tuple(results[output.name] for output in model.outputs)

    return run


def _calibrate(model: LoadedModel, source: Path, samples: Sequence[Array]) -> dict[str, tuple[float, float]]:
    """Measure the range of every tensor.

    One picture at a time, by the engine's own minima and maxima, so that no intermediate tensor has to be held. The
    quantiser's default, a moving average over the pictures, depends on their order and cuts rare large values (it cost
    our classifier 5 % top-1 and our segmenter .02 mAP). With two threads a picture takes 1.6 to 1.8 times less, and the
    ranges are the same.
    """
    mode = CalibrationMode.CALIBRATION_PROFILER_BASED
    calibrator = Calibrator(str(source), num_threads=torch.get_num_threads(), mode=mode)
    extremes: dict[str, list[tuple[float, float]]] = {}
    with no_progress_bars():
        for sample in samples:
            calibrator.reset_model_qsvs()
            calibrator.calibrate({_SIGNATURE: [{model.input_name: sample}]}, RecipeManager())
            for name, found in calibrator.get_model_qsvs().items():
                extremes.setdefault(name, []).append((found["min"].item(), found["max"].item()))
    return {name: find_range(found, model.delicate) for name, found in extremes.items()}


def _half_weights() -> Any:
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )


def _plan_static(
    quantizer: Quantizer, flat: Any, model: LoadedModel, ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Quantise everything but input, outputs, masks, and the decoding, whose values need more than 256 steps."""
    quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
    for operation in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    spared = [*_spared(flat, model), *_masked(flat, ranges)]
    names = "|".join(map(re.escape, spared))
    quantizer.update_quantization_recipe(f"^({names});?$", _ALL, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _spared(flat: Any, model: LoadedModel) -> Iterator[str]:
    """Names of the results that stay in float.

    What is inside of an operator, as the sum of a pooling, has no range of its own.

    Without a body, those after the last weights. Of a model with a body, all but those of operators with weights in it:
    with what lies between them in 8 bits, a trained RetinaNet lost its answer. Of a delicate model, those of the last
    weights too.
    """
    graph = flat.subgraphs[0]
    sources = {index: op.inputs for op in graph.operators for index in op.outputs}
    weighted = {index for op in graph.operators if _operator(flat, op) in _WEIGHTED for index in op.outputs}
    spared, last = trace_back(graph.outputs, sources, weighted)
    if model.body:
        # litert-torch tells in the names from which module a result comes.
        inside = re.compile(rf"[^/]*/[^/]*_({'|'.join(model.body)})/")
        spared = {i for i in sources if i not in weighted or not inside.match(_text(graph.tensors[i].name))}
    yield from (_text(graph.tensors[index].name) for index in (spared | last if model.delicate else spared))
    for inner in flat.subgraphs[1:]:
        yield from (_text(inner.tensors[index].name) for op in inner.operators for index in op.outputs)


def _masked(flat: Any, ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Names of the results that reach too far for 8 bits, and of what is computed from them."""
    graph = flat.subgraphs[0]
    names = [_text(tensor.name) for tensor in graph.tensors]
    far = {index for index, name in enumerate(names) if max(map(abs, ranges.get(name, (0,)))) > _FARTHEST}
    for op in graph.operators:
        if far & {*op.inputs, *op.outputs}:
            yield from (names[index] for index in op.outputs)


def _pad_with_zeros(flat: Any) -> None:
    """Pad with zeros what is pooled after a ReLU, which gives the same maxima.

    Pooling pads with the lowest number there is, and no scale of 8 bits reaches from it to the others.
    """
    graph = flat.subgraphs[0]
    producers = {index: op for op in graph.operators for index in op.outputs}
    for op in graph.operators:
        if _operator(flat, op) == "PADV2" and _rectifies(producers.get(op.inputs[0])):
            zero = copy(graph.tensors[op.inputs[2]])
            zero.buffer = len(flat.buffers)
            flat.buffers.append(schema.BufferT(np.zeros(4, np.uint8)))
            op.inputs[2] = len(graph.tensors)
            graph.tensors.append(zero)


def _rectifies(op: Any) -> bool:
    activation = getattr(getattr(op, "builtinOptions", None), "fusedActivationFunction", None)
    return activation in {schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6}


def _rename(flat: Any, model: LoadedModel) -> None:
    """Name input and outputs as in every format; shorten other names, which take a twentieth of an INT8 file."""
    graph, signature = flat.subgraphs[0], flat.signatureDefs[0]
    for index, tensor in enumerate(graph.tensors):
        parts = _text(tensor.name).partition(";")[0].split("/")
        tensor.name = f"{'/'.join(part.rpartition('.')[2] for part in parts)};{index}"
    outputs = sorted(signature.outputs, key=lambda entry: int(_text(entry.name).rpartition("_")[2]))
    names = (model.input_name, *(output.name for output in model.outputs))
    for entry, name in zip((*signature.inputs, *outputs), names, strict=True):
        entry.name = graph.tensors[entry.tensorIndex].name = name


def _attach_usage(flat: Any, model: LoadedModel) -> None:
    flat.description = DESCRIPTION
    text = json.dumps(describe_usage(model), ensure_ascii=False).encode()
    flat.metadata = [*(flat.metadata or ()), schema.MetadataT(METADATA, len(flat.buffers))]
    flat.buffers.append(schema.BufferT(np.frombuffer(text, np.uint8)))


def read_usage(path: Path) -> dict[str, str]:
    """Return what ``convert`` wrote about the use of a file."""
    flat = flatbuffer_utils.read_model(str(path))
    entry = next(entry for entry in flat.metadata if _text(entry.name) == METADATA)
    usage: dict[str, str] = json.loads(bytes(flat.buffers[entry.buffer].data))
    return usage


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose content lies at a multiple of 16 bytes."""

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


def _write(flat: Any, path: Path) -> None:
    flat.buffers = [_AlignedBuffer(buffer.data) for buffer in flat.buffers]
    flatbuffer_utils.write_model(flat, str(path))


def _operator(flat: Any, op: Any) -> str:
    code = flat.operatorCodes[op.opcodeIndex]
    return str(_OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    return tuple(int(size) for size in graph.tensors[index].shape)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
