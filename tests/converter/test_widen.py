"""The full-size models are the trained ones in other widths."""

from pathlib import Path

import numpy as np
import pytest
import torch
import widen

from converter.cells import TRAINED, ask, eval_inputs, load, load_model
from modelexport_converter.checkpoint import read_checkpoint


@pytest.mark.parametrize("architecture", widen.NETWORKS)
def test_a_widened_model_has_the_published_width_and_answers_as_the_thin_one(architecture: str, tmp_path: Path) -> None:
    widen.write_widened(architecture, TRAINED[architecture].weights, tmp_path / "wide.pt")
    wide, thin = load(read_checkpoint(tmp_path / "wide.pt"), ask(architecture)), load_model(architecture)
    assert (wide.input_size, wide.class_names) == (thin.input_size, thin.class_names)
    assert _parameters(wide.module) > 2 * _parameters(thin.module)
    image = torch.from_numpy(eval_inputs(architecture)[0])
    with torch.inference_mode():
        for found, expected in zip(wide.module(image), thin.module(image), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-3)


def _parameters(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
