"""Reads the `.mlpackage` folder: the model specification and its weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from modelexport_converter.coreml.blobs import BlobFile
from modelexport_converter.coreml.classifier import Classifier
from modelexport_converter.coreml.detector import SUPPRESSION, Detector, read_suppression
from modelexport_converter.coreml.errors import ProgramError
from modelexport_converter.coreml.library import DecodeError, FeatureTypes_pb2, Model_pb2
from modelexport_converter.coreml.ml_program import MLProgram
from modelexport_converter.coreml.reader import read_function

Model = MLProgram | Classifier | Detector
"""The kinds of models that a package can contain."""


def load_program(mlpackage: Path) -> MLProgram:
    """Read an `.mlpackage` folder whose model is an ML program and nothing else; see ``load_model``."""
    model = load_model(mlpackage)
    if not isinstance(model, MLProgram):
        raise ProgramError(f"{mlpackage.name} is a {type(model).__name__.lower()}, not an ML program alone")
    return model


def load_model(mlpackage: Path) -> Model:
    """Read the model of an `.mlpackage` folder; weights stay memory-mapped until the first run.

    Raises:
        ProgramError: the folder is not a package, the file is damaged, or the model is not an ML program (but, for
            example, of the older neural network format).
    """
    specification = _locate_specification(mlpackage)
    model = Model_pb2.Model()
    try:
        model.ParseFromString(specification.read_bytes())
    except (OSError, DecodeError) as error:
        raise ProgramError(f"cannot read the specification of {mlpackage.name}: {error}") from error
    parts, wanted, what = [model], ["mlProgram"], "a"
    if model.WhichOneof("Type") == "pipeline":
        parts, wanted, what = list(model.pipeline.models), ["mlProgram", SUPPRESSION], "a pipeline of"
    kinds = [str(part.WhichOneof("Type")) for part in parts]
    if kinds != wanted:
        raise ProgramError(f"{mlpackage.name} is {what} {', '.join(kinds) or 'nothing'}, not an ML program")

    @cache
    def open_blobs(name: str) -> BlobFile:
        path = (specification.parent / name.removeprefix("@model_path/")).resolve()
        if not path.is_relative_to(specification.parent.resolve()) or not path.is_file():
            raise ProgramError(f"the program names a weight file that is not in the package: {name}")
        return BlobFile(path)

    function = read_function(parts[0].mlProgram, open_blobs)
    program = MLProgram(mlpackage.name, function, _image_inputs(parts[0]), parts[0].specificationVersion)
    if len(parts) > 1:
        return Detector(program, read_suppression(parts[1]), model.specificationVersion)
    return Classifier(program, function.naming) if function.naming else program


def _image_inputs(model: Any) -> dict[str, str]:
    """Return the inputs that are images, each with its colours, such as ``RGB``."""
    images = FeatureTypes_pb2.ImageFeatureType
    return {
        feature.name: images.ColorSpace.Name(feature.type.imageType.colorSpace)
        for feature in model.description.input
        if feature.type.WhichOneof("Type") == "imageType"
    }


def _locate_specification(mlpackage: Path) -> Path:
    try:
        manifest = json.loads((mlpackage / "Manifest.json").read_text(encoding="utf-8"))
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        path = (mlpackage / "Data" / str(entry["path"])).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgramError(f"{mlpackage.name} is not an .mlpackage: {type(error).__name__}: {error}") from error
    if not path.is_relative_to(mlpackage.resolve()):
        raise ProgramError(f"{mlpackage.name} names a specification outside of it: {path}")
    return path
