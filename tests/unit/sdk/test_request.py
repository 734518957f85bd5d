"""The request of a conversion as JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest

from modelexport.api.request import MOST_FLOAT_LAYERS, ConversionRequest
from modelexport.api.spec import DataRef, Model
from modelexport.matrix.support import Format, Precision, Recipe, Target, Threshold

REQUEST = ConversionRequest(
    export="default/tiny",
    model=Model("YOLOv8", DataRef("s3://checkpoints/tiny.pt")),
    target=Target(Format.ONNX, Precision.INT8),
    recipe=Recipe.STATIC_WI8_AI8,
    threshold=Threshold("agreement", 0.9),
    artifact_name="tiny-int8.onnx",
    output="s3://exports/default/tiny/",
    spec_hash="0123456789",
)


@pytest.mark.parametrize("count", [0, 4, MOST_FLOAT_LAYERS])
def test_request_keeps_number_of_float_layers(count: int) -> None:
    request = replace(REQUEST, max_float_layers=count)
    assert ConversionRequest.from_json(request.to_json()) == request


def test_earlier_converter_reads_request_without_float_layers() -> None:
    assert "maxFloatLayers" not in json.loads(REQUEST.to_json())


@pytest.mark.parametrize("count", [-1, MOST_FLOAT_LAYERS + 1, 1.5, True, "4", None])
def test_wrong_number_of_float_layers_is_refused(count: Any) -> None:
    text = json.dumps({**json.loads(REQUEST.to_json()), "maxFloatLayers": count})
    with pytest.raises(ValueError, match="maxFloatLayers must be a whole number from 0 to 1024"):
        ConversionRequest.from_json(text)
