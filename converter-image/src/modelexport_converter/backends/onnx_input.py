"""Changes the input of a finished ONNX file: pixels, with channels last; the network behind it stays the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelexport_converter.backends.onnx import finish
from modelexport_converter.file_input import Array, scale_and_bias
from modelexport_converter.model import LoadedModel

_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def adapt(model: LoadedModel, source: Path, path: Path) -> None:
    """Write the file ``source`` to ``path`` with the input that ``model.options`` ask for."""
    content = onnx.load(source)
    _change_input(content.graph, model)
    finish(content, model, path)


def _change_input(graph: onnx.GraphProto, model: LoadedModel) -> None:
    """Put operators before the first ones of the network, which then reads their result."""
    (taken,) = graph.input
    inner = f"{taken.name}_prepared"
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == taken.name:
                node.input[index] = inner
    nodes, value = [], taken.name
    steps = list(_steps(graph, model))
    for position, (operator, constants, attributes) in enumerate(steps):
        result = inner if position == len(steps) - 1 else f"{taken.name}_{operator.lower()}"
        nodes.append(onnx.helper.make_node(operator, [value, *constants], [result], f"/input/{operator}", **attributes))
        value = result
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    dims = taken.type.tensor_type.shape.dim
    order = _TO_CHANNELS_LAST if model.options.channels_last else range(len(dims))
    shape = [dims[axis].dim_param or dims[axis].dim_value for axis in order]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(model.type_in_file))
    taken.CopyFrom(onnx.helper.make_tensor_value_info(taken.name, kind, shape))


def _steps(graph: onnx.GraphProto, model: LoadedModel) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Yield each operator with its constants and attributes; the numbers follow the order of the channels."""
    if model.type_in_file != "float32":
        yield "Cast", (), {"to": onnx.TensorProto.FLOAT}
    if model.options.channels_last:
        yield "Transpose", (), {"perm": _TO_CHANNELS_FIRST}
    if model.options.takes_pixels:
        scale, bias = (values.reshape(1, -1, 1, 1) for values in scale_and_bias(model))
        yield "Mul", (_constant(graph, "input_scale", scale),), {}
        if bias.any():
            yield "Add", (_constant(graph, "input_bias", bias),), {}


def _constant(graph: onnx.GraphProto, name: str, values: Array) -> str:
    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name
