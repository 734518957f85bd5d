"""Trains the ultralytics models of the tests on synthetic shapes; writes them as stripped FP16 checkpoints.

    PYTHONPATH=testdata:examples python -m models.train NAME [--workspace DIRECTORY]

NAME is one of ``TRAININGS``, or all. A training with a ``start`` begins with the weights of that one, the others with
random ones. One thread, no accelerator.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._pytree import tree_map_only

from models import shapes
from models.dataset import write_dataset

os.environ.setdefault("YOLO_OFFLINE", "true")

from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load

WEIGHTS = Path(__file__).parent / "weights"
_TRAINING_COUNT, _VALIDATION_COUNT = 1600, 128
_SETTINGS: dict[str, Any] = {
    "batch": 32, "nbs": 32, "optimizer": "AdamW", "lr0": 2e-3, "lrf": 0.02, "cos_lr": True, "warmup_epochs": 1.0,
    "warmup_bias_lr": 2e-3, "workers": 0, "device": "cpu", "amp": False, "plots": False, "val": False, "cache": "ram",
    "mosaic": 0.0, "scale": 0.2, "hsv_h": 0.1, "erasing": 0.0, "auto_augment": None,
    "seed": 0, "exist_ok": True, "verbose": False,
}  # fmt: skip

_BACKBONE_KEPT = {"freeze": 11, "lr0": 1e-3}
"""If it is trained for masks, the narrow YOLO26 answers some borders with ten times its usual values."""


@dataclass(frozen=True)
class UltralyticsTraining:
    """Settings of one training: the ultralytics architecture, the input side in pixels, and the epochs.

    A network with a ``width`` has this share of the published channels, and the file name says that it is narrow.
    ``start`` is the name of the training whose weights it begins with.
    """

    architecture: str
    side: int
    epochs: int
    settings: dict[str, Any] = field(default_factory=dict)
    task: str = "detect"
    width: float | None = None
    start: str | None = None

    @property
    def checkpoint(self) -> Path:
        return WEIGHTS / f"{self.architecture}{'' if self.width is None else '-narrow'}.pt"


TRAININGS = {
    "detect": UltralyticsTraining("yolov8n", 160, 20),
    "segment": UltralyticsTraining("yolov8n-seg", 160, 12, task="segment", start="detect"),
    "pose": UltralyticsTraining("yolov8n-pose", 160, 16, task="pose"),
    # crops of a tenth at most leave every shape in sight
    "classify": UltralyticsTraining("yolov8n-cls", 128, 10, {"scale": 0.1}, "classify", start="detect"),
    "obb": UltralyticsTraining("yolov8n-obb", 160, 14, {"flipud": 0.5}, "obb", 0.125),
    "yolo11": UltralyticsTraining("yolo11n", 160, 30, width=0.125),
    "yolo11-classify": UltralyticsTraining("yolo11n-cls", 128, 6, {"scale": 0.1}, "classify", 0.125, "yolo11"),
    "yolo11-segment": UltralyticsTraining("yolo11n-seg", 160, 12, {}, "segment", 0.125, "yolo11"),
    "yolo11-pose": UltralyticsTraining("yolo11n-pose", 160, 16, {}, "pose", 0.125, "yolo11"),
    "yolo11-obb": UltralyticsTraining("yolo11n-obb", 160, 10, {"flipud": 0.5}, "obb", 0.125, "yolo11"),
    "yolo26": UltralyticsTraining("yolo26n", 160, 30, width=0.125),
    "yolo26-classify": UltralyticsTraining("yolo26n-cls", 128, 6, {"scale": 0.1}, "classify", 0.125, "yolo26"),
    "yolo26-segment": UltralyticsTraining("yolo26n-seg", 160, 6, _BACKBONE_KEPT, "segment", 0.125, "yolo26"),
    "yolo26-pose": UltralyticsTraining("yolo26n-pose", 160, 16, _BACKBONE_KEPT, "pose", 0.125, "yolo26"),
    "yolo26-obb": UltralyticsTraining("yolo26n-obb", 160, 12, {"flipud": 0.5}, "obb", 0.125, "yolo26"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*TRAININGS, "all"])
    parser.add_argument("--workspace", type=Path, default=Path("build/shapes"), help="where images and runs go")
    arguments = parser.parse_args()
    for name in TRAININGS if arguments.model == "all" else [arguments.model]:
        started = time.monotonic()
        checkpoint = train(TRAININGS[name], arguments.workspace.resolve())
        print(f"{checkpoint}: trained in {time.monotonic() - started:.0f} s")


def train(training: UltralyticsTraining, workspace: Path) -> Path:
    """Train one model; return its checkpoint, which is replaced after every epoch and always complete."""
    task, checkpoint = training.task, training.checkpoint
    draw = {"classify": shapes.single_shape_images, "obb": shapes.stretched_images}.get(task, shapes.images)
    splits = {"train": draw("train", _TRAINING_COUNT), "val": draw("val", _VALIDATION_COUNT)}
    data = write_dataset(task, workspace / task, splits)
    model = YOLO(_describe(training, workspace), task=task)
    if training.start is not None:
        model.load(TRAININGS[training.start].checkpoint)
    train_args = {"task": task, "imgsz": training.side}
    model.add_callback("on_model_save", lambda trainer: write_checkpoint(trainer.ema.ema, train_args, checkpoint))
    if torch.backends.cpu.get_cpu_capability() == "AVX512":  # others emulate bfloat16, 12 times slower than float32
        model.add_callback("on_pretrain_routine_end", lambda trainer: use_bfloat16(trainer.model))
    run: dict[str, Any] = {"data": str(data), "imgsz": training.side, "epochs": training.epochs}
    run |= {"project": str(workspace / "runs"), "name": checkpoint.stem, "pretrained": training.start is not None}
    model.train(**{**_SETTINGS, **training.settings, **run})
    return checkpoint


def _describe(training: UltralyticsTraining, workspace: Path) -> str:
    """Return ultralytics' name of the network, or the path of its description in another width."""
    name = f"{training.architecture}.yaml"
    if training.width is None:
        return name
    network = yaml_model_load(name)
    depth, _, most = network["scales"][network["scale"]]
    narrow = workspace / f"{training.checkpoint.stem}.yaml"
    narrow.parent.mkdir(parents=True, exist_ok=True)
    narrow.write_text(yaml.safe_dump({**network, "scales": {network["scale"]: [depth, training.width, most]}}))
    return str(narrow)


def use_bfloat16(model: Any) -> None:
    """Run the network, but not the loss, in bfloat16.

    This is 1.7 times faster on a CPU with AMX; ultralytics supports it on CUDA only.
    """
    predict: Callable[..., Any] = model.predict

    def predict_in_bfloat16(*arguments: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            predictions = predict(*arguments, **options)
        return tree_map_only(torch.Tensor, torch.Tensor.float, predictions)

    model.predict = predict_in_bfloat16


def write_checkpoint(model: torch.nn.Module, train_args: dict[str, Any], checkpoint: Path) -> None:
    """Write the weights as an ultralytics checkpoint, without information about the machine."""
    stripped: Any = deepcopy(model).half().requires_grad_(False)
    stripped.criterion, stripped.args = None, train_args
    vars(stripped).pop("pt_path", None)
    stripped.yaml["yaml_file"] = Path(stripped.yaml["yaml_file"]).name
    checkpoint.parent.mkdir(exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save({"epoch": -1, "model": stripped, "ema": None, "train_args": train_args}, partial)
    partial.replace(checkpoint)


if __name__ == "__main__":
    main()
