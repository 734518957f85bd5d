"""The messages between operator, converter and command line, and their common plan."""

import json
import os
from contextlib import nullcontext
from dataclasses import replace

import pytest

from command_line import model_export
from modelexport import names
from modelexport.api.fields import InvalidSpec
from modelexport.api.quantization import Effort, Quantization
from modelexport.api.reasons import Fault, Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import (
    ASSUMPTION_LENGTH,
    ASSUMPTIONS_LIMIT,
    WARNING_LENGTH,
    WARNINGS_LIMIT,
    Artifact,
    ConversionResult,
    Fidelity,
    Reference,
    Verification,
    read_verification,
)
from modelexport.api.spec import parse_export
from modelexport.matrix.support import (
    ARCHITECTURES,
    TARGETS,
    Format,
    Precision,
    Recipe,
    SupportLevel,
    Target,
    cells,
    lookup,
)
from modelexport.names import ExitCode
from modelexport.planning.plan import plan_export, spec_hash

CALIBRATION = {"dataset": {"uri": "s3://datasets/a.zip", "sha256": "0" * 64}, "samples": 7}
ALL = [str(target) for target in TARGETS if not ARCHITECTURES["YOLOv8"].is_extended(target)]


def requests_of(*targets: str, **spec: object) -> tuple[ConversionRequest, ...]:
    return plan_export(parse_export(model_export("shapes", *targets, **spec)), "s3://exports/team")


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_request_round_trips_through_json(calibration: dict[str, object] | None) -> None:
    for request in requests_of(*ALL, calibration=calibration):
        assert ConversionRequest.from_json(request.to_json()) == request


def test_request_with_input_size_round_trips_through_json() -> None:
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


def test_parameters_round_trip_and_change_file_name() -> None:
    body = model_export()
    body["spec"]["model"] |= {"architecture": "FasterRCNN", "parameters": STATED}
    (request,) = plan_export(parse_export(body), "s3://exports")
    assert ConversionRequest.from_json(request.to_json()) == request
    assert request.model.parameters.anchor_sizes == ((8,), (16,), (32,), (64,), (128,))
    for name in STATED:
        body["spec"]["model"]["parameters"] = {key: value for key, value in STATED.items() if key != name}
        (other,) = plan_export(parse_export(body), "s3://exports")
        assert other.spec_hash != request.spec_hash


def test_request_lists_only_given_parameters() -> None:
    (request,) = requests_of("ONNX/FP32")
    assert json.loads(request.to_json())["model"]["parameters"] == {}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schemaVersion": 1}', "1", '"text"'])
def test_invalid_message_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ConversionRequest.from_json(text)
    with pytest.raises(ValueError, match=r".+"):
        ConversionResult.from_json(text)


def test_message_of_other_version_is_refused_with_both_versions() -> None:
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
    recipe="fp16",
    artifact=Artifact("s3://exports/a.onnx", "0" * 64, 123),
    report_uri="s3://exports/report.json",
    verification=Verification(
        "agreement",
        "0.9999",
        "0.99",
        Reference.REBUILT,
        ("activation SiLU", "strides of YOLOv8"),
        ("it looks wrong",),
        Fidelity("masks", "0.9900", 64, "0.95", 198, 1, 1, "0.9712", "0.9534", None, "-0.0031"),
    ),
    seconds=1.5,
    peak_memory_mib=900,
    reused=True,
)


@pytest.mark.parametrize("result", [RESULT, ConversionResult(Reason.INTERNAL_ERROR, "unexpected")])
def test_result_round_trips_through_json(result: ConversionResult) -> None:
    assert ConversionResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("letter", ["a", "ü", "🙂", '"', "\n"])
def test_long_message_is_cut_to_kubelet_limit(letter: str) -> None:
    text = replace(RESULT, message=letter * 9000).to_json()
    assert len(text.encode()) <= names.TERMINATION_MESSAGE_LIMIT
    message = ConversionResult.from_json(text).message
    assert message.endswith("…")
    assert len(text.encode()) > names.TERMINATION_MESSAGE_LIMIT * 3 // 4, "more was cut than had to be"
    assert set(message[:-1]) == {" " if letter == "\n" else letter}


