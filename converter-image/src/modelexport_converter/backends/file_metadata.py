"""The metadata that a user of a file needs, as the pairs of texts that every format can store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from modelexport import __version__
from modelexport_converter.file_input import Scale
from modelexport_converter.model import LoadedModel

AUTHOR = "ModelExport"
DESCRIPTION = (
    "Converted and verified by ModelExport; the metadata says how to prepare the input and how to read the outputs."
)


def file_metadata_of(model: LoadedModel, *, channels_last: bool = False, scale: Scale | None = None) -> dict[str, str]:
    """Return class names, preprocessing, input and outputs (as JSON) and the model's further metadata.

    ``channels_last``: the file takes images as (1, height, width, channels). ``scale``: it takes quantised values.
    """
    channels_last = channels_last or model.options.channels_last
    outputs = [
        {"name": output.name, "axes": output.axes, "meaning": output.meaning} for output in model.outputs_in_file
    ]
    image = {
        "name": model.input_name,
        "shape": open_shape(model.shape_in_file(channels_last=channels_last)),
        "type": model.kind_in_file,
        "channels": model.preprocessing.colours,
        **describe_size(model),
        **describe_scale(scale),
    }
    return {
        "modelexport_version": __version__,
        **model.metadata,
        "class_names": json.dumps(model.class_names, ensure_ascii=False),
        "input": json.dumps(image),
        "preprocessing": json.dumps(describe_preprocessing(model)),
        "outputs": json.dumps(outputs),
    }


def describe_preprocessing(model: LoadedModel) -> Mapping[str, Any]:
    """Return the steps that prepare an image for the file; a file of pixels scales and normalises them itself."""
    steps = asdict(model.preprocessing)
    if not model.options.takes_pixels:
        return steps
    return {"resize": steps["resize"], "channels": steps["channels"], "pixelRange": "0-255"}


def describe_size(model: LoadedModel) -> dict[str, Any]:
    """Return the size (height, width) for which a file was calibrated that takes images of any; nothing for others."""
    return {"inputSize": model.input_size} if model.options.dynamic_size else {}


def describe_scale(scale: Scale | None) -> dict[str, Any]:
    """Return scale and zero point of an input of quantised values; nothing for others."""
    return {"quantization": {"scale": scale[0], "zeroPoint": scale[1]}} if scale else {}


def label_lines(names: Sequence[str]) -> tuple[str, ...]:
    """Return a line for each class; an empty name becomes the number of its class, since libraries skip empty lines."""
    return tuple(" ".join(name.split()) or str(index) for index, name in enumerate(names))


def open_shape(shape: Sequence[int]) -> Sequence[int | None]:
    """Return a shape for JSON: an axis of any size is 0 in files, and null there."""
    return tuple(size or None for size in shape)
