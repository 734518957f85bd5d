"""Task accuracy on the evaluation pictures: ``python -m bench.accuracy ARCHITECTURE CHECKPOINT [ARTIFACT FORMAT]``.

Of the model itself, or of the file that was made of it. Prints measures by name as JSON.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from converter.cells import TRAINED, ask, load
from converter.trained import MODELS, Outputs, Trained
from converter.yolov8_cells import measure_top1
from modelexport.matrix import Format
from modelexport_converter.backends import Array, Run, load_backend
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive


def main() -> None:
    """Print the accuracy of a model, or of its file."""
    architecture, checkpoint, *artifact = sys.argv[1:]
    torch.set_num_threads(1)
    model, trained = load(read_checkpoint(Path(checkpoint)), ask(architecture)), trained_model(architecture)
    pictures = open_archive(MODELS / f"data/eval{trained.pictures}.zip", "eval")
    with tempfile.TemporaryDirectory() as folder:
        run = open_file(model, Path(artifact[0]), Format(artifact[1]), Path(folder)) if artifact else run_model(model)
        outputs = [run(image) for image in Inputs(pictures, model.preprocessing, model.input_size)]
    print(json.dumps(trained.measure(model, outputs)))


def trained_model(architecture: str) -> Trained:
    """What is known of the model; a program of the classifier stands for all that come without their source."""
    if architecture == "Custom":
        return Trained(MODELS / "weights/yolov8n-cls.pt", measure_top1, "-cls")
    return TRAINED[architecture]


def run_model(model: LoadedModel) -> Run:
    """The model in eager FP32."""

    def run(image: Array) -> Outputs:
        with torch.inference_mode():
            return tuple(output.numpy() for output in model.module(torch.from_numpy(image)))

    return run


def open_file(model: LoadedModel, path: Path, fmt: Format, folder: Path) -> Run:
    """A published file in the runtime by which it is verified."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        path = next(folder.glob("*.mlpackage"), folder)
    return load_backend(fmt).open_file(model, path)


if __name__ == "__main__":
    main()
