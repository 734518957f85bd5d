"""On a real GPU: its answers agree with those of the CPU. ``CUDA_VISIBLE_DEVICES=0`` shows the first one to pytest."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.coreml.building import build_program, run
from converter.coreml.cases import CASES
from converter.pretended_device import chosen_device
from modelexport_converter.compute_device import CPU, compute_device
from modelexport_converter.coreml.errors import ProgramError
from modelexport_converter.verification.agreement import compare, run_model
from trained import cells
from trained.cells import TRAINED, inputs, load_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA_VISIBLE_DEVICES=0")


@pytest.mark.parametrize("architecture", TRAINED)
def test_original_on_gpu_agrees_with_cpu(architecture: str) -> None:
    model, images = load_model(architecture), inputs(architecture, "eval", 8)
    assert compute_device().type == "cuda"
    first, second = (run_model(model, images[0]) for _ in range(2))
    assert all(map(np.array_equal, first, second))
    comparison = compare(model, partial(run_model, model), images, original=partial(cells.run_model, architecture))
    assert comparison.value >= 0.9999  # as a file in FP32


def test_core_ml_ops_on_gpu_agree_with_cpu(tmp_path: Path) -> None:
    differ = dict[str, str]()
    for number, (op, case) in enumerate((op, case) for op, cases in CASES.items() for case in cases):
        (folder := tmp_path / str(number)).mkdir()
        program = build_program(case.build, case.inputs, folder, case.target)
        with chosen_device(CPU):
            expected = run(program, case.inputs)
        try:
            for one, other in zip(run(program, case.inputs), expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        except (AssertionError, ProgramError) as error:
            differ[f"{op} {case.says}"] = str(error)
    assert not differ
