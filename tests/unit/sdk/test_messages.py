"""What operator, converter and command line send to each other, and the plan that they share."""

import json
import os
from dataclasses import replace

import pytest

from command_line import model_export
from modelexport import names
from modelexport.fields import InvalidSpec
from modelexport.matrix import ARCHITECTURES, TARGETS, Format, Precision, Scheme, SupportLevel, Target, cells, lookup
from modelexport.names import ExitCode
from modelexport.plan import plan_export, spec_hash
from modelexport.reasons import Fault, Reason
from modelexport.request import ConversionRequest
from modelexport.result import (
    ASSUMPTION_LENGTH,
    ASSUMPTIONS_LIMIT,
    WARNING_LENGTH,
    WARNINGS_LIMIT,
    Artifact,
    ConversionResult,
    Reference,
    Verification,
    read_verification,
)
from modelexport.spec import parse_export

CALIBRATION = {"dataset": {"uri": "s3://datasets/a.zip", "sha256": "0" * 64}, "samples": 7}
ALL = [str(target) for target in TARGETS]


def requests_of(*targets: str, **spec: object) -> tuple[ConversionRequest, ...]:
    return plan_export(parse_export(model_export("shapes", *targets, **spec)), "s3://exports/team")


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_a_request_survives_its_way_through_json(calibration: dict[str, object] | None) -> None:
    for request in requests_of(*ALL, calibration=calibration):
        assert ConversionRequest.from_json(request.to_json()) == request


def test_a_request_with_an_input_size_survives_its_way_through_json() -> None:
    body = model_export()
    body["spec"]["model"]["parameters"] = {"inputSize": [320, 640], "variant": "n", "numClasses": 3}
    (request,) = plan_export(parse_export(body), "s3://exports")
    assert ConversionRequest.from_json(request.to_json()).model.parameters.input_size == (320, 640)


STATED = {
    "imageMean": ["0.1", "0.2", "0.3"],
    "detectionsPerImage": 7,
    "anchorSizes": [[8], [16], [32], [64], [128]],
    "aspectRatios": ["0.5"],
}


def test_stated_parameters_survive_their_way_and_name_another_file() -> None:
    body = model_export()
    body["spec"]["model"] |= {"architecture": "FasterRCNN", "parameters": STATED}
    (request,) = plan_export(parse_export(body), "s3://exports")
    assert ConversionRequest.from_json(request.to_json()) == request
    assert request.model.parameters.anchor_sizes == ((8,), (16,), (32,), (64,), (128,))
    for name in STATED:
        body["spec"]["model"]["parameters"] = {key: value for key, value in STATED.items() if key != name}
        (other,) = plan_export(parse_export(body), "s3://exports")
        assert other.spec_hash != request.spec_hash


def test_a_request_names_only_the_parameters_that_are_given() -> None:
    (request,) = requests_of("ONNX/FP32")
    assert json.loads(request.to_json())["model"]["parameters"] == {}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schemaVersion": 1}', "1", '"text"'])
def test_what_is_no_message_is_refused_as_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ConversionRequest.from_json(text)
    with pytest.raises(ValueError, match=r".+"):
        ConversionResult.from_json(text)


def test_a_message_of_another_version_is_refused_with_both_versions() -> None:
    (request,) = requests_of("ONNX/FP32")
    for version in (0, 9):
        other = json.dumps({**json.loads(request.to_json()), "schemaVersion": version})
        with pytest.raises(ValueError, match=f"schemaVersion {version}, this converter reads 1"):
            ConversionRequest.from_json(other)
        other = json.dumps({**json.loads(RESULT.to_json()), "schemaVersion": version})
        with pytest.raises(ValueError, match=f"schemaVersion {version}, this version reads 1"):
            ConversionResult.from_json(other)


RESULT = ConversionResult(
    reason=Reason.SUCCEEDED,
    message="verified and published",
    scheme="fp16",
    artifact=Artifact("s3://exports/a.onnx", "0" * 64, 123),
    report_uri="s3://exports/report.json",
    verification=Verification(
        "agreement", "0.9999", "0.99", Reference.REBUILT, ("activation SiLU", "strides of YOLOv8"), ("it looks wrong",)
    ),
    seconds=1.5,
    peak_memory_mib=900,
    reused=True,
)


@pytest.mark.parametrize("result", [RESULT, ConversionResult(Reason.INTERNAL_ERROR, "unexpected")])
def test_a_result_survives_its_way_through_json(result: ConversionResult) -> None:
    assert ConversionResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("letter", ["a", "ü", "🙂", '"', "\n"])
