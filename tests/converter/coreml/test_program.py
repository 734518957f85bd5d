"""Running a program: rounding, types, memory, and errors that name the fault."""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from coremltools.converters.mil.mil import get_new_symbol

from converter.coreml.building import TARGET, build_program, ints, normal, run
from converter.pretended_device import DEVICE, pretended_device
from modelexport_converter.compute_device import CPU
from modelexport_converter.coreml import Feature, InputMismatch, MLProgram, ProgramError, UnsupportedOp
from modelexport_converter.coreml.ops import KERNELS
from modelexport_converter.coreml.ops.kernel import Parameters
from modelexport_converter.coreml.reader import Constant, MilFunction, Operation, Variable
from modelexport_converter.coreml.tensors import TensorType

_HALF = np.float16
_PAIR = TensorType("float32", (2,))


def _single_op(op: str, declared: TensorType, **parameters: Constant) -> MLProgram:
    """A program x -> op -> y, for ops that coremltools refuses to build."""
    operands: dict[str, tuple[str | Constant, ...]] = {"x": ("x",)}
    operands |= {name: (constant,) for name, constant in parameters.items()}
    operation = Operation(op, operands, (Variable("y", declared),))
    return MLProgram("broken.mlpackage", MilFunction((Variable("x", _PAIR),), (operation,), ("y",)))


def test_every_fp16_result_is_rounded(tmp_path: Path) -> None:
    inputs = (np.array([2048], _HALF), np.array([1], _HALF))
    program = build_program(lambda x, y: mb.add(x=mb.add(x=x, y=y), y=y), inputs, tmp_path, TARGET.iOS16)

    # 2049 is no fp16 number: it becomes 2048 twice, where a rounded fp32 sum would be 2050.
    assert run(program, inputs)[0] == 2048


def test_fp16_input_is_rounded_before_use(tmp_path: Path) -> None:
    specified = (np.zeros(1, _HALF),)
    program = build_program(lambda x: mb.sub(x=x, y=_HALF(1)), specified, tmp_path, TARGET.iOS16)

    assert run(program, (np.array([1.0004], np.float32),))[0] == 0


def test_fp16_overflow_becomes_infinite(tmp_path: Path) -> None:
    inputs = (np.array([60000, 1], _HALF),)
    program = build_program(lambda x: mb.mul(x=x, y=_HALF(2)), inputs, tmp_path, TARGET.iOS16)

    (result,) = run(program, inputs)
    assert result.dtype == _HALF
    assert result.tolist() == [np.inf, 2]


def test_fp16_arithmetic_inside_op_is_fp32(tmp_path: Path) -> None:
    inputs = (np.ones((1, 4096), _HALF),)
    program = build_program(lambda x: mb.reduce_sum(x=x, axes=[1]), inputs, tmp_path, TARGET.iOS16)

    # Accumulated in fp16, a sum of ones stops at 2048.
    assert run(program, inputs)[0] == 4096


def test_program_describes_its_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = (np.zeros((1, 3), _HALF), ints(1, 2))
    program = build_program(
        lambda a, b: (mb.relu(x=a, name="first"), mb.add(x=b, y=1, name="second")), inputs, tmp_path, TARGET.iOS16
    )

    assert program.inputs == (Feature("a", (1, 3), "float16"), Feature("b", (2,), "int32"))
    assert program.outputs == (Feature("first", (1, 3), "float16"), Feature("second", (2,), "int32"))
    assert program.op_types() == {"relu": 1, "add": 1}


def test_dynamic_size_is_none_and_accepts_any_size(tmp_path: Path) -> None:
    spec = mb.TensorSpec(shape=(get_new_symbol(), 2))
    program = build_program(lambda x: mb.relu(x=x), (spec,), tmp_path, TARGET.iOS16)

    assert program.inputs[0].shape == (None, 2)
    assert run(program, (normal(5, 2),))[0].shape == (5, 2)
    with pytest.raises(InputMismatch):
        run(program, (normal(5, 3),))


def test_run_does_not_change_inputs_or_later_runs(tmp_path: Path) -> None:
    inputs = (normal(2, 3),)
    before = inputs[0].copy()
    weight = normal(4, 3, seed=1)
    program = build_program(lambda x: mb.relu(x=mb.linear(x=x, weight=weight)), inputs, tmp_path, TARGET.iOS16)

    first = run(program, inputs)[0].copy()
    np.testing.assert_array_equal(run(program, inputs)[0], first)
    np.testing.assert_array_equal(inputs[0], before)


def test_run_returns_copies(tmp_path: Path) -> None:
    inputs = (normal(2, 3),)
    program = build_program(lambda x: mb.identity(x=x), inputs, tmp_path, TARGET.iOS16)

    assert not np.shares_memory(run(program, inputs)[0], inputs[0])


