"""Every op of the table against torch or numpy; the cases themselves are tables, one per family, in cases/."""

from pathlib import Path

import numpy as np
import pytest

from converter.coreml.building import Case, build_program, expect, run
from converter.coreml.cases import CASES
from converter.pretended_device import pretended_device
from modelexport_converter.coreml.ops import KERNELS


@pytest.mark.parametrize(
    ("op", "case"), [pytest.param(op, case, id=f"{op} {case.says}") for op, cases in CASES.items() for case in cases]
)
def test_evaluator_computes_case(op: str, case: Case, tmp_path: Path) -> None:
    program = build_program(case.build, case.inputs, tmp_path, case.target)
    results, expected = run(program, case.inputs), expect(case)
    with pretended_device():
        elsewhere = run(program, case.inputs)

    assert program.op_types()[op] == 1
    assert all(map(np.array_equal, results, elsewhere))
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        assert result.dtype.kind == wanted.dtype.kind
        np.testing.assert_allclose(result, wanted, rtol=2e-6, atol=case.atol)


def test_every_op_has_case() -> None:
    assert set(CASES) == set(KERNELS)


def test_every_op_name_exists_in_mil() -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    assert set(KERNELS) <= set(SSAOpRegistry.core_ops)