def test_longest_assumptions_and_warnings_fit_message() -> None:
    verification = Verification(
        "agreement",
        "0.999999",
        "0.9999",
        Reference.REBUILT,
        ("ü" * 200,) * (ASSUMPTIONS_LIMIT + 3),
        ("w" * 500,) * (WARNINGS_LIMIT + 3),
        Fidelity("keypoints", "0.9900", 9999, "0.95", 99999, 9999, 9999, "0.9712", None, "0.9534", "-0.0031"),
    )
    text = replace(RESULT, verification=verification, message="m" * 9000).to_json()
    assert len(text.encode()) <= names.TERMINATION_MESSAGE_LIMIT
    found = ConversionResult.from_json(text).verification
    assert found is not None
    assert [len(phrase) for phrase in found.assumptions] == [ASSUMPTION_LENGTH] * ASSUMPTIONS_LIMIT
    assert [len(warning) for warning in found.warnings] == [WARNING_LENGTH] * WARNINGS_LIMIT


def test_numbers_of_older_version_have_no_reference() -> None:
    numbers = {"metric": "agreement", "value": "1", "threshold": "0.9"}
    assert read_verification(numbers) == Verification("agreement", "1", "0.9")
    assert read_verification(numbers).to_dict() == numbers


def test_absent_fidelity_keeps_its_reason() -> None:
    silent = Verification("agreement", "1", "0.9", fidelity_absent="spec.calibration names no images")
    assert silent.to_dict()["fidelityAbsent"] == "spec.calibration names no images"
    assert read_verification(silent.to_dict()) == silent


def test_fidelity_reads_as_a_phrase_of_its_numbers() -> None:
    assert RESULT.verification is not None
    assert str(RESULT.verification.fidelity) == (
        "masks 0.9900 >= 0.95 (198 kept, 1 missed, 1 invented, IoU 0.9712, mask IoU 0.9534, score shift -0.0031)"
    )
    assert str(Fidelity("mean-iou", "0.9712", 64)) == "mean-iou 0.9712"


WRONG_NUMBERS = [
    {"reference": "Guessed"},
    {"reference": ["Rebuilt"]},
    {"assumptions": 1},
    {"assumptions": [1]},
    {"warnings": [{}]},
    {"value": 0.5},
    {"fidelity": {"metric": "boxes", "value": "1"}},
    {"fidelity": {"metric": "boxes", "value": "1", "images": 1, "kept": "1"}},
    {"fidelityAbsent": 1},
]


@pytest.mark.parametrize("wrong", WRONG_NUMBERS)
def test_result_with_mistyped_numbers_is_refused(wrong: dict[str, object]) -> None:
    content = json.loads(RESULT.to_json())
    content["verification"] |= wrong
    with pytest.raises(ValueError, match=r".+"):
        ConversionResult.from_json(json.dumps(content))


def test_oversized_result_drops_its_message() -> None:
    long = replace(RESULT, report_uri="s3://" + "a" * 5000)
    assert json.loads(long.to_json())["message"] == ""


def test_message_is_cut_at_exact_byte_and_stays_readable() -> None:
    room = 4096 - len(replace(RESULT, message="").to_json())
    for length in (room, room + 1):
        message = ConversionResult.from_json(replace(RESULT, message="x" * length).to_json()).message
        assert message.endswith("…") is (length > room)
    assert "für" in replace(RESULT, message="für").to_json()


def test_reason_alone_decides_success() -> None:
    assert RESULT.succeeded
    assert not replace(RESULT, reason=Reason.VERIFICATION_FAILED).succeeded


def test_exit_codes_follow_sysexits() -> None:
    assert tuple(ExitCode) == (os.EX_OK, os.EX_DATAERR, os.EX_SOFTWARE, os.EX_TEMPFAIL)


def test_every_reason_has_fault_advice_and_exit_code() -> None:
    for reason in Reason:
        assert reason.policy.advice.endswith("."), reason
        expected = {
            (Fault.NONE, False): ExitCode.SUCCEEDED,
            (Fault.USER, False): ExitCode.USER_FAULT,
            (Fault.SYSTEM, False): ExitCode.SYSTEM_FAULT,
            (Fault.SYSTEM, True): ExitCode.RETRIABLE,
        }
        assert reason.exit_code is expected[reason.policy.fault, reason.policy.retriable], reason


