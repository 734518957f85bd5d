"""A loaded ML program: its inputs and outputs, its contents, and how to run it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from modelexport_converter.compute_device import CPU, on_device
from modelexport_converter.coreml.errors import InputMismatch, ProgramError, UnsupportedOp
from modelexport_converter.coreml.ops import KERNELS
from modelexport_converter.coreml.ops.constexpr import storage_of
from modelexport_converter.coreml.ops.kernel import Value
from modelexport_converter.coreml.reader import MilFunction, Operand, Operation, Variable
from modelexport_converter.coreml.tensors import Array, TensorType, conform, hold, release

Answer = Array | str | Mapping[str, float]
"""An output of a model: a tensor or, for a classifier, the name of the best class or the probability of each class."""
_KINDS = {"float16": "f", "float32": "f", "bool": "b"}


@dataclass(frozen=True)
class Feature:
    """An input or output. A size known only at run time is None in shape; dtype is numpy's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class MLProgram:
    """The `main` function of an ML program. The first run decompresses the weights and keeps them."""

    def __init__(
        self,
        model: str,
        function: MilFunction,
        image_inputs: Mapping[str, str] | None = None,
        specification_version: int = 0,
    ) -> None:
        self.model = model
        self.specification_version = specification_version
        self.image_inputs: Mapping[str, str] = image_inputs or {}
        self._function = function
        self._copies: dict[str, Value] = {}
        self._types = {v.name: v.type for op in function.operations for v in op.outputs}
        self._types |= {v.name: v.type for v in function.inputs}
        if unknown := sorted(set(function.results) - set(self._types)):
            raise ProgramError(f"{model} gives results that it does not compute: {', '.join(unknown)}")

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The inputs of `run`."""
        return tuple(_feature(variable.name, variable.type) for variable in self._function.inputs)

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """The outputs of `run`."""
        return tuple(_feature(name, self._types[name]) for name in self._function.results)

    def op_types(self) -> Counter[str]:
        """Count the ops by type, without constants."""
        return Counter(op.type for op in self._function.operations if op.type != "const")

    def weight_types(self) -> Counter[str]:
        """Count the weights (without scalars) by how they are stored.

        Keys: `float32`, `float16`, for quantised weights the type of the integers (`int8`, `uint4`...), for palettised
        ones `palette` with the bits of an index (`palette8`), for pruned ones `sparse` before the type of the remaining
        values. Counts the elements of the decompressed weight, but no scales, zero points and palettes.
        """
        counts: Counter[str] = Counter()
        for op in self._function.operations:
            storage = storage_of(op)
            if storage is not None:
                counts[storage.label] += storage.elements
        return counts

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Evaluate the program for one set of inputs, by name; a pure function of them.

        An input that is an image is its pixels, 0 to 255, as a float32 tensor (1, channels, height, width): this is how
        Core ML gives it to the program.

        Raises:
            InputMismatch: names, shapes or kinds of number differ from `inputs` (a float input accepts any width of
                float).
            UnsupportedOp: the program has an unknown op; raised before any work.
            ProgramError: an op cannot be computed, or its result contradicts the file.
        """
        expected = {variable.name for variable in self._function.inputs}
        if set(arrays) != expected:
            raise InputMismatch(f"{self.model} takes the inputs {sorted(expected)}, not {sorted(arrays)}")
        with torch.inference_mode():
            given = {v.name: self._admit(v, arrays[v.name]) for v in self._function.inputs}
            constants = self._constants
            return on_device(lambda device: self._run(given, constants, device))

    def _run(
        self, given: Mapping[str, Tensor], constants: Mapping[str, Value], device: torch.device
    ) -> dict[str, Array]:
        values: dict[str, Value] = {name: tensor.to(device) for name, tensor in given.items()}
        values |= constants if device == CPU else self._copy_weights(constants, device)
        for op, last_used in self._schedule:
            values.update(self._evaluate(op, values, device))
            for name in last_used:
                del values[name]
        return {name: _release(values[name], self._types[name]) for name in self._function.results}

    def _admit(self, variable: Variable, array: Array) -> Tensor:
        declared = variable.type
        if array.dtype.kind != _KINDS.get(declared.dtype, "i") or not declared.admits(array.shape):
            raise InputMismatch(
                f"input {variable.name!r} of {self.model} is {declared.dtype} {list(declared.shape)}, "
                f"not {array.dtype} {list(array.shape)}"
            )
        return conform(hold(array), declared)

    def _copy_weights(self, constants: Mapping[str, Value], device: torch.device) -> Mapping[str, Value]:
        """Return constants with the weights on a device; ops read settings, whole or single numbers, on the CPU."""
        if not self._copies:
            tensors = {name: value for name, value in constants.items() if isinstance(value, Tensor)}
            weights = {name: one for name, one in tensors.items() if one.dim() and one.is_floating_point()}
            self._copies = {**constants, **{name: weight.to(device) for name, weight in weights.items()}}
        return self._copies

    @cached_property
    def _constants(self) -> dict[str, Value]:
        """Every constant that an op refers to by name, decompressed."""
        if unknown := sorted(set(self.op_types()) - set(KERNELS)):
            raise UnsupportedOp(", ".join(unknown), self.model)
        values: dict[str, Value] = {}
        for op in self._function.operations:
            if op.type == "const":
                values[op.outputs[0].name] = _load(op.parameters["val"][0], {})
            elif op.type.startswith("constexpr_"):
                values.update(self._evaluate(op, values))
        return values

    @cached_property
    def _schedule(self) -> list[tuple[Operation, list[str]]]:
        """Each op with the values that no later op needs, so that memory is freed as early as possible."""
        needed = set(self._function.results) | set(self._constants)
        steps = [op for op in self._function.operations if op.outputs[0].name not in self._constants]
        schedule: list[tuple[Operation, list[str]]] = []
        for op in reversed(steps):
            references = {operand for group in op.parameters.values() for operand in group if isinstance(operand, str)}
            touched = references | {variable.name for variable in op.outputs}
            schedule.append((op, sorted(touched - needed)))
            needed |= touched
        return schedule[::-1]

    def _evaluate(self, op: Operation, values: Mapping[str, Value], device: torch.device = CPU) -> dict[str, Tensor]:
        parameters = {name: [_load(operand, values) for operand in group] for name, group in op.parameters.items()}
        where = f"op {op.type!r} ({op.outputs[0].name}) of {self.model}"
        try:
            results = KERNELS[op.type](parameters, device)
        except torch.OutOfMemoryError:
            raise  # of a GPU: the CPU computes instead
        except NotImplementedError as error:
            raise UnsupportedOp(op.type, self.model, str(error)) from error
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ProgramError(f"{where} cannot be computed: {error}") from error
        if len(results) != len(op.outputs):
            raise ProgramError(f"{where} gives {len(results)} results, the file declares {len(op.outputs)}")
        try:
            return {v.name: conform(result, v.type) for v, result in zip(op.outputs, results, strict=True)}
        except ProgramError as error:
            raise ProgramError(f"{where} {error}") from error


def _feature(name: str, declared: TensorType) -> Feature:
    return Feature(name, declared.shape, declared.dtype)


def _load(operand: Operand, values: Mapping[str, Value]) -> Value:
    if isinstance(operand, str):
        return values[operand]
    return operand.value if isinstance(operand.value, str) else hold(operand.value)


def _release(value: Value, declared: TensorType) -> Array:
    if isinstance(value, str):
        raise ProgramError("a program cannot return a string")
    return release(value, declared.dtype)
