from pathlib import Path
from typing import IO

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


def test_shared_outputs_are_run_by_first_conversion_only(tmp_path: Path, model: LoadedModel) -> None:
    first, second = (ReferenceOutputs(tmp_path / "shared/outputs", is_shared=True) for _ in range(2))
    (made,) = first.of(model, IMAGE)
    (found,) = second.of(model, IMAGE)
    assert np.array_equal(made, found)
    assert model.module.runs == 1


def test_outputs_of_others_count_for_limit(tmp_path: Path, model: LoadedModel) -> None:
    first, second = (ReferenceOutputs(tmp_path / "outputs", is_shared=True, limit=100) for _ in range(2))
    first.of(model, IMAGE)
    second.of(model, IMAGE + 1)
    assert len(list((tmp_path / "outputs").iterdir())) == 1


def test_unfinished_file_is_not_read(tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = ReferenceOutputs(tmp_path / "outputs", is_shared=True)

    def fill_disk(file: IO[bytes], *_: object) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fill_disk)
        with pytest.raises(OSError, match="no space"):
            outputs.of(model, IMAGE)
    (found,) = outputs.of(model, IMAGE)
    assert np.array_equal(found, IMAGE * 2)
