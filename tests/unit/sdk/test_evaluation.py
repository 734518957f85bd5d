"""What an export says of its labelled images, and how requests, results and statuses carry it."""

import json
from typing import Any

import pytest

from command_line import model_export
from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Fault, Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Accuracy, ConversionResult, read_accuracy
from modelexport.api.spec import (
    EVALUATION_SECONDS_LIMIT,
    DataRef,
    DropType,
    Evaluation,
    LabelKind,
    OnDrop,
    parse_export,
)
from modelexport.names import ExitCode
from modelexport.planning.plan import check_sources, plan_export
from modelexport.planning.progress import expect_original, expect_stages, expect_steps

DATASET = {"dataset": {"uri": "s3://datasets/val.zip"}}
ACCURACY = Accuracy("mAP50-95", "0.5", "0.49", "0.01", "0.01", 500, ("-0.001", "0.02"))


def export_of(evaluation: Any, *targets: str, **fields: Any) -> dict[str, Any]:
    body = model_export("shapes", *(targets or ("ONNX/FP16", "LiteRT/INT8")), evaluation=evaluation)
    body["spec"]["targets"][-1].update(fields)
    return body


def requests(evaluation: Any, **fields: Any) -> tuple[ConversionRequest, ...]:
    return plan_export(parse_export(export_of(evaluation, **fields)), "s3://exports")


def test_evaluation_has_defaults_of_the_api() -> None:
    found = parse_export(export_of(DATASET)).evaluation
    assert found == Evaluation(
        DataRef("s3://datasets/val.zip"), LabelKind.AUTO, 1000, 0.01, DropType.ABSOLUTE, OnDrop.FAIL
    )


def test_every_evaluation_field_reaches_request() -> None:
    stated = {**DATASET, "labels": "YOLO", "samples": 7, "maxDrop": "0.5", "dropType": "Relative", "onDrop": "Publish"}
    for request in requests(stated):
        again = ConversionRequest.from_json(request.to_json())
        assert again == request
        assert again.evaluation == Evaluation(
            DataRef("s3://datasets/val.zip"), LabelKind.YOLO, 7, 0.5, DropType.RELATIVE, OnDrop.PUBLISH
        )


def test_target_overrides_allowed_drop() -> None:
    found = [request.evaluation and request.evaluation.max_drop for request in requests(DATASET, maxDrop="0.02")]
    assert found == [0.01, 0.02]


def test_request_without_evaluation_is_as_before() -> None:
    (request, _) = requests(None)
    assert "evaluation" not in json.loads(request.to_json())
    assert request.spec_hash != requests(DATASET)[0].spec_hash
    assert requests(DATASET)[0].spec_hash != requests({**DATASET, "samples": 8})[0].spec_hash


REFUSED = [
    ({}, {}, "spec.evaluation.dataset: is missing"),
    ({"dataset": {"uri": "val.zip"}}, {}, "spec.evaluation.dataset.uri: 'val.zip' is not a supported URI"),
    ({**DATASET, "labels": "VOC"}, {}, "'VOC' is not known; use one of Auto, COCO, YOLO, ImageFolder, MaskPNG"),
    ({**DATASET, "samples": 0}, {}, "spec.evaluation.samples: 0 is not a whole number from 1 to 10000"),
    ({**DATASET, "maxDrop": 0.01}, {}, "spec.evaluation.maxDrop: 0.01 is not a decimal from 0 to 1; write it as text"),
    ({**DATASET, "maxDrop": "1.5"}, {}, "spec.evaluation.maxDrop: '1.5' is not a decimal from 0 to 1"),
    ({**DATASET, "dropType": "Both"}, {}, "'Both' is not known; use one of Absolute, Relative"),
    ({**DATASET, "onDrop": "Warn"}, {}, "'Warn' is not known; use one of Fail, Publish"),
    (DATASET, {"maxDrop": "-1"}, "spec.targets[1].maxDrop: '-1' is not a decimal from 0 to 1"),
    (
        None,
        {"maxDrop": "0.1"},
        "spec.targets[1].maxDrop: needs labelled images; set spec.evaluation, or",
    ),
]


