"""The trained models of tests/models, and every file that is made of them, made once per process."""

import importlib
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Scheme
from modelexport.spec import DataRef, Model, Parameters
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive
from models import accuracy

MODELS = Path(__file__).parents[1] / "models"
WEIGHTS = {
    "YOLOv8": MODELS / "weights/yolov8n.pt",
    "YOLOv8-SEG": MODELS / "weights/yolov8n-seg.pt",
    "YOLOv8-CLS": MODELS / "weights/yolov8n-cls.pt",
    "YOLOv8-Pose": MODELS / "weights/yolov8n-pose.pt",
}
DETECTORS = {"YOLOX": MODELS / "weights/yolox_nano.pth", "YOLOv4": MODELS / "weights/yolov4_tiny.pth"}
TRAINED = {**WEIGHTS, **DETECTORS}
"""One trained model per architecture; those of ``DETECTORS`` do not tell the size of their training."""
CLASSES = ("circle", "square", "triangle")
Outputs = tuple[Array, ...]
FOLDER = tempfile.TemporaryDirectory(prefix="cells-")


def ask(architecture: str, **parameters: Any) -> Model:
    """What an export asks of a checkpoint."""
    return Model(architecture, DataRef("file:///checkpoint"), Parameters(**parameters))


@cache
def load_model(architecture: str) -> LoadedModel:
    loader = importlib.import_module(ARCHITECTURES[architecture].impl)
    parameters = {"input_size": (160, 160)} if architecture in DETECTORS else {}
    loaded: LoadedModel = loader.load(read_checkpoint(TRAINED[architecture]), ask(architecture, **parameters))
    return loaded


def inputs(architecture: str, data: str, count: int | None = None) -> Sequence[Array]:
    """Inputs (1, 3, height, width) from ``eval`` or ``calibration`` pictures."""
    model, kind = load_model(architecture), "-cls" if architecture == "YOLOv8-CLS" else ""
    pictures = open_archive(MODELS / "data" / f"{data}{kind}.zip", data)[:count]
    return Inputs(pictures, model.preprocessing, model.input_size)


@cache
def eval_inputs(architecture: str) -> tuple[Array, ...]:
    return tuple(inputs(architecture, "eval"))


def run_model(architecture: str, image: Array) -> Outputs:
    """The model in eager FP32."""
    with torch.inference_mode():
        return tuple(output.numpy() for output in load_model(architecture).module(torch.from_numpy(image)))


@cache
def produce(architecture: str, fmt: Format, scheme: Scheme) -> Path:
    """The file of one cell, calibrated on all the calibration pictures where its scheme needs them."""
    backend, model = load_backend(fmt), load_model(architecture)
    path = Path(FOLDER.name) / f"{architecture}-{scheme}{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    if scheme is Scheme.FP32:
        backend.convert(model, path)
    else:
        samples = inputs(architecture, "calibration") if scheme.needs_calibration else ()
        backend.quantise(model, produce(architecture, fmt, Scheme.FP32), scheme, samples, path)
    return path


def open_cell(architecture: str, fmt: Format, scheme: Scheme) -> Callable[[Array], Outputs]:
    return load_backend(fmt).open_file(load_model(architecture), produce(architecture, fmt, scheme))


def measure(architecture: str, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Task accuracy of the outputs for all the evaluation pictures, in their order."""
    if architecture == "YOLOv8-CLS":
        labels = json.loads((MODELS / "data/eval-cls.json").read_text())["labels"]
        return {"top-1": accuracy.top1([output[0] for output in outputs], labels.values())}
    truth = json.loads((MODELS / "data/eval.json").read_text())
    found = {
        image["id"]: _find(architecture, image, output) for image, output in zip(truth["images"], outputs, strict=True)
    }
    measures = {"box": accuracy.box_map(truth, found)}
    if architecture == "YOLOv8-SEG":
        measures["mask"] = accuracy.mask_map(truth, found)
    if architecture == "YOLOv8-Pose":
        measures["keypoint"] = accuracy.keypoint_map(truth, found)
    return measures


def _find(architecture: str, image: dict[str, int], outputs: Outputs) -> accuracy.Found:
    height, width = load_model(architecture).input_size
    letterbox = accuracy.Letterbox((image["width"], image["height"]), (width, height))
    names = {"YOLOv8-SEG": ("coefficients", "prototypes"), "YOLOv8-Pose": ("keypoints",)}.get(architecture, ())
    return accuracy.find(letterbox, *outputs[:2], **dict(zip(names, outputs[2:], strict=True)))


@cache
def reference(architecture: str) -> dict[str, float]:
    """Accuracy of the original model in FP32."""
    return measure(architecture, [run_model(architecture, image) for image in eval_inputs(architecture)])
