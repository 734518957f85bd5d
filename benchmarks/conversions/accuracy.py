"""Measures the accuracy of a file of ``Custom``, which no export can ask for, as nothing says what its outputs mean.

    python -m benchmarks.conversions.accuracy CHECKPOINT LABELLED ARTIFACT FORMAT

The program is a classifier here, whose classes are known. Original and file are measured on an archive of labelled
images by the code that evaluates exports. Prints the accuracy as JSON.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from modelexport.api.spec import DataRef, Evaluation
from modelexport.matrix.support import Format, Task
from modelexport_converter.backends import Run, load_backend
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.evaluation import gate
from modelexport_converter.evaluation.classes import match_images
from modelexport_converter.evaluation.opening import open_evaluation
from modelexport_converter.inputs.dataset import FetchedImages
from modelexport_converter.inputs.labelled_data import ARCHIVE
from modelexport_converter.model import LoadedModel
from models.shapes import CLASSES
from trained.cells import ask, load
from trained.model import run_eagerly

TASK = Task.CLASSIFICATION


def main() -> None:
    """Print the accuracy of a file and of its original."""
    checkpoint, labelled, artifact, fmt = sys.argv[1:]
    torch.set_num_threads(1)
    model = replace(load(read_checkpoint(Path(checkpoint)), ask("Custom")), class_names=CLASSES)
    asked = Evaluation(DataRef(f"file://{labelled}"), samples=10_000)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(labelled, Path(folder) / ARCHIVE)
        found = open_evaluation(asked, FetchedImages("0" * 64), Path(folder), TASK, calibrating=())
        matched = match_images(found, model, TASK)
        runs = (partial(run_eagerly, model), open_file(model, Path(artifact), Format(fmt), Path(folder) / "file"))
        original, file = (gate.measure(model, run, matched, TASK) for run in runs)
    print(json.dumps(gate.judge(asked, TASK, original, file).accuracy.to_dict()))


def open_file(model: LoadedModel, path: Path, fmt: Format, folder: Path) -> Run:
    """Open a published file in the runtime that verifies it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        (path,) = folder.iterdir()
    return load_backend(fmt).open_file(model, path)


if __name__ == "__main__":
    main()
