"""A compromised conversion may leave anything. The publishing step refuses it with a reason.

Each case starts from the files of a good conversion, which would be published, and changes one thing.
"""

import hashlib
import io
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport_converter import __main__
from modelexport_converter.local import make_places
from modelexport_converter.publishing import converted_output
from modelexport_converter.publishing.original import HANDED_OVER
from tiny_request import REQUEST

NAME = REQUEST.artifact_name
SECRET = b"the publisher's own secret"


def good_draft() -> dict[str, Any]:
    return {
        "verification": {
            "metric": "agreement",
            "value": "0.990000",
            "threshold": "0.9",
            "reference": "Rebuilt",
            "assumptions": ["activation SiLU"],
            "warnings": [],
            "fidelity": {
                "metric": "top-1",
                "value": "0.9700",
                "threshold": "0.95",
                "images": 64,
                "kept": 58,
                "missed": 2,
            },
        },
        "agreements": {"scores": 0.99},
        "floatLayers": [],
        "floatLayerShares": [],
        "quantization": None,
        "latency": {"seconds": 0.0123, "images": 3},
        "device": "cpu",
        "images": {
            "source": "built-in",
            "calibrated": 0,
            "apart": True,
            "unreadable": [],
            "repeated": 0,
            "verified": 4,
            "withEvidence": 4,
        },
        "remarks": ["a remark"],
        "samples": [
            {
                "image": "/9j/",
                "size": [160, 160],
                "difference": 0.25,
                "model": [
                    {
                        "label": 1,
                        "score": 0.9,
                        "same": True,
                        "box": [1, 2, 3, 4.5],
                        "keypoints": [],
                        "runs": [0, 1, 2],
                        "corners": [-1.5, 0, 1, 2, 3, 4, 5, 6],
                    }
                ],
                "file": [],
            }
        ],
        "model": {
            "input": {
                "name": "image",
                "shape": [None, 3, 32, 32],
                "type": "float32",
                "axes": ["batch", "RGB", "height", "width"],
                "inputSize": [32, 32],
                "quantization": {"scale": 0.004, "zeroPoint": -128},
            },
            "preprocessing": {"resize": "letterbox", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "outputs": [
                {
                    "name": "scores",
                    "shape": [None, 4],
                    "type": "float32",
                    "axes": ["batch", "class"],
                    "meaning": "Probabilities.",
                }
            ],
            "classNames": ["cat", "dog"],
            "weights": "ema",
            "metadata": {"stride": "32"},
            "weightTypes": {"float32": 112},
            "opTypes": {"Conv": 1},
            "normalisation": {
                "mean": 0.1,
                "spread": 1.1,
                "firstSpread": None,
                "worstMean": 2.0,
                "worstLayer": "model.9.cv1.conv",
                "layers": 57,
                "images": 8,
            },
        },
        "effort": {"seconds": {"fetch": 0.1, "load": 1.0}, "total": 1.5, "peak_memory_mib": 900},
    }


@dataclass
class Pod:
    """A Pod whose first step is done; ``outputs`` is the folder of the second one."""

    root: Path
    places: dict[str, str]

    @property
    def outputs(self) -> Path:
        return Path(self.places[names.OUTPUTS_ENV])

    @property
    def artifact(self) -> Path:
        return self.outputs / NAME

    @property
    def draft(self) -> Path:
        return self.outputs / converted_output.DRAFT_FILE

    def run(self, step: str) -> tuple[int, ConversionResult | None]:
        message = self.root / "message.json"
        environ = {
            **self.places,
            names.REQUEST_ENV: REQUEST.to_json(),
            names.STORE_ENV: str(self.root / "store"),
            names.TERMINATION_LOG_ENV: str(message),
        }
        code = __main__.main(environ, io.StringIO(), step)
        return code, ConversionResult.from_json(message.read_text("utf-8")) if message.exists() else None

    def published(self) -> list[str]:
        return sorted(path.name for path in (self.root / "store/exports").rglob("*") if path.is_file())


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    (tmp_path / "store/checkpoints").mkdir(parents=True)
    (tmp_path / "store/checkpoints/tiny.pt").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "pod").mkdir()
    made = Pod(tmp_path, make_places(tmp_path / "pod"))
    assert made.run(names.FETCH) == (0, None)
    made.artifact.write_bytes(b"a converted file")
    made.draft.write_text(json.dumps(good_draft()), encoding="utf-8")
    return made