def test_values_are_freed_after_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(x: object) -> object:
        for _ in range(6):
            x = mb.relu(x=x)
        return x

    alive: list[int] = []
    results: list[weakref.ref[torch.Tensor]] = []
    relu = KERNELS["relu"]

    def observed(parameters: Parameters, device: torch.device) -> tuple[torch.Tensor, ...]:
        alive.append(sum(reference() is not None for reference in results))
        (result,) = relu(parameters, device)
        results.append(weakref.ref(result))
        return (result,)

    monkeypatch.setitem(KERNELS, "relu", observed)
    inputs = (normal(2, 3),)
    run(build_program(chain, inputs, tmp_path, TARGET.iOS16), inputs)

    assert alive == [0, 1, 1, 1, 1, 1]


def test_cpu_takes_over_from_gpu_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    relu = KERNELS["relu"]

    def scarce(parameters: Parameters, device: torch.device) -> tuple[torch.Tensor, ...]:
        devices.append(device)
        if device != CPU:
            raise torch.OutOfMemoryError("no memory left")
        return relu(parameters, device)

    monkeypatch.setitem(KERNELS, "relu", scarce)
    with pretended_device():
        result = _single_op("relu", _PAIR).run({"x": np.array([-1.0, 2.0], np.float32)})["y"]
    assert result.tolist() == [0, 2]
    assert devices == [DEVICE, CPU]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({}, r"takes the inputs \['x'\], not \[\]", id="that is missing"),
        pytest.param({"y": normal(2)}, r"takes the inputs \['x'\], not \['y'\]", id="of another name"),
        pytest.param({"x": normal(3)}, r"is float32 \[2\], not float32 \[3\]", id="of another shape"),
        pytest.param({"x": normal(1, 2)}, r"is float32 \[2\], not float32 \[1, 2\]", id="of another rank"),
        pytest.param({"x": ints(1, 2)}, r"is float32 \[2\], not int32 \[2\]", id="of another kind of number"),
    ],
)
def test_run_rejects_bad_input(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputMismatch, match=message):
        _single_op("relu", _PAIR).run(arrays)


def test_float_input_accepts_any_width() -> None:
    result = _single_op("relu", _PAIR).run({"x": np.array([-1.0, 2.0], np.float64)})["y"]

    assert result.dtype == np.float32
    assert result.tolist() == [0, 2]


def test_input_may_be_read_only_in_any_memory_order() -> None:
    array = np.array([1.0, -1.0], np.float32)[::-1]
    array.setflags(write=False)

    assert _single_op("relu", _PAIR).run({"x": array})["y"].tolist() == [0, 1]


def test_unknown_op_error_names_op_and_model() -> None:
    program = _single_op("dream", _PAIR)

    assert program.op_types() == {"dream": 1}
    with pytest.raises(UnsupportedOp, match=r"cannot evaluate op 'dream' of broken\.mlpackage") as caught:
        program.run({"x": normal(2)})
    assert (caught.value.op, caught.value.model) == ("dream", "broken.mlpackage")


def test_unknown_parameter_of_known_op_is_rejected() -> None:
    program = _single_op("relu", _PAIR, slope=Constant("float32", np.array([0.1], np.float32)))

    with pytest.raises(UnsupportedOp, match=r"'relu' of broken.*does not know its parameter slope"):
        program.run({"x": normal(2)})


def test_unknown_parameter_value_is_rejected() -> None:
    program = _single_op("gelu", _PAIR, mode=Constant("string", "ROUGH"))

    with pytest.raises(UnsupportedOp, match=r"'gelu' of broken.*does not know mode 'ROUGH', only"):
        program.run({"x": normal(2)})


def test_result_shape_must_match_declaration() -> None:
    program = _single_op("relu", replace(_PAIR, shape=(3,)))

    with pytest.raises(ProgramError, match=r"op 'relu' \(y\) of broken.* has shape \[2\], the file declares \[3\]"):
        program.run({"x": normal(2)})


def test_result_count_must_match_declaration() -> None:
    sizes = {"split_sizes": Constant("int32", ints(1, 1)), "axis": Constant("int32", ints(0))}
    program = _single_op("split", replace(_PAIR, shape=(1,)), **sizes)

    with pytest.raises(ProgramError, match=r"'split'.* gives 2 results, the file declares 1"):
        program.run({"x": normal(2)})


def test_failing_op_is_named_in_error() -> None:
    program = _single_op("reshape", _PAIR, shape=Constant("int32", ints(5)))

    with pytest.raises(ProgramError, match=r"op 'reshape' \(y\) of broken.* cannot be computed: .*invalid"):
        program.run({"x": normal(2)})