def test_a_long_message_is_cut_to_what_the_kubelet_keeps(letter: str) -> None:
    text = replace(RESULT, message=letter * 9000).to_json()
    assert len(text.encode()) <= names.TERMINATION_MESSAGE_LIMIT
    message = ConversionResult.from_json(text).message
    assert message.endswith("…")
    assert len(text.encode()) > names.TERMINATION_MESSAGE_LIMIT * 3 // 4, "more was cut than had to be"
    assert set(message[:-1]) == {" " if letter == "\n" else letter}


def test_as_many_assumptions_and_warnings_as_can_be_leave_room_for_the_rest() -> None:
    verification = Verification(
        "agreement",
        "0.999999",
        "0.9999",
        Reference.REBUILT,
        ("ü" * 200,) * (ASSUMPTIONS_LIMIT + 3),
        ("w" * 500,) * (WARNINGS_LIMIT + 3),
    )
    text = replace(RESULT, verification=verification, message="m" * 9000).to_json()
    assert len(text.encode()) <= names.TERMINATION_MESSAGE_LIMIT
    found = ConversionResult.from_json(text).verification
    assert found is not None
    assert [len(phrase) for phrase in found.assumptions] == [ASSUMPTION_LENGTH] * ASSUMPTIONS_LIMIT
    assert [len(warning) for warning in found.warnings] == [WARNING_LENGTH] * WARNINGS_LIMIT


def test_numbers_of_an_earlier_version_have_no_reference() -> None:
    numbers = {"metric": "agreement", "value": "1", "threshold": "0.9"}
    assert read_verification(numbers) == Verification("agreement", "1", "0.9")
    assert read_verification(numbers).to_dict() == numbers


WRONG_NUMBERS = [
    {"reference": "Guessed"},
    {"reference": ["Rebuilt"]},
    {"assumptions": 1},
    {"assumptions": [1]},
    {"warnings": [{}]},
    {"value": 0.5},
]


@pytest.mark.parametrize("wrong", WRONG_NUMBERS)
def test_a_result_with_numbers_of_other_types_is_no_result(wrong: dict[str, object]) -> None:
    content = json.loads(RESULT.to_json())
    content["verification"] |= wrong
    with pytest.raises(ValueError, match=r".+"):
        ConversionResult.from_json(json.dumps(content))


def test_a_result_that_is_too_long_by_itself_keeps_nothing_of_its_message() -> None:
    long = replace(RESULT, report_uri="s3://" + "a" * 5000)
    assert json.loads(long.to_json())["message"] == ""


def test_a_message_is_cut_at_the_very_byte_and_written_as_it_reads() -> None:
    room = 4096 - len(replace(RESULT, message="").to_json())
    for length in (room, room + 1):
        message = ConversionResult.from_json(replace(RESULT, message="x" * length).to_json()).message
        assert message.endswith("…") is (length > room)
    assert "für" in replace(RESULT, message="für").to_json()


def test_only_the_reason_says_whether_a_conversion_succeeded() -> None:
    assert RESULT.succeeded
    assert not replace(RESULT, reason=Reason.VERIFICATION_FAILED).succeeded


def test_exit_codes_are_those_of_sysexits() -> None:
    assert tuple(ExitCode) == (os.EX_OK, os.EX_DATAERR, os.EX_SOFTWARE, os.EX_TEMPFAIL)


def test_every_reason_has_a_fault_an_advice_and_an_exit_code() -> None:
    for reason in Reason:
        assert reason.policy.advice.endswith("."), reason
        expected = {
            (Fault.NONE, False): ExitCode.SUCCEEDED,
            (Fault.USER, False): ExitCode.USER_FAULT,
            (Fault.SYSTEM, False): ExitCode.SYSTEM_FAULT,
            (Fault.SYSTEM, True): ExitCode.RETRIABLE,
        }
        assert reason.exit_code is expected[reason.policy.fault, reason.policy.retriable], reason


def test_a_reason_is_a_word_that_kubernetes_takes_for_a_condition() -> None:
    assert all(reason.value.isalnum() and reason.value[0].isupper() for reason in Reason)
    assert len({reason.value for reason in Reason}) == len(Reason)


def test_permanent_exit_codes_are_those_that_are_not_tried_again() -> None:
    assert {reason.exit_code for reason in Reason if not reason.policy.retriable} == {
        *names.PERMANENT_EXIT_CODES,
        ExitCode.SUCCEEDED,
    }


def test_a_plan_has_one_request_per_target_in_its_order() -> None:
    assert [str(request.target) for request in requests_of(*ALL)] == ALL