def test_reason_is_valid_kubernetes_condition_reason() -> None:
    assert all(reason.value.isalnum() and reason.value[0].isupper() for reason in Reason)
    assert len({reason.value for reason in Reason}) == len(Reason)


def test_permanent_exit_codes_are_those_not_retried() -> None:
    assert {reason.exit_code for reason in Reason if not reason.policy.retriable} == {
        *names.PERMANENT_EXIT_CODES,
        ExitCode.SUCCEEDED,
    }


def test_plan_has_one_ordered_request_per_target() -> None:
    assert [str(request.target) for request in requests_of(*ALL)] == ALL


def test_equal_requests_and_only_they_share_hash() -> None:
    first, again = requests_of(*ALL), requests_of(*ALL)
    assert [item.spec_hash for item in first] == [item.spec_hash for item in again]
    assert len({item.spec_hash for item in (*first, *requests_of(*ALL, calibration=CALIBRATION))}) == 2 * len(ALL)
    assert all(item.output.endswith(f"{item.target.slug}-{item.spec_hash}/") for item in first)


def test_hash_does_not_depend_on_export_name() -> None:
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
def test_other_model_or_images_change_hash(change: dict[str, object]) -> None:
    (first,), (other,) = (
        requests_of("ONNX/FP32", calibration=CALIBRATION),
        requests_of("ONNX/FP32", **{"calibration": CALIBRATION, **change}),
    )
    assert first.spec_hash != other.spec_hash


@pytest.mark.parametrize("change", ["recipe", "threshold"])
def test_other_recipe_or_threshold_changes_hash(change: str) -> None:
    export, cell = (
        parse_export(model_export("shapes", "ONNX/INT8")),
        lookup("YOLOv8", Target(Format.ONNX, Precision.INT8)),
    )
    other = (
        replace(cell, threshold=replace(cell.threshold, minimum=0.5))
        if change == "threshold"
        else replace(cell, backend=replace(cell.backend, data_free=Recipe.WEIGHT_ONLY_WI8_AFP16))
    )
    assert spec_hash(export, cell) != spec_hash(export, other)


def test_int8_is_static_when_format_supports_it() -> None:
    recipes = {str(item.target): item.recipe for item in requests_of(*ALL, calibration=CALIBRATION)}
    assert recipes["LiteRT/INT8"] is recipes["ONNX/INT8"] is Recipe.STATIC_WI8_AI8
    assert recipes["CoreML/INT8"] is Recipe.WEIGHT_ONLY_WI8_AFP16
    assert not any(item.recipe.needs_calibration for item in requests_of(*ALL))


@pytest.mark.parametrize("target", ["LiteRT/W8A16", "ONNX/W8A16"])
def test_w8a16_is_static_and_needs_images(target: str) -> None:
    (request,) = requests_of(target, calibration=CALIBRATION, supportLevel="Extended")
    assert request.recipe is Recipe.STATIC_WI8_AI16
    assert ConversionRequest.from_json(request.to_json()) == request
    with pytest.raises(InvalidSpec, match=f"^spec.targets.0.: {target} needs images"):
        requests_of(target, supportLevel="Extended")


def test_w8a16_needs_extended_support_level() -> None:
    with pytest.raises(InvalidSpec, match="ONNX/W8A16 is not in the stable matrix for YOLOv8"):
        requests_of("ONNX/W8A16", calibration=CALIBRATION)


