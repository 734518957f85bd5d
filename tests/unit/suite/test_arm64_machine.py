"""The emulated arm64 describes its own CPUs and lacks what the image lacks; a wrong file of it is a problem."""

from dataclasses import replace

import pytest

from arm64.comparison import TargetComparison, failures
from arm64.machine import DOCKERFILE, cpu_files, removed_patterns

ARTIFACT = {"sha256": "1" * 64, "size_bytes": 5_772_147}
VERIFICATION = {"value": "1.000000", "fidelity": {"metric": "top-1", "value": "1.0000"}}
MADE = {
    "target": "ONNX/FP32",
    "reason": "Succeeded",
    "message": "verified",
    "seconds": 612.4,
    "artifact": ARTIFACT,
    "verification": VERIFICATION,
    "reused": False,
}
RIGHT = TargetComparison(MADE, MADE | {"seconds": 9.6}, MADE | {"reused": True}, 0.999999, 0.9999, 0.0, 128)


def test_right_file_of_arm64_has_no_problem() -> None:
    assert RIGHT.problems() == []


@pytest.mark.parametrize("agreement", [0.99, float("nan")])
def test_wrong_file_of_arm64_is_a_problem(agreement: float) -> None:
    (problem,) = replace(RIGHT, agreement=agreement).problems()
    assert problem == f"ONNX/FP32: the file of arm64 agrees on amd64 by {agreement:.6f}, and 0.9999 is required"


def test_file_that_amd64_makes_anew_is_a_problem() -> None:
    assert replace(RIGHT, recognised=MADE).problems() == [
        "ONNX/FP32: amd64 does not take the file of arm64 for its own work"
    ]


def test_lines_say_whether_the_files_are_the_same() -> None:
    other = MADE | {"artifact": {"sha256": "2" * 64, "size_bytes": 5_772_150}}
    assert RIGHT.lines()[0] == "ONNX/FP32: 5,772,147 bytes, the same on amd64"
    assert (
        replace(RIGHT, native=other).lines()[0] == "ONNX/FP32: 5,772,147 bytes, not the same as the 5,772,150 of amd64"
    )


def test_failed_targets_are_named_with_their_message() -> None:
    lost = MADE | {"target": "ONNX/INT8", "reason": "VerificationFailed", "message": "agreement is 0.2"}
    waiting = {"target": "PyTorch/FP32", "state": "waiting"}
    assert failures([MADE, lost, waiting]) == ["ONNX/INT8: agreement is 0.2", "PyTorch/FP32: waiting"]


def test_guest_sees_as_many_cpus_of_arm64_as_there_are() -> None:
    files = cpu_files(2)
    assert files["etc/cpuinfo"].count("CPU part\t: 0xd0c\n") == 2
    assert files["etc/cpuinfo"].startswith("processor\t: 0\nFeatures\t: fp asimd ")
    assert files["sys/devices/system/cpu/present"] == "0-1\n"
    assert files["sys/devices/system/cpu/cpu1/regs/identification/midr_el1"] == "0x00000000413fd0c1\n"


def test_machine_lacks_what_the_image_lacks() -> None:
    patterns = removed_patterns(DOCKERFILE.read_text(encoding="utf-8"))
    assert {"tensorflow/include", "nvidia/cudnn/lib/libcudnn_*"} <= {*patterns}
    assert not any(pattern.endswith("\\") for pattern in patterns)
