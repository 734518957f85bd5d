"""Checkpoints as releases of ultralytics write them are taken, and answer what the release itself answered."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from train_release import CLASSES, picture

from converter.cells import ask
from modelexport.result import Reference
from modelexport_converter.architectures.yolov8 import load
from modelexport_converter.checkpoint import read_checkpoint

RELEASES = Path(__file__).parents[1] / "models" / "releases"
FILES = sorted(path.name for path in RELEASES.glob("*.pt"))
ARCHITECTURES = {"detect": "YOLOv8", "segment": "YOLOv8-SEG", "pose": "YOLOv8-Pose", "classify": "YOLOv8-CLS"}
NAMES = ("circle", "square", "triangle")


def recorded(path: Path, architecture: str) -> Sequence[torch.Tensor]:
    """What the release answered, split and divided as our outputs are."""
    with np.load(path.with_suffix(".npz")) as arrays:
        answers = {name: torch.from_numpy(arrays[name]) for name in arrays}
    if architecture == "YOLOv8-CLS":
        return [answers["probabilities"]]
    side = picture().shape[-1]
    rows = answers["rows"]
    boxes, scores, extra = rows.split((4, CLASSES, rows.shape[1] - 4 - CLASSES), 1)
    outputs = [boxes / side, scores]
    if architecture == "YOLOv8-SEG":
        return [*outputs, extra, answers["prototypes"]]
    if architecture == "YOLOv8-Pose":
        return [*outputs, extra.view(1, 4, 3, -1) / torch.tensor([side, side, 1.0]).view(1, 1, 3, 1)]
    return outputs


def test_every_kind_of_file_is_there() -> None:
    parts = [name.removesuffix(".pt").split("-") for name in FILES]
    assert len({release for release, *_ in parts}) >= 16
    assert {task for _, task, *_ in parts} == set(ARCHITECTURES)
    assert {state for *_, state in parts} == {"finished", "last", "interrupted", "saved", "fused", "module"}


@pytest.mark.parametrize("name", FILES)
def test_a_release_of_ultralytics_is_taken_as_it_is(name: str) -> None:
    path = RELEASES / name
    architecture = ARCHITECTURES[name.split("-")[1]]
    image = picture()
    size = (image.shape[2], image.shape[3])
    model = load(read_checkpoint(path), ask(architecture, input_size=size))
    assert model.reference is Reference.CHECKPOINT
    assert (model.class_names, model.assumptions) == (NAMES, ())
    with torch.inference_mode():
        found = model.module(image)
    for wanted, given, output in zip(recorded(path, architecture), found, model.outputs, strict=True):
        torch.testing.assert_close(
            given, wanted, atol=1e-4, rtol=1e-4, msg=lambda text, name=output.name: f"{name}: {text}"
        )
