"""Measures task accuracy on the evaluation images, of a model or of a file made from it.

    python -m benchmarks.conversions.accuracy ARCHITECTURE CHECKPOINT [ARTIFACT FORMAT]

Prints measures by name as JSON.
"""

import json
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import torch

from modelexport.matrix.support import Format
from modelexport_converter.backends import Run, load_backend
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.inputs.images import PreparedImages, open_archive
from modelexport_converter.model import LoadedModel
from trained.cells import TRAINED, ask, load
from trained.model import MODELS, Trained, run_eagerly
from trained.yolov8_cells import measure_top1


def main() -> None:
    """Print the accuracy of a model, or of its file."""
    architecture, checkpoint, *artifact = sys.argv[1:]
    torch.set_num_threads(1)
    model, trained = load(read_checkpoint(Path(checkpoint)), ask(architecture)), trained_model(architecture)
    images = open_archive(MODELS / f"data/eval{trained.images}.zip", "eval")
    with tempfile.TemporaryDirectory() as folder:
        run = (
            open_file(model, Path(artifact[0]), Format(artifact[1]), Path(folder))
            if artifact
            else partial(run_eagerly, model)
        )
        outputs = [run(image) for image in PreparedImages(images, model.preprocessing, model.input_size)]
    print(json.dumps(trained.measure(model, outputs)))


def trained_model(architecture: str) -> Trained:
    """Return the trained model of an architecture. A program of the classifier represents Custom."""
    if architecture == "Custom":
        return Trained(MODELS / "weights/yolov8n-cls.pt", measure_top1, "-cls")
    return TRAINED[architecture]


def open_file(model: LoadedModel, path: Path, fmt: Format, folder: Path) -> Run:
    """Open a published file in the runtime that verifies it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        (path,) = folder.iterdir()
    return load_backend(fmt).open_file(model, path)


if __name__ == "__main__":
    main()