@pytest.mark.parametrize(("evaluation", "target", "message"), REFUSED)
def test_invalid_evaluation_is_refused_by_field(evaluation: Any, target: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_export(export_of(evaluation, **target))
    assert message in str(caught.value)


def test_custom_model_cannot_be_evaluated() -> None:
    body = export_of(DATASET)
    body["spec"]["model"]["architecture"] = "Custom"
    with pytest.raises(InvalidSpec, match=r"spec\.evaluation: the outputs of Custom have no known meaning; remove"):
        parse_export(body)


def test_labelled_images_obey_sources_of_class() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.evaluation\.dataset\.uri: 's3://datasets/val") as caught:
        check_sources(parse_export(export_of(DATASET)), ["s3://checkpoints/"])
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED


def test_accuracy_round_trips_in_result() -> None:
    result = ConversionResult(Reason.ACCURACY_LOST, "lost", accuracy=ACCURACY)
    assert ConversionResult.from_json(result.to_json(), exit_code=ExitCode.USER_FAULT) == result
    assert read_accuracy(result.to_dict()["accuracy"]) == ACCURACY
    assert "accuracy" not in json.loads(ConversionResult(Reason.ACCURACY_LOST, "lost").to_json())


def test_accuracy_is_kept_up_to_allowed_drop() -> None:
    assert ACCURACY.kept
    assert not Accuracy(**{**vars(ACCURACY), "drop": "0.010001"}).kept
    assert ACCURACY.absolute_drop == pytest.approx(0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "mAP 50"},
        {"value": 0.5},
        {"drop": "nan"},
        {"images": "500"},
        {"interval": ["0"]},
        {"interval": [0, 1]},
        {"maxDrop": None},
    ],
)
def test_accuracy_of_wrong_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"accuracy\."):
        read_accuracy({**ACCURACY.to_dict(), **change})


def test_reasons_of_evaluation_are_for_the_author() -> None:
    own = (Reason.ACCURACY_LOST, Reason.EVALUATION_INVALID, Reason.EVALUATION_NOT_FOUND)
    assert {reason.policy.fault for reason in own} == {Fault.USER}
    assert {reason.exit_code for reason in own} == {ExitCode.USER_FAULT}


def seconds_of(samples: int) -> list[float]:
    expected = (expect_stages(request) for request in requests({**DATASET, "samples": samples}))
    return [stages["evaluate"] for stages in expected if stages]


def test_evaluation_adds_to_expected_seconds() -> None:
    assert min(seconds_of(500)) > 0
    assert seconds_of(1000) == pytest.approx([2 * one for one in seconds_of(500)])


def test_evaluation_is_expected_to_end_at_its_limit() -> None:
    body = export_of({**DATASET, "samples": 10_000}, "ONNX/FP32")
    body["spec"]["model"]["parameters"] = {"inputSize": [2048, 2048]}
    assert expect_original(plan_export(parse_export(body), "s3://exports")[0]) == EVALUATION_SECONDS_LIMIT


def test_shared_evaluation_leaves_the_file_to_be_evaluated() -> None:
    request = requests(DATASET)[0]
    alone, shared = expect_steps(request), expect_steps(request, shares_original=True)
    original = expect_original(request)
    assert alone
    assert shared
    assert original
    assert alone["convert"] - shared["convert"] == pytest.approx(original)
    assert shared["convert"] > original / 2


def test_unknown_original_has_no_estimate() -> None:
    body = export_of(DATASET)
    body["spec"]["model"]["parameters"] = {"variant": "x"}
    assert expect_original(plan_export(parse_export(body), "s3://exports")[0]) is None
    assert expect_original(requests(None)[0]) is None
