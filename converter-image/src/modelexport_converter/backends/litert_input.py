"""Changes the input of a finished LiteRT file: pixels, with channels last; the network behind it stays the same.

Labels are added to it last, since they lie behind the file.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from modelexport_converter.backends.litert import METADATA, metadata_bytes, operator_of, scale_of, text_of, write
from modelexport_converter.backends.litert_labels import METADATA as TASK_METADATA
from modelexport_converter.backends.litert_labels import append_labels, describe
from modelexport_converter.file_input import Scale, scale_and_bias, scale_of_pixels
from modelexport_converter.model import LoadedModel

_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_FLOAT, _INT8, _UINT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.UINT8
_TYPES = {"float32": _FLOAT, "int8": _INT8, "uint8": _UINT8}
_NUMBERS = {np.dtype(np.float32): _FLOAT, np.dtype(np.int8): _INT8, np.dtype(np.int32): schema.TensorType.INT32}
_VERSIONS = {"DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2}
"""Versions of operators on int8; all others are of version 1."""
_PIXELS, _SHIFTED_PIXELS = (1.0, 0), (1.0, -128)
"""Scales of pixels as uint8 and as int8."""
_LARGEST = 127


def adapt(model: LoadedModel, source: Path, path: Path) -> None:
    """Write the file ``source`` to ``path`` with the input that ``model.options`` ask for."""
    flat = flatbuffer_utils.read_model(str(source))
    taken = _Input(flat, model).change()
    scale = scale_of(taken) if taken.type == schema.TensorType.INT8 else None
    entry = next(entry for entry in flat.metadata if text_of(entry.name) == METADATA)
    flat.buffers[entry.buffer].data = metadata_bytes(model, scale)
    if model.options.labels:
        outputs = {output.name: output for output in model.outputs}
        names = {entry.tensorIndex: text_of(entry.name) for entry in flat.signatureDefs[0].outputs}
        content = describe(model, [outputs[names[index]] for index in flat.subgraphs[0].outputs])
        flat.metadata.append(schema.MetadataT(TASK_METADATA, len(flat.buffers)))
        flat.buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))
    write(flat, path)
    if model.options.labels:
        append_labels(path, model.class_names)


class _Input:
    """The input of a file, before which operators are put."""

    def __init__(self, flat: Any, model: LoadedModel) -> None:
        self._flat, self._graph, self._model = flat, flat.subgraphs[0], model
        self._last = model.options.channels_last
        self._first: list[Any] = []

    def change(self) -> Any:
        """Replace the input tensor, let the operators that read it read a value computed from the new one; return it.

        In a file that quantises its input first, whole numbers stay whole numbers up to the first layer.

        Raises:
            ValueError: quantised values are asked for, and the file has none.
        """
        graph, model = self._graph, self._model
        (old,) = graph.inputs
        graph.tensors[old].name = f"{model.input_name}_prepared"
        quantises = [op for op in graph.operators if operator_of(self._flat, op) == "QUANTIZE"]
        quantised = [int(op.outputs[0]) for op in quantises if op.inputs[0] == old]
        # A tensor has one range, so that all of these have one scale; 16-bit values are quantised from float pixels.
        whole = quantised and graph.tensors[quantised[0]].type == _INT8
        scale = scale_of(graph.tensors[quantised[0]]) if whole else None
        if model.type_in_file == "int8":
            if not quantises:
                raise ValueError("the file quantises no activation")
            taken = self._take(scale or scale_of_pixels(model))
            self._replace_quantised(old, quantised, taken, last=self._last)
        elif model.type_in_file == "uint8" and scale:
            taken = self._take(_PIXELS)
            self._replace_quantised(old, quantised, self._normalise_whole_numbers(taken, scale), last=True)
        else:
            taken = value = self._take()
            shape = model.shape_in_file(channels_last=self._last)
            if model.type_in_file != "float32":
                value = self._apply("CAST", [value], schema.CastOptionsT(_TYPES[model.type_in_file], _FLOAT), shape)
            if model.options.takes_pixels:
                factor, bias = scale_and_bias(model)
                value = self._apply("MUL", [value, self._add_constant("scale", factor)], schema.MulOptionsT(), shape)
                if bias.any():
                    value = self._apply("ADD", [value, self._add_constant("bias", bias)], schema.AddOptionsT(), shape)
            self._replace(old, value, last=self._last)
        graph.operators = [*self._first, *graph.operators]
        graph.inputs = [taken]
        (entry,) = self._flat.signatureDefs[0].inputs
        entry.tensorIndex = taken
        return graph.tensors[taken]

    def _take(self, scale: Scale | None = None) -> int:
        model = self._model
        shape = model.shape_in_file(channels_last=self._last)
        return self._add_tensor(model.input_name, shape, _TYPES[model.type_in_file], scale)

    def _normalise_whole_numbers(self, pixels: int, scale: Scale) -> int:
        """Return pixels as the values that the network quantises them to, with channels last.

        A depthwise convolution of one pixel has a scale for each channel, so that its weights can all be 127 and its
        products are exact; its bias is in steps of 1/127 of a pixel.
        """
        model = self._model
        shape = model.shape_in_file(channels_last=self._last)
        value = self._apply("QUANTIZE", [pixels], schema.QuantizeOptionsT(), shape, kind=_INT8, scale=_SHIFTED_PIXELS)
        if not self._last:
            value = self._transpose(value, _TO_CHANNELS_LAST, last=True)
        factor, bias = (values.astype(np.float64) for values in scale_and_bias(model))
        steps = factor / _LARGEST
        weights = self._add_constant("scale", np.full((1, 1, 1, len(steps)), _LARGEST, np.int8), steps)
        shifts = self._add_constant("bias", np.rint(bias / steps).astype(np.int32), steps)
        options = schema.DepthwiseConv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1)
        shape = model.shape_in_file(channels_last=True)
        return self._apply("DEPTHWISE_CONV_2D", [value, weights, shifts], options, shape, kind=_INT8, scale=scale)

    def _replace_quantised(self, old: int, quantised: Collection[int], value: int, *, last: bool) -> None:
        """Let operators read a value in whole numbers; those that read the old input in float get it dequantised."""
        graph = self._graph
        graph.operators = [op for op in graph.operators if op.outputs[0] not in quantised]
        for index in quantised:
            self._replace(index, value, last=last)
        if any(old in op.inputs for op in graph.operators):
            shape = self._model.shape_in_file(channels_last=last)
            self._replace(old, self._apply("DEQUANTIZE", [value], schema.DequantizeOptionsT(), shape), last=last)

    def _replace(self, old: int, value: int, *, last: bool) -> None:
        """Let the operators that read the old input read a value; the layout that they turn it into may be its own."""
        graph = self._graph
        same = {old: value}
        if last:
            turned = [op for op in graph.operators if op.inputs[0] == old and self._turns_to_channels_last(op)]
            same = {op.outputs[0]: value for op in turned}
            graph.operators = [op for op in graph.operators if not any(op is other for other in turned)]
            if any(old in op.inputs for op in graph.operators):
                same[old] = self._transpose(value, _TO_CHANNELS_FIRST, last=False)
        for op in graph.operators:
            op.inputs = [same.get(index, index) for index in op.inputs]

    def _turns_to_channels_last(self, op: Any) -> bool:
        if operator_of(self._flat, op) != "TRANSPOSE":
            return False
        data = self._flat.buffers[self._graph.tensors[op.inputs[1]].buffer].data
        return data is not None and tuple(np.frombuffer(bytes(data), np.int32)) == _TO_CHANNELS_LAST

    def _transpose(self, value: int, axes: tuple[int, ...], *, last: bool) -> int:
        tensor, constant = self._graph.tensors[value], self._add_constant("axes", np.array(axes, np.int32))
        shape = self._model.shape_in_file(channels_last=last)
        scale = None if tensor.type == _FLOAT else scale_of(tensor)
        return self._apply(
            "TRANSPOSE", [value, constant], schema.TransposeOptionsT(), shape, kind=tensor.type, scale=scale
        )

    def _apply(
        self,
        name: str,
        inputs: list[int],
        options: Any,
        shape: tuple[int, ...],
        *,
        kind: int = _FLOAT,
        scale: Scale | None = None,
    ) -> int:
        """Add an operator, and return the tensor of its result."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code(name)
        op.inputs, op.outputs = inputs, [self._add_tensor(f"input_{name.lower()}", shape, kind, scale)]
        op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        op.builtinOptions = options
        self._first.append(op)
        return int(op.outputs[0])

    def _code(self, name: str) -> int:
        number, codes = getattr(schema.BuiltinOperator, name), self._flat.operatorCodes
        known = [
            index for index, code in enumerate(codes) if max(code.builtinCode, code.deprecatedBuiltinCode) == number
        ]
        if not known:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, _VERSIONS.get(name, 1)
            codes.append(code)
        return known[0] if known else len(codes) - 1

    def _add_constant(self, name: str, values: Any, scales: Any = None) -> int:
        """Add a constant; float32 is one per channel, (channels,), in the shape that broadcasts over the layout.

        ``scales`` are those of the last axis of whole numbers.
        """
        shape = values.shape
        if values.dtype == np.float32 and not self._last:
            shape = (1, values.size, 1, 1)
        index = self._add_tensor(f"input_{name}", shape, _NUMBERS[values.dtype])
        if scales is not None:
            self._graph.tensors[index].quantization = schema.QuantizationParametersT(
                scale=scales.astype(np.float32),
                zeroPoint=np.zeros(len(scales), np.int64),
                quantizedDimension=values.ndim - 1,
            )
        self._graph.tensors[index].buffer = len(self._flat.buffers)
        self._flat.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
        return index

    def _add_tensor(self, name: str, shape: tuple[int, ...], kind: int, scale: Scale | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT(scale=[scale[0]], zeroPoint=[scale[1]])
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1
