"""What a runtime user has to know of a file, as the text pairs that every format can carry inside."""

import json
from dataclasses import asdict

from modelexport import __version__
from modelexport_converter.model import LoadedModel

AUTHOR = "ModelExport"
DESCRIPTION = (
    "Converted and verified by ModelExport; the metadata says how to prepare the input and how to read the outputs."
)


def describe_usage(model: LoadedModel) -> dict[str, str]:
    """Return class names, preprocessing, input and outputs (as JSON) and the model's further facts."""
    outputs = [{"name": output.name, "axes": output.axes, "meaning": output.meaning} for output in model.outputs]
    image = {
        "name": model.input_name,
        "shape": model.input_shape,
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
