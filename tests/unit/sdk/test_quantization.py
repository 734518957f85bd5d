"""What an export says of INT8 that loses too much, and how requests, results and statuses carry it."""

import json
from typing import Any

import pytest

from command_line import model_export
from modelexport import BadInput, Effort, Quantization, export
from modelexport.api.body import export_body
from modelexport.api.fields import InvalidSpec
from modelexport.api.quantization import FLOAT_LAYER_TARGETS, MOST_FLOAT_LAYERS
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Accuracy, ConversionResult, Verification
from modelexport.api.rungs import MOST_RUNGS, QuantizationResult, Rung, read_quantization
from modelexport.api.spec import parse_export
from modelexport.names import TERMINATION_MESSAGE_LIMIT
from modelexport.planning.plan import plan_export

CALIBRATION = {"dataset": {"uri": "s3://datasets/photos.zip"}}
TARGETS = ("ONNX/FP16", "LiteRT/INT8", "CoreML/INT8")
RUNGS = (
    Rung("Ranges", 0, "0.3880", 21, "0.951100", "0.9400", "0.011700"),
    Rung("MixedPrecision", 4, "0.3890", 9, "0.960000", "0.9700", "0.004000"),
)
RESULT = QuantizationResult("MixedPrecision", 4, "0.3890", RUNGS)


def body(quantization: Any, *targets: str, calibration: Any = CALIBRATION) -> dict[str, Any]:
    return model_export("shapes", *(targets or TARGETS), quantization=quantization, calibration=calibration)


def requests(quantization: Any) -> dict[str, ConversionRequest]:
    planned = plan_export(parse_export(body(quantization)), "s3://exports")
    return {str(request.target): request for request in planned}


def test_quantization_has_defaults_of_the_api() -> None:
    assert parse_export(body({})).quantization == Quantization(Effort.AUTO, 16, 0.4)
    assert parse_export(body(None)).quantization is None


def test_layers_may_stay_in_float_where_all_else_is_8_bits() -> None:
    assert [str(target) for target in FLOAT_LAYER_TARGETS] == ["LiteRT/INT8", "ONNX/INT8", "ExecuTorch/INT8"]


def test_quantization_reaches_the_targets_it_concerns() -> None:
    planned = requests({"effort": "MixedPrecision", "maxFloatLayers": 3, "maxSizeRatio": "0.5"})
    asked = Quantization(Effort.MIXED_PRECISION, 3, 0.5)
    assert [request.quantization for request in planned.values()] == [Quantization(), asked, Quantization()]
    for request in planned.values():
        assert ConversionRequest.from_json(request.to_json()) == request


def test_default_quantization_changes_no_identity() -> None:
    absent, stated = requests(None), requests({"effort": "Auto", "maxFloatLayers": 16, "maxSizeRatio": "0.40"})
    assert [one.spec_hash for one in absent.values()] == [one.spec_hash for one in stated.values()]
    assert all("quantization" not in json.loads(one.to_json()) for one in stated.values())


@pytest.mark.parametrize("change", [{"effort": "Ranges"}, {"maxFloatLayers": 15}, {"maxSizeRatio": "0.41"}])
def test_other_quantization_is_another_file(change: dict[str, Any]) -> None:
    before, after = requests(None), requests(change)
    changed = [target for target, one in after.items() if one.spec_hash != before[target].spec_hash]
    assert changed == ["LiteRT/INT8"]


REFUSED = [
    ({"effort": "Training"}, "spec.quantization.effort: 'Training' is not known; use one of Auto, Ranges, MixedP"),
    ({"maxFloatLayers": 1025}, "spec.quantization.maxFloatLayers: 1025 is not a whole number from 0 to 1024"),
    ({"maxFloatLayers": "4"}, "spec.quantization.maxFloatLayers: '4' is not a whole number from 0 to 1024"),
    ({"effort": "MixedPrecision", "maxFloatLayers": 0}, "maxFloatLayers: 0 leaves effort MixedPrecision nothing to do"),
    ({"maxSizeRatio": 0.4}, "spec.quantization.maxSizeRatio: 0.4 is not a decimal above 0 and up to 1; write it as t"),
    ({"maxSizeRatio": "0.0"}, "spec.quantization.maxSizeRatio: '0.0' is not a decimal above 0"),
    ({"maxSizeRatio": "1.1"}, "spec.quantization.maxSizeRatio: '1.1' is not a decimal above 0"),
    ("Auto", "spec.quantization: 'Auto' is not an object"),
]