def test_good_output_is_published_with_recomputed_digest(pod: Pod) -> None:
    code, result = pod.run(names.PUBLISH)
    assert result is not None
    assert result.artifact is not None
    assert (code, result.reason, pod.published()) == (0, Reason.SUCCEEDED, ["report.json", NAME])
    assert result.artifact.sha256 == hashlib.sha256(b"a converted file").hexdigest()
    assert result.peak_memory_mib is not None
    assert result.peak_memory_mib >= 900


def link_to_secret(pod: Pod, path: Path) -> None:
    path.unlink()
    path.symlink_to(pod.root / "secret")


def hard_link_to_secret(pod: Pod, path: Path) -> None:
    path.unlink()
    os.link(pod.root / "secret", path)


def link_to_nothing(pod: Pod, path: Path) -> None:
    path.unlink()
    path.symlink_to(pod.root / "absent")


def link_to_itself(pod: Pod, path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_zero(pod: Pod, path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_environment(pod: Pod, path: Path) -> None:
    path.unlink()
    path.symlink_to("/proc/self/environ")


def pipe(pod: Pod, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def listening_socket(pod: Pod, path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the path of a socket is short
        server.bind(path.name)


def folder(pod: Pod, path: Path) -> None:
    path.unlink()
    path.mkdir()


def nothing(pod: Pod, path: Path) -> None:
    path.unlink()


def empty(pod: Pod, path: Path) -> None:
    path.write_bytes(b"")


def huge(pod: Pod, path: Path) -> None:
    os.truncate(path, 1 << 40)


FILES: dict[str, Callable[[Pod, Path], None]] = {
    found.__name__: found
    for found in (
        link_to_secret,
        hard_link_to_secret,
        link_to_nothing,
        link_to_itself,
        link_to_zero,
        link_to_environment,
        pipe,
        listening_socket,
        folder,
        nothing,
        empty,
        huge,
    )
}


def expect_refused(pod: Pod, *words: str) -> None:
    code, result = pod.run(names.PUBLISH)
    assert result is not None
    assert (code, result.reason, pod.published()) == (70, Reason.OUTPUT_REFUSED, [])
    for word in ("nothing is published", *words):
        assert word in result.message
    assert result.message.isprintable()
    assert SECRET.decode() not in result.message
    assert not list(Path(pod.places[names.WORK_DIR_ENV]).iterdir())


@pytest.mark.parametrize("name", [NAME, converted_output.DRAFT_FILE])
@pytest.mark.parametrize("case", FILES)
def test_non_regular_or_linked_file_is_refused(pod: Pod, case: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pod.root)
    FILES[case](pod, pod.outputs / name)
    expect_refused(pod)


@pytest.mark.parametrize(
    "name",
    [
        "tiny-fp16.onnx",
        "report.json",
        ".hidden",
        "tiny-fp32.onnx ",
        "TINY-FP32.ONNX",
        "\x1b[2Jtiny-fp32.onnx",
        "tiny-fp32\u202exnno.",
        "\udcff",
        "..\\..\\tiny",
        "$(AWS_SECRET_ACCESS_KEY)",
        "x" * 255,
    ],
)
@pytest.mark.parametrize("instead", [False, True])
def test_file_with_other_name_is_refused(pod: Pod, name: str, *, instead: bool) -> None:
    (pod.outputs / name).write_bytes(b"more")
    if instead:
        pod.artifact.unlink()
    expect_refused(pod)


@pytest.mark.parametrize("name", ["../tiny-fp32.onnx", "/etc/passwd", "..", ".", "a/b", "draft.json/../draft.json"])
def test_name_with_path_traversal_is_never_found(pod: Pod, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (pod.outputs.parent / NAME).write_bytes(b"elsewhere")
    pod.artifact.unlink()
    monkeypatch.setattr(sys.modules[__name__], "REQUEST", replace(REQUEST, artifact_name=name))
    expect_refused(pod)


def test_evaluation_that_nobody_asked_for_is_refused(pod: Pod) -> None:
    (pod.outputs / HANDED_OVER).write_bytes(b"records")
    expect_refused(pod, f"its folder holds the unexpected file '{HANDED_OVER}'")


@pytest.mark.parametrize("case", sorted(FILES.keys() - {"nothing", "empty"}))
def test_shared_evaluation_is_copied_only_as_plain_bounded_file(pod: Pod, case: str) -> None:
    path, scratch = pod.outputs / HANDED_OVER, pod.root / "scratch"
    scratch.mkdir()
    path.write_bytes(b"records")
    taken = converted_output._take_original(pod.outputs, scratch)
    assert taken is not None
    assert taken.read_bytes() == b"records"
    taken.unlink()
    FILES[case](pod, path)
    with pytest.raises(ValueError, match=HANDED_OVER):
        converted_output._take_original(pod.outputs, scratch)
    assert not taken.exists()


def test_folder_of_million_names_is_not_listed(pod: Pod) -> None:
    for index in range(2000):
        (pod.outputs / f"{index}").touch()
    expect_refused(pod, "its folder holds the unexpected file")


def test_file_growing_while_read_is_refused(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted_output, "ALLOWANCE", 0)
    pod.artifact.write_bytes(bytes(20))
    real = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_size == 20:
            pod.artifact.write_bytes(bytes(1000))
        return status

    monkeypatch.setattr(os, "fstat", grow)
    expect_refused(pod, "it grows while it is read")


Change = Callable[[dict[str, Any]], Any]
ESCAPE, TURN, HIDDEN = "\x1b]0;owned\x07", "\u202egnp.exe", "a\u200bb"
DRAFTS: dict[str, Change] = {
    "latency as a number": lambda d: d.update(latency=0.1),
    "negative latency": lambda d: d["latency"].update(seconds=-1),
    "more than a latency": lambda d: d["latency"].update(markup="<b>"),
    "escape in the device": lambda d: d.update(device=ESCAPE),
    "negative images": lambda d: d["images"].update(verified=-1),
    "images as a number": lambda d: d.update(images=4),
    "escape in an unreadable image": lambda d: d["images"].update(unreadable=[ESCAPE]),
    "escape in a remark": lambda d: d.update(remarks=[ESCAPE]),
    "too many remarks": lambda d: d.update(remarks=["more"] * 9),
    "a remark that is too long": lambda d: d.update(remarks=["x" * 1001]),
    "NaN agreement": lambda d: d["agreements"].update(scores=float("nan")),
    "infinite agreement": lambda d: d["agreements"].update(scores=float("-inf")),
    "agreement over one": lambda d: d["agreements"].update(scores=1.5),
    "agreement as text": lambda d: d["agreements"].update(scores="0.99"),
    "agreement as truth": lambda d: d["agreements"].update(scores=True),
    "agreements as list": lambda d: d.update(agreements=[0.99]),
    "too many agreements": lambda d: d.update(agreements={str(i): 0.9 for i in range(2000)}),
    "escape in a name of an agreement": lambda d: d.update(agreements={ESCAPE: 0.9}),
    "NaN seconds": lambda d: d["effort"]["seconds"].update(load=float("nan")),
    "negative seconds": lambda d: d["effort"].update(total=-1),
    "endless seconds": lambda d: d["effort"].update(total=1e300),
    "memory as fraction": lambda d: d["effort"].update(peak_memory_mib=0.5),
    "memory without end": lambda d: d["effort"].update(peak_memory_mib=10**30),
    "effort of another shape": lambda d: d["effort"].update(more=1),
    "images as truth": lambda d: d.update(images=True),
    "images below zero": lambda d: d.update(images=-1),
    "verification missed": lambda d: d["verification"].update(value="0.899999"),
    "verification as NaN": lambda d: d["verification"].update(value="nan"),
    "verification as infinity": lambda d: d["verification"].update(value="inf"),
    "verification over one": lambda d: d["verification"].update(value="7"),
    "verification as number": lambda d: d["verification"].update(value=0.99),
    "verification as words": lambda d: d["verification"].update(value="good"),
    "verification by another metric": lambda d: d["verification"].update(metric="cosine"),
    "verification by another threshold": lambda d: d["verification"].update(threshold="0.1"),
    "verification lacks its threshold": lambda d: d["verification"].pop("threshold"),
    "verification without a reference": lambda d: d["verification"].pop("reference"),
    "verification against another reference": lambda d: d["verification"].update(reference="Guessed"),
    "reference as a list": lambda d: d["verification"].update(reference=["Rebuilt"]),
    "assumptions as a text": lambda d: d["verification"].update(assumptions="none"),
    "assumptions as numbers": lambda d: d["verification"].update(assumptions=[1]),
    "too many assumptions": lambda d: d["verification"].update(assumptions=["a"] * 13),
    "too many warnings": lambda d: d["verification"].update(warnings=["a"] * 5),
    "warnings as an object": lambda d: d["verification"].update(warnings={"a": "b"}),
    "fidelity missed": lambda d: d["verification"]["fidelity"].update(value="0.9499"),
    "fidelity over one": lambda d: d["verification"]["fidelity"].update(value="1.1"),
    "fidelity by another threshold": lambda d: d["verification"]["fidelity"].update(threshold="0.5"),
    "fidelity as a number": lambda d: d["verification"].update(fidelity=0.99),
    "fidelity of no images": lambda d: d["verification"]["fidelity"].pop("images"),
    "escape in the metric of fidelity": lambda d: d["verification"]["fidelity"].update(metric=ESCAPE),
    "reason of absence as a list": lambda d: d["verification"].update(fidelityAbsent=["none"]),
    "samples as an object": lambda d: d.update(samples={}),
    "too many samples": lambda d: d.update(samples=d["samples"] * 7),
    "sample of another shape": lambda d: d["samples"][0].update(more=1),
    "sample image of any length": lambda d: d["samples"][0].update(image="/9j/" + "A" * (1 << 17)),
    "box of a sample at infinity": lambda d: d["samples"][0]["model"][0].update(box=[0, 0, 1, 1e300]),
    "label of a sample as text": lambda d: d["samples"][0]["model"][0].update(label="<b>"),
    "runs of a sample without end": lambda d: d["samples"][0]["model"][0].update(runs=[1] * 20_000),
    "corners of a sample far away": lambda d: d["samples"][0]["model"][0].update(corners=[-1e300] * 8),
    "corners of a sample without end": lambda d: d["samples"][0]["model"][0].update(corners=[1] * 9),
    "statistics as a text": lambda d: d["model"].update(normalisation="fine"),
    "statistics without a mean": lambda d: d["model"]["normalisation"].pop("mean"),
    "statistics below zero": lambda d: d["model"]["normalisation"].update(mean=-1),
    "escape in the name of a layer": lambda d: d["model"]["normalisation"].update(worstLayer=ESCAPE),
    "verification in other digits": lambda d: d["verification"].update(value="\u0660.99"),
    "verification with an underscore": lambda d: d["verification"].update(value="0.9_9"),
    "another digest": lambda d: d.update(artifact={"uri": "s3://other/x", "sha256": "0" * 64, "sizeBytes": 1}),
    "another request": lambda d: d.update(request={"output": "s3://other/"}),
    "another reason": lambda d: d.update(reason="Succeeded"),
    "other versions": lambda d: d.update(versions={"modelexport": "99"}),
    "no model": lambda d: d.pop("model"),
    "model as text": lambda d: d.update(model="a model"),
    "escape in a class name": lambda d: d["model"].update(classNames=[ESCAPE]),
    "turned class name": lambda d: d["model"].update(classNames=[TURN]),
    "hidden character in a class name": lambda d: d["model"].update(classNames=[HIDDEN]),
    "line break in a class name": lambda d: d["model"].update(classNames=["a\nb"]),
    "surrogate in a class name": lambda d: d["model"].update(classNames=["\ud800"]),
    "long class name": lambda d: d["model"].update(classNames=["x" * 257]),
    "escape in the place of weights": lambda d: d["model"].update(weights=ESCAPE),
    "class name as number": lambda d: d["model"].update(classNames=[1]),
    "too many class names": lambda d: d["model"].update(classNames=["x"] * 100_001),
    "escape in metadata": lambda d: d["model"]["metadata"].update(stride=ESCAPE),
    "metadata of more than text": lambda d: d["model"]["metadata"].update(stride={"a": 1}),
    "negative shape": lambda d: d["model"]["input"].update(shape=[1, -3, 32, 32]),
    "shape of fractions": lambda d: d["model"]["input"].update(shape=[1.0, 3, 32, 32]),
    "shape without end": lambda d: d["model"]["input"].update(shape=[1] * 100),
    "size of three sides": lambda d: d["model"]["input"].update(inputSize=[1, 2, 3]),
    "size of text": lambda d: d["model"]["input"].update(inputSize="32 x 32"),
    "scale without end": lambda d: d["model"]["input"]["quantization"].update(scale=float("inf")),
    "zero point beyond 8 bits": lambda d: d["model"]["input"]["quantization"].update(zeroPoint=128),
    "scale with more beside it": lambda d: d["model"]["input"]["quantization"].update(x=1),
    "output without a name": lambda d: d["model"]["outputs"][0].pop("name"),
    "weights below zero": lambda d: d["model"]["weightTypes"].update(float32=-1),
    "deep preprocessing": lambda d: d["model"]["preprocessing"].update(mean=[[[[[0.0]]]]]),
    "NaN in preprocessing": lambda d: d["model"]["preprocessing"].update(mean=float("nan")),
}


@pytest.mark.parametrize("case", DRAFTS)
def test_draft_report_with_invalid_field_is_refused(pod: Pod, case: str) -> None:
    draft = good_draft()
    DRAFTS[case](draft)
    pod.draft.write_text(json.dumps(draft), encoding="utf-8")
    expect_refused(pod)


TEXTS = {
    "no JSON": b"verified!",
    "nothing": b"",
    "a number": b"1",
    "a list": b"[]",
    "null": b"null",
    "no UTF-8": b'{"verification": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "a key twice": json.dumps(good_draft()).encode()[:-1] + b', "images": 5}',
    "two documents": json.dumps(good_draft()).encode() * 2,
    "Infinity": json.dumps(good_draft()).replace('"verified": 4', '"verified": Infinity').encode(),
    "a float beyond all": json.dumps(good_draft()).replace("0.99}", "1e999}").encode(),
    "a long number": json.dumps(good_draft()).replace('"verified": 4', '"verified": ' + "9" * 5000).encode(),
    "deep lists": b"[" * 100_000,
    "deep maps": b'{"a":' * 100_000,
    "deep where depth is taken": json.dumps(good_draft()).replace('"letterbox"', "[" * 50_000 + "]" * 50_000).encode(),
    "too long": b" " * ((2 << 20) + 1),
    "a zero byte": json.dumps(good_draft()).encode() + b"\0",
}


@pytest.mark.parametrize("case", TEXTS)
def test_draft_report_must_be_json_object(pod: Pod, case: str) -> None:
    pod.draft.write_bytes(TEXTS[case])
    expect_refused(pod)
