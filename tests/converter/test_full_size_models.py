"""The full-size models are wider versions of the trained ones, or networks with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from converter.cells import TRAINED, ask, eval_inputs, load, load_model
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from models import untrained, widen


@pytest.mark.parametrize("architecture", widen.NETWORKS)
def test_widened_model_has_published_width_and_same_outputs(architecture: str, tmp_path: Path) -> None:
    widen.write_widened(architecture, TRAINED[architecture].weights, tmp_path / "wide.pt")
    wide, thin = load(read_checkpoint(tmp_path / "wide.pt"), ask(architecture)), load_model(architecture)
    assert (wide.input_size, wide.class_names) == (thin.input_size, thin.class_names)
    assert _parameters(wide.module) > 2 * _parameters(thin.module)
    image = torch.from_numpy(eval_inputs(architecture)[0])
    with torch.inference_mode():
        for found, expected in zip(wide.module(image), thin.module(image), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "variant", "millions"),
    [("YOLOv4", "full", 63.9), ("DeepLabV3", "resnet50", 39.6), ("FCN", "resnet50", 33.0)],
)
def test_untrained_published_model_gives_different_outputs(
    architecture: str, variant: str, millions: float, tmp_path: Path
) -> None:
    untrained.write_untrained(architecture, TRAINED[architecture].weights, tmp_path / "random.pt")
    random, trained = load(read_checkpoint(tmp_path / "random.pt"), ask(architecture)), load_model(architecture)
    assert (random.metadata["variant"], random.class_names) == (variant, trained.class_names)
    assert _parameters(random.module) / 1e6 == pytest.approx(millions, rel=0.01)
    images = map(torch.from_numpy, eval_inputs(architecture)[:2])
    with torch.inference_mode():
        *_, first, second = (random.module(image)[-1] for image in images)
    assert 0.01 < (first - second).abs().mean() < 0.5
    assert 0.05 < first.std() < 0.5


def _parameters(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
