"""Programs that open a file: golden files, and what holds for every file."""

import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from modelexport.matrix.support import Format
from modelexport.reading.facts import read_facts
from modelexport.reading.programs import WRITERS, write_programs
from program_reports import OBJECTS, PIXELS, SUPPRESSED, TORCHVISION, report_of

GOLDEN = Path(__file__).parents[2] / "golden/programs"
SUFFIXES = {"Swift": "swift", "Kotlin": "kt", "Python": "py", "C++": "cpp"}
CASES = {
    "onnx-plain": report_of("ONNX"),
    "onnx-pixels-nms": report_of("ONNX", SUPPRESSED, last=True, kind="uint8", **PIXELS),
    "onnx-batch-normalised": report_of("ONNX", batch=4, **TORCHVISION),
    "onnx-any-size": report_of("ONNX", size=None),
    "litert-plain": report_of("LiteRT"),
    "litert-pixels-nhwc": report_of("LiteRT", SUPPRESSED, last=True, kind="uint8", **PIXELS),
    "litert-batch-bytes": report_of("LiteRT", last=True, batch=3, kind="uint8", **PIXELS),
    "litert-int8-crop": report_of("LiteRT", kind="int8", resize="centre_crop"),
    "coreml-tensor": report_of("CoreML", **TORCHVISION),
    "coreml-batch-pixels": report_of("CoreML", batch=2, **PIXELS),
    "coreml-image": report_of("CoreML", kind="image", **PIXELS),
    "coreml-classifier": report_of(
        "CoreML", (("classLabel", []), ("classLabel_probs", [])), kind="image", resize="centre_crop", **PIXELS
    ),
    "coreml-nms": report_of("CoreML", OBJECTS, kind="image", **PIXELS),
    "pytorch-plain": report_of("PyTorch"),
    "tensorflow-plain": report_of("TensorFlow", last=True),
    "executorch-plain": report_of("ExecuTorch"),
}


@pytest.mark.parametrize("name", CASES)
def test_programs_are_the_golden_files(name: str) -> None:
    programs = write_programs(read_facts(CASES[name]))
    for language, program in programs.items():
        path = GOLDEN / f"{name}.{SUFFIXES[language]}.txt"
        if os.environ.get("MODELEXPORT_UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(program, encoding="utf-8")
        assert program == path.read_text(encoding="utf-8"), f"{path.name}; MODELEXPORT_UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize(
    ("fmt", "channels", "resize", "last"),
    list(product(("ONNX", "LiteRT", "CoreML"), (1, 2, 3, 4), ("letterbox", "centre_crop", "stretch"), (False, True))),
)
def test_brackets_of_programs_are_balanced(fmt: str, channels: int, resize: str, last: bool) -> None:
    steps: dict[str, Any] = {"mean": [0.5] * channels, "std": [0.25] * channels, "channels": channels}
    for program in write_programs(read_facts(report_of(fmt, last=last, resize=resize, **steps))).values():
        code = re.sub(r'"[^"\n]*"|//[^\n]*|# [^\n]*', "", program)
        for opening, closing in ("()", "[]", "{}"):
            assert code.count(opening) == code.count(closing)


@pytest.mark.parametrize("name", CASES)
def test_programs_name_file_input_and_outputs(name: str) -> None:
    facts = read_facts(CASES[name])
    for program in write_programs(facts).values():
        wanted = [facts.file, *([] if facts.for_vision else [facts.image.name, *(one.name for one in facts.outputs)])]
        assert [word for word in wanted if word not in program] == []


@pytest.mark.parametrize("name", [name for name in CASES if "onnx" in name or "litert" in name or "plain" in name])
def test_programs_in_python_compile(name: str) -> None:
    compile(write_programs(read_facts(CASES[name]))["Python"], name, "exec")


def test_every_format_has_a_program() -> None:
    assert WRITERS.keys() == set(Format)


def test_output_of_an_unknown_type_leaves_python() -> None:
    report = report_of("ONNX")
    report["model"]["outputs"][0]["type"] = "bool"
    assert list(write_programs(read_facts(report))) == ["Python"]


@pytest.mark.parametrize("name", ['x"); system("reboot', "a\nb", "", "${x}", 3])
def test_name_that_is_no_word_is_refused(name: Any) -> None:
    report = report_of("ONNX")
    report["model"]["outputs"][0]["name"] = name
    with pytest.raises(ValueError, match="is not a word"):
        read_facts(report)


@pytest.mark.parametrize("part", ["mean", "std", "resize", "channels"])
def test_preprocessing_that_is_not_known_is_refused(part: str) -> None:
    report = report_of("ONNX")
    report["model"]["preprocessing"][part] = [0.0]
    with pytest.raises(ValueError, match=r"preprocessing|channels"):
        read_facts(report)