@pytest.mark.parametrize("fmt", ["CoreML", "PyTorch", "TensorFlow", "ExecuTorch"])
def test_w8a16_is_refused_with_reason_by_other_formats(fmt: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^spec.targets.0..precision: W8A16 is not possible in {fmt}: .*16"):
        requests_of(f"{fmt}/W8A16", calibration=CALIBRATION, supportLevel="Extended")


def test_w8a16_ignores_how_far_int8_goes() -> None:
    asked = {"quantization": {"effort": "MixedPrecision"}, "supportLevel": "Extended", "calibration": CALIBRATION}
    (int8, w8a16) = requests_of("ONNX/INT8", "ONNX/W8A16", **asked)
    assert int8.quantization.effort is Effort.MIXED_PRECISION
    assert w8a16.quantization == Quantization()
    with pytest.raises(InvalidSpec, match="applies to none of the targets"):
        requests_of("ONNX/W8A16", **asked)


@pytest.mark.parametrize(("opset", "is_refused"), [(20, True), (21, False)])
def test_w8a16_needs_operators_of_16_bits(opset: int, is_refused: bool) -> None:
    body = model_export("shapes", "ONNX/W8A16", calibration=CALIBRATION, supportLevel="Extended")
    body["spec"]["targets"][0]["options"] = {"opset": opset}
    refusal = pytest.raises(InvalidSpec, match="opset below 21 and W8A16 exclude each other")
    with refusal if is_refused else nullcontext():
        parse_export(body)


def test_executorch_int8_needs_images() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec.targets.0.: ExecuTorch/INT8 needs images"):
        requests_of("ExecuTorch/INT8", supportLevel="Extended")


def test_unmeasured_w8a16_asks_for_memory_of_int8() -> None:
    int8, w8a16 = (
        lookup("MaskRCNN", Target(Format.LITERT, precision)) for precision in (Precision.INT8, Precision.W8A16)
    )
    assert int8.resources.memory_mib > int8.architecture.resources.memory_mib
    assert w8a16.numbers.full_size or w8a16.resources == int8.resources


COREML = frozenset(target for target in TARGETS if target.format is Format.COREML)


def extend(monkeypatch: pytest.MonkeyPatch, *targets: Target) -> None:
    row = replace(ARCHITECTURES["YOLOv8"], extended=frozenset(targets))
    monkeypatch.setitem(ARCHITECTURES, "YOLOv8", row)


def test_extended_cell_requires_opt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, *COREML)
    with pytest.raises(InvalidSpec) as caught:
        requests_of("ONNX/FP32", "CoreML/FP16")
    assert str(caught.value) == (
        "spec.targets[1]: CoreML/FP16 is not in the stable matrix for YOLOv8 (stable: LiteRT, ONNX, PyTorch, "
        "TensorFlow, ExecuTorch); set spec.supportLevel: Extended"
    )
    assert caught.value.reason is Reason.UNSUPPORTED_TARGET
    assert len(requests_of("CoreML/FP16", supportLevel=SupportLevel.EXTENDED.value)) == 1


def test_all_unsupported_targets_are_listed_grouped_by_format(monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, *COREML, Target(Format.LITERT, Precision.INT8))
    with pytest.raises(InvalidSpec) as caught:
        requests_of(*ALL)
    stable = "LiteRT/FP32, LiteRT/FP16, LiteRT/W8A16, ONNX, PyTorch, TensorFlow, ExecuTorch"
    assert f"LiteRT/INT8, CoreML are not in the stable matrix for YOLOv8 (stable: {stable});" in str(caught.value)


def test_absent_parameter_does_not_change_hash() -> None:
    model = {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/a.pt"}}
    without: list[dict[str, object]] = [{}, {"parameters": {}}, {"parameters": {"variant": None}}]
    hashes = {requests_of("ONNX/FP32", model={**model, **parameters})[0].spec_hash for parameters in without}
    assert hashes == {requests_of("ONNX/FP32")[0].spec_hash}
    other = requests_of("ONNX/FP32", model={**model, "parameters": {"numClasses": 3}})
    assert other[0].spec_hash not in hashes


def test_every_cell_has_threshold_and_resources() -> None:
    assert len(cells()) == len(ARCHITECTURES) * len(TARGETS)
    for cell in cells():
        assert 0 < cell.threshold.minimum <= 1
        assert 0 < cell.resources.memory_mib <= cell.resources.memory_limit_mib <= 4096
        assert cell.backend.cpu_architectures


def test_operator_module_of_standard_library_is_not_shadowed() -> None:
    import operator

    assert operator.add(1, 2) == 3
