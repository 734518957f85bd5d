"""Each defect of the wrong-files benchmark changes the outputs, and the thresholds refuse a wrong file."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from benchmarks.conversions import wrong_files
from benchmarks.conversions.wrong_files import DEFECTS, measure
from benchmarks.pages.wrong_files import published_precisions
from modelexport.matrix.support import Precision
from trained.cells import eval_inputs, load_model, run_model

ARCHITECTURE = "YOLOv8-CLS"


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_changes_outputs_and_not_the_model(defect: str) -> None:
    before = run_model(ARCHITECTURE, eval_inputs(ARCHITECTURE)[1])
    run = DEFECTS[defect](load_model(ARCHITECTURE))
    run(eval_inputs(ARCHITECTURE)[0])
    assert not np.array_equal(run(eval_inputs(ARCHITECTURE)[1])[0], before[0])
    assert np.array_equal(run_model(ARCHITECTURE, eval_inputs(ARCHITECTURE)[1])[0], before[0])


def test_rounded_weights_have_few_values() -> None:
    layer = torch.nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        wrong_files.round_weights(layer)
    assert len(layer.weight.unique()) <= 2**wrong_files.BITS - 1


@pytest.mark.parametrize(
    ("defect", "published"),
    [(DEFECTS["answers of the image before"], []), (wrong_files.with_images(lambda image: image), [*Precision])],
    ids=["wrong", "right"],
)
def test_thresholds_tell_wrong_file_from_right_one(
    defect: wrong_files.Defect, published: list[Precision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrong_files, "IMAGES", 24)
    assert published_precisions(ARCHITECTURE, asdict(measure(ARCHITECTURE, defect))) == published
