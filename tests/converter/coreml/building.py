"""Small MIL programs for the tests: built in memory, serialised as coremltools does it, read back by the evaluator."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.backend.mil.load import MILProtoExporter
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from coremltools.converters.mil.mil import types

from modelexport_converter.coreml import MLProgram
from modelexport_converter.coreml.blobs import BlobFile
from modelexport_converter.coreml.library import Model_pb2, coremltools
from modelexport_converter.coreml.reader import read_function

SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
TARGET = coremltools.target
MIL_TYPES = {
    "float32": types.fp32,
    "float16": types.fp16,
    "int32": types.int32,
    "int8": types.int8,
    "uint8": types.uint8,
    "bool": types.bool,
}


@dataclass(frozen=True)
class Case:
    """One behaviour of one op.

    `build` gets one MIL variable per input and returns the program's outputs. `expected` gets the inputs as torch
    tensors and computes the same outputs, where it matters by another method than the evaluator's.
    """

    says: str
    build: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    expected: Callable[..., Any]
    target: Any = TARGET.iOS16
    atol: float = 2e-6


def build_program(build: Callable[..., Any], inputs: tuple[Any, ...], folder: Path, target: Any) -> MLProgram:
    """The program as it is after a round trip through the file formats, without optimisation passes in between.

    Inputs are arrays, of whose shape and dtype the program's inputs will be, or MIL's own specifications.
    """
    specs = [_specify(array) if isinstance(array, np.ndarray) else array for array in inputs]
    mil = mb.program(input_specs=specs, opset_version=target)(build)
    proto = MILProtoExporter(mil, str(folder), target.value).export()
    return MLProgram("case", read_function(proto, lambda name: BlobFile(folder / Path(name).name)))


def _specify(array: np.ndarray) -> Any:
    return mb.TensorSpec(shape=array.shape, dtype=MIL_TYPES[array.dtype.name])


def run(program: MLProgram, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Inputs and outputs in the program's order."""
    names = [feature.name for feature in program.inputs]
    results = program.run(dict(zip(names, inputs, strict=True)))
    return [results[feature.name] for feature in program.outputs]


def edit_specification(package: Path, change: Callable[[Any], None]) -> None:
    """Change the specification of a saved package."""
    model = Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
    change(model)
    (package / SPECIFICATION).write_bytes(model.SerializeToString())


def expect(case: Case) -> list[np.ndarray]:
    """The case's expected outputs."""
    expected = case.expected(*(torch.from_numpy(array) for array in case.inputs))
    group = expected if isinstance(expected, (list, tuple)) else [expected]
    return [np.asarray(item) for item in group]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal fp32 numbers, the same ones each time."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers in [0.1, 1.1)."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32) + np.float32(0.1)


def ramp(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """0, 1, 2..."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def ints(*values: Any) -> np.ndarray:
    """An int32 array."""
    return np.array(values, dtype=np.int32)


def bools(*values: Any) -> np.ndarray:
    """A bool array."""
    return np.array(values, dtype=np.bool_)