@pytest.mark.parametrize(("quantization", "message"), REFUSED)
def test_invalid_quantization_is_refused_by_field(quantization: Any, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_export(body(quantization))
    assert message in str(caught.value)


def test_quantization_of_no_target_is_refused() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_export(body({"effort": "Ranges"}, "ONNX/FP16", "CoreML/INT8"))
    assert str(caught.value) == (
        "spec.quantization.effort: Ranges applies to none of the targets: only LiteRT/INT8, ONNX/INT8 and "
        "ExecuTorch/INT8 can keep layers in float; add one of them, or remove spec.quantization"
    )


def test_quantization_without_images_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.quantization: layers are measured on images; set spec\.calibration"):
        parse_export(body({}, calibration=None))


def test_sdk_refuses_quantization_as_the_operator_does() -> None:
    fields: dict[str, Any] = {"architecture": "YOLOX", "checkpoint": "s3://checkpoints/a.pth", "to": "ONNX/INT8"}
    chosen = Quantization(Effort.MIXED_PRECISION, 8)
    built = export("shapes", **fields, calibration="s3://datasets/photos/", quantization=chosen)
    assert built.quantization == chosen
    assert export_body(built)["spec"]["quantization"] == {"effort": "MixedPrecision", "maxFloatLayers": 8}
    with pytest.raises(BadInput, match=r"spec\.quantization: layers are measured on images"):
        export("shapes", **fields, quantization=chosen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"effort": "All"},
        {"max_float_layers": MOST_FLOAT_LAYERS + 1},
        {"max_float_layers": True},
        {"max_size_ratio": 2.0},
    ],
)
def test_wrong_quantization_of_request_is_refused(wrong: dict[str, Any]) -> None:
    content = json.loads(requests(None)["LiteRT/INT8"].to_json()) | {"quantization": wrong}
    with pytest.raises(ValueError, match=r"quantization|Effort"):
        ConversionRequest.from_json(json.dumps(content))


def test_rungs_round_trip_in_result() -> None:
    result = ConversionResult(Reason.ACCURACY_LOST, "lost", quantization=RESULT)
    assert ConversionResult.from_json(result.to_json()) == result
    assert "quantization" not in json.loads(ConversionResult(Reason.ACCURACY_LOST, "lost").to_json())


def test_longest_result_fits_termination_message() -> None:
    rungs = tuple(
        Rung("MixedPrecision", 1024, "0.3890", 10**6, "0.960000", "0.9700", "-0.004000") for _ in range(MOST_RUNGS)
    )
    made = QuantizationResult("MixedPrecision", 1024, "0.3890", rungs, "x" * 300)
    accuracy = Accuracy("mask-mAP50-95", "0.512340", "0.488110", "0.024230", "0.02", 1000, ("0.020100", "0.028540"))
    proof = Verification("agreement", "0.951000", "0.85", assumptions=("a" * 96,) * 4)
    text = ConversionResult(
        Reason.ACCURACY_LOST, "m" * 5000, verification=proof, accuracy=accuracy, quantization=made
    ).to_json()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    assert len(ConversionResult.from_json(text).message) > 100


@pytest.mark.parametrize(
    "change",
    [
        {"effort": "Mixed precision"},
        {"floatLayers": -1},
        {"floatLayers": MOST_FLOAT_LAYERS + 1},
        {"sizeRatio": 0.4},
        {"rungs": []},
        {"rungs": [RUNGS[0].to_dict()] * (MOST_RUNGS + 1)},
        {"rungs": [{**RUNGS[0].to_dict(), "drop": "much"}]},
        {"stopped": 1},
    ],
)
def test_quantization_of_wrong_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="quantization"):
        read_quantization({**RESULT.to_dict(), **change})
