"""The request of a conversion of the tiny model, as it reaches the converter."""

from modelexport.api.request import ConversionRequest
from modelexport.api.spec import DataRef, Model
from modelexport.matrix.support import Format, Precision, Recipe, Target, Threshold

REQUEST = ConversionRequest(
    export="default/tiny",
    model=Model("YOLOv8", DataRef("s3://checkpoints/tiny.pt")),
    target=Target(Format.ONNX, Precision.FP32),
    recipe=Recipe.FP32,
    threshold=Threshold("agreement", 0.9),
    artifact_name="tiny-fp32.onnx",
    output="s3://exports/default/tiny/onnx-fp32-0123456789/",
    spec_hash="0123456789",
)
