"""Class names and normalisation in a LiteRT file, where the apps' libraries look for them.

MediaPipe, TensorFlow Lite's task library and the ML model binding of Android Studio read a metadata buffer, and the
files that it names from a zip archive behind the file. No package of the converter's lock writes that buffer, and it
is small. https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from modelexport_converter.backends.file_metadata import AUTHOR, DESCRIPTION, label_lines
from modelexport_converter.model import LoadedModel, Output

METADATA = "TFLITE_METADATA"
"""Name of the metadata buffer."""
LABELS = "labels.txt"
"""Name of the file in the archive that has one class name a line."""
IDENTIFIER = b"M001"
"""File identifier of the schema."""
_PARSER = "1.0.0"
"""The oldest version of the schema that has all that is written here."""

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AssociatedFile": ("name", "description", "type"),
    "BoundingBoxProperties": ("index", "type", "coordinate_type"),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author"),
        *("license", "associated_files", "min_parser_version"),
    ),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        *("name", "description", "dimension_names", "content", "process_units", "stats", "associated_files"),
    ),
}
"""The fields of each table in the order of the schema, as far as the last one that is written:
https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs"""
_FEATURE, _IMAGE, _BOX = (np.uint8(number) for number in (1, 2, 3))
"""Members of the union ``ContentProperties``."""
_NORMALIZATION = np.uint8(1)
"""Member of the union ``ProcessUnitOptions``."""
_COLOUR_SPACES = {3: np.int8(1), 1: np.int8(2)}
"""``ColorSpaceType`` by the number of channels; all others are unknown (0)."""
_AXIS_LABELS, _VALUE_LABELS = np.int8(2), np.int8(3)
"""Values of ``AssociatedFileType``: an axis of the tensor has classes, or its values are their numbers."""
_BOUNDARIES = np.int8(1)
"""Value of ``BoundingBoxType``: left, top, right, bottom."""
_DETECTIONS = {"boxes": "location", "labels": "category", "scores": "score", "count": "number of detections"}
"""The names by which the libraries find the outputs of a detector that has_nms boxes."""


@dataclass(frozen=True)
class _Table:
    """A table with the fields that are set: numpy's numbers and vectors, texts, tables and lists of these."""

    kind: str
    fields: Mapping[str, Any]


def describe(model: LoadedModel, outputs: Sequence[Output]) -> bytes:
    """Return the content of the metadata buffer of a file whose outputs have this order."""
    graph = {
        "input_tensor_metadata": [_describe_input(model)],
        "output_tensor_metadata": [_describe_output(output, outputs) for output in outputs],
    }
    fields = {
        "name": model.metadata.get("architecture", AUTHOR),
        "description": DESCRIPTION,
        "subgraph_metadata": [_Table("SubGraphMetadata", graph)],
        "author": AUTHOR,
        "min_parser_version": _PARSER,
    }
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, _Table("ModelMetadata", fields)), IDENTIFIER)
    return bytes(builder.Output())


def append_labels(path: Path, names: Sequence[str]) -> None:
    """Append the archive with the class names to a file; interpreters do not read behind the model."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{line}\n" for line in label_lines(names)))


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names behind a file; none if it has no archive."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        return tuple(archive.read(LABELS).decode().splitlines())


def _describe_input(model: LoadedModel) -> _Table:
    height, width = model.input_size
    size = _Table("ImageSize", {"width": np.uint32(width), "height": np.uint32(height)})
    colours = _COLOUR_SPACES.get(model.preprocessing.channels, np.int8(0))
    image = _Table("ImageProperties", {"color_space": colours, "default_size": size})
    mean, std = np.zeros(1), np.ones(1)
    if not model.options.takes_pixels:
        mean, std = (255 * np.array(values) for values in (model.preprocessing.mean, model.preprocessing.std))
    numbers = {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
    unit = {"options_type": _NORMALIZATION, "options": _Table("NormalizationOptions", numbers)}
    fields = {
        "name": model.input_name,
        "description": f"An image in {model.preprocessing.colours}.",
        "content": _content(_IMAGE, image),
        "process_units": [_Table("ProcessUnit", unit)],
    }
    return _Table("TensorMetadata", fields)


def _describe_output(output: Output, outputs: Sequence[Output]) -> _Table:
    has_nms = {other.name for other in outputs} >= set(_DETECTIONS)
    fields: dict[str, Any] = {
        "name": _DETECTIONS.get(output.name, output.name) if has_nms else output.name,
        "description": output.meaning,
        "dimension_names": list(output.axes),
        "content": _content(_FEATURE, _Table("FeatureProperties", {})),
    }
    if has_nms and output.name == "boxes":
        order = {"index": np.arange(4, dtype=np.uint32), "type": _BOUNDARIES}  # coordinates are ratios (0)
        fields["content"] = _content(_BOX, _Table("BoundingBoxProperties", order))
    if "class" in output.axes or (has_nms and output.name == "labels"):
        kind = _AXIS_LABELS if "class" in output.axes else _VALUE_LABELS
        file = {"name": LABELS, "description": "The class names, one a line.", "type": kind}
        fields["associated_files"] = [_Table("AssociatedFile", file)]
    return _Table("TensorMetadata", fields)


def _content(kind: Any, properties: _Table) -> _Table:
    return _Table("Content", {"content_properties_type": kind, "content_properties": properties})


def _write(builder: Any, value: Any) -> Any:
    """Write a text, vector, list or table after everything that it refers to, and return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        offsets = [_write(builder, entry) for entry in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    places = {_FIELDS[value.kind].index(name): field for name, field in value.fields.items()}
    written = {
        place: field if isinstance(field, np.number) else _write(builder, field) for place, field in places.items()
    }
    builder.StartObject(len(_FIELDS[value.kind]))
    for place, field in written.items():
        if isinstance(field, np.number):
            prepend = {
                np.int8: builder.PrependInt8Slot,
                np.uint8: builder.PrependUint8Slot,
                np.uint32: builder.PrependUint32Slot,
            }
            prepend[type(field)](place, field.item(), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(place, field, 0)
    return builder.EndObject()
