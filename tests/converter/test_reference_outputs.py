from pathlib import Path

import numpy as np
import pytest
import torch

from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.verification.reference_outputs import ReferenceOutputs

IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
KEPT = (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))


class Doubling(torch.nn.Module):
    """Gives twice its input and counts how often it ran."""

    runs = 0

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.runs += 1
        return (image * 2,)


@pytest.fixture
def model() -> LoadedModel:
    return LoadedModel(Doubling(), (2, 2), (Output("twice", ("batch",), ""),), (), Preprocessing("stretch"))


def test_cached_image_is_not_run_again(tmp_path: Path, model: LoadedModel) -> None:
    outputs = ReferenceOutputs(tmp_path / "outputs")
    outputs.keep(IMAGE, KEPT)
    first, second = outputs.of(model, IMAGE.copy())
    assert (first.tolist(), second.tolist()) == ([[1, 2]], [[3]])
    assert model.module.runs == 0


def test_new_image_is_run(tmp_path: Path, model: LoadedModel) -> None:
    outputs = ReferenceOutputs(tmp_path / "outputs")
    outputs.keep(IMAGE, KEPT)
    (found,) = outputs.of(model, IMAGE + 1)
    assert np.array_equal(found, (IMAGE + 1) * 2)
    assert model.module.runs == 1


def test_outputs_over_limit_are_not_cached(tmp_path: Path, model: LoadedModel) -> None:
    outputs = ReferenceOutputs(tmp_path / "outputs", limit=15)
    outputs.keep(IMAGE, KEPT)
    outputs.keep(IMAGE + 1, KEPT)
    outputs.of(model, IMAGE + 1)
    assert model.module.runs == 1
    assert len(list((tmp_path / "outputs").iterdir())) == 1
