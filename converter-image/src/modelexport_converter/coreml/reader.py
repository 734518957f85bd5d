"""Converts the MIL protobuf to plain dataclasses, so that no other module depends on protobuf."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelexport_converter.coreml.blobs import BlobFile, decode
from modelexport_converter.coreml.errors import ProgramError
from modelexport_converter.coreml.library import MIL_pb2
from modelexport_converter.coreml.tensors import Array, TensorType

BlobOpener = Callable[[str], BlobFile]
CLASSIFY = "classify"
"""The op that names the classes; it can only be the last one."""


@dataclass(frozen=True)
class Constant:
    """A value stored in the program: a str for strings, else an array."""

    dtype: str
    value: Array | str


@dataclass(frozen=True)
class Variable:
    """A named value that a function takes or an op produces."""

    name: str
    type: TensorType


Operand = Constant | str
"""An operand of an op: a constant, or the name of a variable."""


@dataclass(frozen=True)
class Operation:
    """One op. Parameters are tuples because some (the values of `concat`) take several operands."""

    type: str
    parameters: dict[str, tuple[Operand, ...]]
    outputs: tuple[Variable, ...]


@dataclass(frozen=True)
class Naming:
    """The op ``classify``: the name of the probabilities, the classes in their order, and its two outputs."""

    probabilities: str
    classes: tuple[str, ...]
    label: str
    by_name: str


@dataclass(frozen=True)
class MilFunction:
    """The straight-line program: inputs, ops in order of execution, names of the results.

    ``naming`` is the last op of a classifier, which is not among the ops; the results have its probabilities instead.
    """

    inputs: tuple[Variable, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]
    naming: Naming | None = None


def read_function(program: Any, open_blobs: BlobOpener) -> MilFunction:
    """Read the `main` function of a MIL_pb2.Program.

    Raises:
        ProgramError: the program has no `main` function, or types other than tensors.
    """
    if "main" not in program.functions:
        raise ProgramError(f"the program has no function 'main', but {sorted(program.functions)}")
    function = program.functions["main"]
    if function.opset not in function.block_specializations:
        raise ProgramError(f"the program has no block for its opset {function.opset!r}")
    block = function.block_specializations[function.opset]
    operations, results, naming = list(block.operations), tuple(block.outputs), None
    if operations and operations[-1].type == CLASSIFY:
        naming = _read_naming(operations.pop())
        others = (name for name in results if name not in (naming.label, naming.by_name))
        results = tuple(dict.fromkeys((naming.probabilities, *others)))
    return MilFunction(
        inputs=tuple(_read_variable(named) for named in function.inputs),
        operations=tuple(_read_operation(op, open_blobs) for op in operations),
        results=results,
        naming=naming,
    )


def _read_naming(op: Any) -> Naming:
    bindings = [op.inputs[name].arguments[0] for name in ("probabilities", "classes") if op.inputs[name].arguments]
    if len(bindings) != 2 or len(op.outputs) != 2 or bindings[0].WhichOneof("binding") != "name":
        raise ProgramError(f"op {CLASSIFY!r} has not the form of a classifier")
    listed = bindings[1].value.immediateValue.list.values
    texts = [list(value.immediateValue.tensor.strings.values) for value in listed]
    if any(len(text) != 1 for text in texts):
        raise ProgramError(f"op {CLASSIFY!r} has classes that are no texts")
    classes = tuple(str(text) for (text,) in texts)
    return Naming(bindings[0].name, classes, op.outputs[0].name, op.outputs[1].name)


def _read_operation(op: Any, open_blobs: BlobOpener) -> Operation:
    if op.blocks:
        raise ProgramError(f"op {op.type!r} has nested blocks: control flow cannot be evaluated")
    attributes = {name: (_read_value(value, open_blobs),) for name, value in op.attributes.items() if name != "name"}
    inputs = {
        name: tuple(_read_binding(binding, open_blobs) for binding in argument.arguments)
        for name, argument in op.inputs.items()
    }
    return Operation(op.type, attributes | inputs, tuple(_read_variable(named) for named in op.outputs))


def _read_binding(binding: Any, open_blobs: BlobOpener) -> Operand:
    if binding.WhichOneof("binding") == "name":
        return str(binding.name)
    return _read_value(binding.value, open_blobs)


def _read_variable(named: Any) -> Variable:
    return Variable(named.name, _read_type(named.type, named.name))


def _read_type(value_type: Any, name: str) -> TensorType:
    kind = value_type.WhichOneof("type")
    if kind != "tensorType":
        raise ProgramError(f"{name!r} is a {kind}: only tensors can be evaluated")
    tensor = value_type.tensorType
    sizes = (d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return TensorType(MIL_pb2.DataType.Name(tensor.dataType).lower(), tuple(sizes))


def _read_value(value: Any, open_blobs: BlobOpener) -> Constant:
    declared = _read_type(value.type, "a constant")
    shape = tuple(size for size in declared.shape if size is not None)
    if len(shape) != len(declared.shape):
        raise ProgramError(f"a constant has the open shape {list(declared.shape)}")
    if value.WhichOneof("value") == "blobFileValue":
        blob = value.blobFileValue
        return Constant(declared.dtype, open_blobs(blob.fileName).read(blob.offset, declared.dtype, shape))
    return Constant(declared.dtype, _read_immediate(value.immediateValue, declared.dtype, shape))


def _read_immediate(immediate: Any, dtype: str, shape: tuple[int, ...]) -> Array | str:
    if immediate.WhichOneof("value") != "tensor":
        raise ProgramError(f"a constant is a {immediate.WhichOneof('value')}: only tensors can be evaluated")
    field = immediate.tensor.WhichOneof("value")
    values = getattr(immediate.tensor, field).values
    if field == "strings":
        return str(values[0])
    if field == "bytes":
        return decode(np.frombuffer(values, np.uint8), dtype, shape)
    return np.array(values, dtype=dtype).reshape(shape)
