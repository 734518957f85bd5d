"""Changes the input of a finished LiteRT file: pixels, with channels last; the network behind it stays the same.

Labels are added to it last, since they lie behind the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from modelexport_converter.backends.litert import METADATA, metadata_bytes, operator_of, text_of, write
from modelexport_converter.backends.litert_labels import METADATA as TASK_METADATA
from modelexport_converter.backends.litert_labels import append_labels, describe
from modelexport_converter.file_input import Array, scale_and_bias
from modelexport_converter.model import LoadedModel

_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_TYPES = {"float32": schema.TensorType.FLOAT32, "uint8": schema.TensorType.UINT8}


def adapt(model: LoadedModel, source: Path, path: Path) -> None:
    """Write the file ``source`` to ``path`` with the input that ``model.options`` ask for."""
    flat = flatbuffer_utils.read_model(str(source))
    _Input(flat, model).change()
    entry = next(entry for entry in flat.metadata if text_of(entry.name) == METADATA)
    flat.buffers[entry.buffer].data = metadata_bytes(model)
    if model.options.labels:
        _add_task_metadata(flat, model)
    write(flat, path)
    if model.options.labels:
        append_labels(path, model.class_names)


def _add_task_metadata(flat: Any, model: LoadedModel) -> None:
    outputs = {output.name: output for output in model.outputs}
    names = {entry.tensorIndex: text_of(entry.name) for entry in flat.signatureDefs[0].outputs}
    content = describe(model, [outputs[names[index]] for index in flat.subgraphs[0].outputs])
    flat.metadata.append(schema.MetadataT(TASK_METADATA, len(flat.buffers)))
    flat.buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))


class _Input:
    """The input of a file, before which operators are put."""

    def __init__(self, flat: Any, model: LoadedModel) -> None:
        self._flat, self._graph, self._model = flat, flat.subgraphs[0], model
        self._first: list[Any] = []

    def change(self) -> None:
        """Replace the input tensor, and let the operators that read it read a value computed from the new one."""
        graph, model, last = self._graph, self._model, self._model.options.channels_last
        (old,) = graph.inputs
        graph.tensors[old].name = f"{model.input_name}_prepared"
        shape = model.shape_in_file(channels_last=last)
        taken = self._add_tensor(model.input_name, shape, _TYPES[model.type_in_file])
        value = taken
        if model.type_in_file != "float32":
            options = schema.CastOptionsT(_TYPES[model.type_in_file], schema.TensorType.FLOAT32)
            value = self._apply("CAST", [value], options, shape)
        if model.options.takes_pixels:
            scale, bias = scale_and_bias(model)
            value = self._apply("MUL", [value, self._add_constant("scale", scale)], schema.MulOptionsT(), shape)
            if bias.any():
                value = self._apply("ADD", [value, self._add_constant("bias", bias)], schema.AddOptionsT(), shape)
        self._replace(old, value)
        graph.operators = [*self._first, *graph.operators]
        graph.inputs = [taken]
        (entry,) = self._flat.signatureDefs[0].inputs
        entry.tensorIndex = taken

    def _replace(self, old: int, value: int) -> None:
        """Let the operators that read the old input read a value; the layout that they turn it into may be its own."""
        graph = self._graph
        same = {old: value}
        if self._model.options.channels_last:
            turned = [op for op in graph.operators if op.inputs[0] == old and self._turns_to_channels_last(op)]
            same = {op.outputs[0]: value for op in turned}
            graph.operators = [op for op in graph.operators if not any(op is other for other in turned)]
            if any(old in op.inputs for op in graph.operators):
                shape = self._model.shape_in_file(channels_last=False)
                axes = self._add_constant("axes", np.array(_TO_CHANNELS_FIRST, np.int32))
                same[old] = self._apply("TRANSPOSE", [value, axes], schema.TransposeOptionsT(), shape)
        for op in graph.operators:
            op.inputs = [same.get(index, index) for index in op.inputs]

    def _turns_to_channels_last(self, op: Any) -> bool:
        if operator_of(self._flat, op) != "TRANSPOSE":
            return False
        data = self._flat.buffers[self._graph.tensors[op.inputs[1]].buffer].data
        return data is not None and tuple(np.frombuffer(bytes(data), np.int32)) == _TO_CHANNELS_LAST

    def _apply(self, name: str, inputs: list[int], options: Any, shape: tuple[int, ...]) -> int:
        """Add an operator, and return the tensor of its result."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code(name)
        op.inputs, op.outputs = inputs, [self._add_tensor(f"input_{name.lower()}", shape, schema.TensorType.FLOAT32)]
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
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, 1
            codes.append(code)
        return known[0] if known else len(codes) - 1

    def _add_constant(self, name: str, values: Array | Any) -> int:
        """Add a constant per channel, (channels,), in the shape that broadcasts over the layout; or plain numbers."""
        shape = values.shape
        if values.dtype == np.float32 and not self._model.options.channels_last:
            shape = (1, values.size, 1, 1)
        kind = schema.TensorType.FLOAT32 if values.dtype == np.float32 else schema.TensorType.INT32
        index = self._add_tensor(f"input_{name}", shape, kind)
        self._graph.tensors[index].buffer = len(self._flat.buffers)
        self._flat.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
        return index

    def _add_tensor(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1
