"""Checkpoints written by releases of ultralytics load, and give the outputs of that release."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from modelexport.api.result import Reference
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from models.train_release import CLASSES, training_image
from trained.cells import ask

RELEASES = Path(__file__).parents[2] / "testdata/models/releases"
FILES = sorted(path.name for path in RELEASES.glob("*.pt"))
ARCHITECTURES = {"detect": "YOLOv8", "segment": "YOLOv8-SEG", "pose": "YOLOv8-Pose", "classify": "YOLOv8-CLS"}
"""The architecture of each task; a file with -11- in its name is a YOLO11."""
NAMES = ("circle", "square", "triangle")


def recorded(path: Path, architecture: str) -> Sequence[torch.Tensor]:
    """The recorded outputs of the release, split and scaled like ours."""
    with np.load(path.with_suffix(".npz")) as arrays:
        answers = {name: torch.from_numpy(arrays[name]) for name in arrays}
    if architecture == "YOLOv8-CLS":
        return [answers["probabilities"]]
    side = training_image().shape[-1]
    rows = answers["rows"]
    boxes, scores, extra = rows.split((4, CLASSES, rows.shape[1] - 4 - CLASSES), 1)
    outputs = [boxes / side, scores]
    if architecture == "YOLOv8-SEG":
        return [*outputs, extra, answers["prototypes"]]
    if architecture == "YOLOv8-Pose":
        return [*outputs, extra.view(1, 4, 3, -1) / torch.tensor([side, side, 1.0]).view(1, 1, 3, 1)]
    return outputs


def test_every_release_format_is_covered() -> None:
    parts = [name.removesuffix(".pt").split("-") for name in FILES]
    assert len({release for release, *_ in parts}) >= 16
    assert {task for _, task, *_ in parts} == set(ARCHITECTURES)
    assert {state for *_, state in parts} == {"finished", "last", "interrupted", "saved", "fused", "module"}


@pytest.mark.parametrize("name", FILES)
def test_ultralytics_release_loads_unchanged(name: str) -> None:
    path = RELEASES / name
    architecture = "YOLO11" if "-11-" in name else ARCHITECTURES[name.split("-")[1]]
    image = training_image()
    size = (image.shape[2], image.shape[3])
    model = load(read_checkpoint(path), ask(architecture, input_size=size))
    assert model.reference is Reference.CHECKPOINT
    assert (model.class_names, model.assumptions) == (NAMES, ())
    with torch.inference_mode():
        found = model.module(image)
    for wanted, given, output in zip(recorded(path, architecture), found, model.outputs, strict=True):
        explain = partial("{}: {}".format, output.name)
        torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4, msg=explain)
