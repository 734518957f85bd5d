"""The metadata that a user of a file needs, as the pairs of texts that every format can store."""

import json
from dataclasses import asdict

from modelexport import __version__
from modelexport_converter.model import LoadedModel

AUTHOR = "ModelExport"
DESCRIPTION = (
    "Converted and verified by ModelExport; the metadata says how to prepare the input and how to read the outputs."
)


def file_metadata_of(model: LoadedModel, *, channels_last: bool = False) -> dict[str, str]:
    """Return class names, preprocessing, input and outputs (as JSON) and the model's further metadata.

    ``channels_last``: the file takes images as (1, height, width, channels).
    """
    outputs = [{"name": output.name, "axes": output.axes, "meaning": output.meaning} for output in model.outputs]
    image = {
        "name": model.input_name,
        "shape": model.shape_in_file(channels_last=channels_last),
        "type": "float32",
        "channels": model.preprocessing.colours,
    }
    return {
        "modelexport_version": __version__,
        **model.metadata,
        "class_names": json.dumps(model.class_names, ensure_ascii=False),
        "input": json.dumps(image),
        "preprocessing": json.dumps(asdict(model.preprocessing)),
        "outputs": json.dumps(outputs),
    }