def test_equal_requests_have_equal_hashes_and_others_do_not() -> None:
    first, again = requests_of(*ALL), requests_of(*ALL)
    assert [item.spec_hash for item in first] == [item.spec_hash for item in again]
    assert len({item.spec_hash for item in (*first, *requests_of(*ALL, calibration=CALIBRATION))}) == 2 * len(ALL)
    assert all(item.output.endswith(f"{item.target.slug}-{item.spec_hash}/") for item in first)


def test_the_hash_does_not_change_with_the_name_of_the_export() -> None:
    one, other = (parse_export(model_export(name)) for name in ("one", "other"))
    cell = lookup("YOLOv8", TARGETS[0])
    assert spec_hash(one, cell) == spec_hash(other, cell)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/b.pt"}}},
        {"model": {"architecture": "YOLOv8-Pose", "checkpoint": {"uri": "s3://checkpoints/a.pt"}}},
        {"calibration": {**CALIBRATION, "samples": 8}},
    ],
)
def test_another_model_or_other_pictures_give_another_hash(change: dict[str, object]) -> None:
    (first,), (other,) = (
        requests_of("ONNX/FP32", calibration=CALIBRATION),
        requests_of("ONNX/FP32", **{"calibration": CALIBRATION, **change}),
    )
    assert first.spec_hash != other.spec_hash


@pytest.mark.parametrize("change", ["scheme", "threshold"])
def test_another_scheme_or_threshold_gives_another_hash(change: str) -> None:
    export, cell = parse_export(model_export("shapes", "ONNX/INT8")), lookup("YOLOv8", TARGETS[5])
    other = (
        replace(cell, threshold=replace(cell.threshold, minimum=0.5))
        if change == "threshold"
        else replace(cell, backend=replace(cell.backend, data_free=Scheme.WEIGHT_ONLY_WI8_AFP16))
    )
    assert spec_hash(export, cell) != spec_hash(export, other)


def test_int8_is_static_with_calibration_where_the_format_has_that() -> None:
    schemes = {str(item.target): item.scheme for item in requests_of(*ALL, calibration=CALIBRATION)}
    assert schemes["LiteRT/INT8"] is schemes["ONNX/INT8"] is Scheme.STATIC_WI8_AI8
    assert schemes["CoreML/INT8"] is Scheme.WEIGHT_ONLY_WI8_AFP16
    assert not any(item.scheme.needs_calibration for item in requests_of(*ALL))


COREML = frozenset(target for target in TARGETS if target.format is Format.COREML)


def extend(monkeypatch: pytest.MonkeyPatch, *targets: Target) -> None:
    row = replace(ARCHITECTURES["YOLOv8"], extended=frozenset(targets))
    monkeypatch.setitem(ARCHITECTURES, "YOLOv8", row)  # type: ignore[arg-type]


def test_an_extended_cell_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, *COREML)
    with pytest.raises(InvalidSpec) as caught:
        requests_of("ONNX/FP32", "CoreML/FP16")
    assert str(caught.value) == (
        "spec.targets[1]: CoreML/FP16 is not in the stable matrix for YOLOv8 (stable: LiteRT, ONNX); "
        "set spec.supportLevel: Extended"
    )
    assert caught.value.reason is Reason.UNSUPPORTED_TARGET
    assert len(requests_of("CoreML/FP16", supportLevel=SupportLevel.EXTENDED.value)) == 1


def test_all_that_is_refused_is_named_at_once_and_a_whole_format_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, *COREML, Target(Format.LITERT, Precision.INT8))
    with pytest.raises(InvalidSpec) as caught:
        requests_of(*ALL)
    assert "LiteRT/INT8, CoreML are not in the stable matrix for YOLOv8 (stable: LiteRT/FP32, LiteRT/FP16, ONNX);" in (
        str(caught.value)
    )


def test_a_parameter_that_is_not_given_does_not_count_for_the_hash() -> None:
    model = {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/a.pt"}}
    hashes = {
        requests_of("ONNX/FP32", model={**model, **parameters})[0].spec_hash
        for parameters in ({}, {"parameters": {}}, {"parameters": {"variant": None}})
    }
    assert hashes == {requests_of("ONNX/FP32")[0].spec_hash}
    other = requests_of("ONNX/FP32", model={**model, "parameters": {"numClasses": 3}})
    assert other[0].spec_hash not in hashes


def test_every_cell_has_a_threshold_and_resources() -> None:
    assert len(cells()) == len(ARCHITECTURES) * len(TARGETS)
    for cell in cells():
        assert 0 < cell.threshold.minimum <= 1
        assert 0 < cell.resources.memory_mib <= cell.resources.memory_limit_mib <= 4096
        assert cell.backend.cpu_architectures


def test_the_standard_library_keeps_its_operator() -> None:
    import operator

    assert operator.add(1, 2) == 3
