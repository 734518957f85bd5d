"""Prepares checkpoints, programs and images for ``make matrix``, of the trained models and of full-size ones."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import torch
from PIL import Image, ImageOps

from benchmarks.conversions.images import GREY, Fit, write_mosaics
from benchmarks.matrix.workspace import MatrixInputs, MatrixWorkspace
from modelexport.api.spec import LabelKind
from modelexport.matrix.support import ARCHITECTURES, Cell, Task
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.inputs.image_selection import VERIFICATION_COUNT
from models import untrained, widen
from models.make_data import write_labelled
from trained.cells import TRAINED, ask, load, load_model
from trained.model import MODELS, Trained

SOURCE = "YOLOv8-CLS"
"""The trained model that represents ``Custom``, whose models come as programs without source."""
SAMPLES = {"trained": 64 - VERIFICATION_COUNT, "fullSize": 8, "evaluated": 640}
"""Number of calibration images: of 64, those that verification does not use; fewer at full size, since each is a mosaic
of many and memory does not depend on them. ``evaluated``: labelled images on which trained models are measured.
"""
LABELS = {
    Task.CLASSIFICATION: LabelKind.IMAGE_FOLDER,
    Task.KEYPOINTS: LabelKind.YOLO,
    Task.ORIENTED_DETECTION: LabelKind.YOLO,
}
"""The labels of each task; all others have COCO's. Only YOLO's state the constants of keypoints' similarity."""
Size = tuple[int, int]


@contextmanager
def prepared(missing: Sequence[Cell], part: str, cores_each: int) -> Iterator[MatrixWorkspace]:
    """Yield a workspace with the inputs of a part and the cores in sets of ``cores_each``; delete it at the end."""
    usable = sorted(os.sched_getaffinity(0))
    count = max(1, len(usable) // cores_each)
    with tempfile.TemporaryDirectory(prefix="modelexport-matrix-") as folder:
        names = dict.fromkeys(cell.architecture.name for cell in missing)
        inputs = {name: prepare(Path(folder) / "store", name, part) for name in names}
        workspace = MatrixWorkspace(Path(folder), inputs, SAMPLES, SimpleQueue(), min(cores_each, len(usable)))
        for index in range(count):
            workspace.cores.put(",".join(map(str, usable[index::count])))
        yield workspace


def prepare(store: Path, architecture: str, part: str) -> MatrixInputs:
    """Put the inputs of a conversion into the store."""
    return {"trained": _prepare_trained, "fullSize": _prepare_full_size}[part](store, architecture)


def _prepare_trained(store: Path, architecture: str) -> MatrixInputs:
    """Prepare the trained model at the size of its training, and labelled images of its task."""
    trained, task = trained_model(architecture), ARCHITECTURES[_source(architecture)].task
    kind = LABELS.get(task, LabelKind.COCO)
    images, labelled = f"calibration{trained.images}.zip", f"labelled-{kind}{trained.images}.zip"
    shutil.copy(MODELS / "data" / images, _folder(store, "datasets"))
    if not (store / "datasets" / labelled).exists():
        path, oriented = store / "datasets" / labelled, task is Task.ORIENTED_DETECTION
        write_labelled(kind, path, SAMPLES["evaluated"], oriented=oriented)
    return MatrixInputs(_checkpoint(store, architecture, trained.weights), images, {}, labelled)


def _prepare_full_size(store: Path, architecture: str) -> MatrixInputs:
    """Prepare the model in its published width at the default size, with images of objects as small as in training."""
    row, images = ARCHITECTURES[_source(architecture)], f"{architecture}.zip"
    side, count = row.default_input_size[0], SAMPLES["fullSize"] + VERIFICATION_COUNT
    write_mosaics(row.task, side, _folder(store, "datasets") / images, _fit(row.name), count)
    if architecture == "Custom":
        return MatrixInputs(_write_program(store, "full-size", row.default_input_size), images, {})
    source, parameters = trained_model(architecture).weights, {"inputSize": list(row.default_input_size)}
    name, is_random = f"{architecture}-full-size.pt", architecture in untrained.NETWORKS
    if is_random:
        untrained.write_untrained(architecture, source, _folder(store, "checkpoints") / name)
    elif architecture in widen.NETWORKS:
        widen.write_widened(architecture, source, _folder(store, "checkpoints") / name)
    else:
        name = _checkpoint(store, architecture, source)
    return MatrixInputs(name, images, parameters, random_weights=is_random)


def trained_model(architecture: str) -> Trained:
    """Return the trained model of an architecture."""
    return TRAINED[_source(architecture)]


def _source(architecture: str) -> str:
    return SOURCE if architecture == "Custom" else architecture


def _checkpoint(store: Path, architecture: str, source: Path) -> str:
    if architecture == "Custom":
        return _write_program(store, "trained", load_model(SOURCE).input_size)
    name = f"{architecture}{source.suffix}"
    shutil.copy(source, _folder(store, "checkpoints") / name)
    return name


def _write_program(store: Path, name: str, size: Size) -> str:
    checkpoint = read_checkpoint(trained_model(SOURCE).weights)
    model = load(checkpoint, ask(SOURCE, input_size=size))
    program = torch.export.export(model.module, (model.example_input(),))
    torch.export.save(program, _folder(store, "checkpoints") / f"{name}.pt2")
    return f"{name}.pt2"


def _fit(architecture: str) -> Fit:
    """Return a function that turns an image into a tile of the size that the trained model expects."""
    model = load_model(architecture)
    size = model.input_size[::-1]
    if model.preprocessing.resize == "stretch":
        return partial(Image.Image.resize, size=size, resample=Image.Resampling.BILINEAR)
    return partial(ImageOps.pad, size=size, color=GREY)


def _folder(store: Path, name: str) -> Path:
    (store / name).mkdir(parents=True, exist_ok=True)
    return store / name
