"""Conversions with the packages of the lock for arm64 alone; the other image takes their work for its own.

A process in which no other package can be imported or found stands for the image: it costs no environment of its own.
The process in which TensorFlow or ExecuTorch runs a file to verify it is isolated from the variables that hide them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from command_line import ROOT, SOURCES
from converter import labelled
from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.api.spec import Calibration, DataRef, Evaluation, Model
from modelexport.matrix.support import BACKENDS, Format, Precision, Target, lookup
from trained.model import MODELS

ARCHITECTURE = "YOLOv8-CLS"
SAMPLES = 4
HIDE = """
from importlib import metadata
from importlib.machinery import PathFinder

MODULES, PACKAGES = {modules!r}, {packages!r}
find_module, find_package = PathFinder.find_spec, metadata.distribution


def find_spec(cls, name, path=None, target=None):
    return None if name in MODULES else find_module(name, path, target)


def distribution(name):
    if name in PACKAGES:
        raise metadata.PackageNotFoundError(name)
    return find_package(name)


PathFinder.find_spec, metadata.distribution = classmethod(find_spec), distribution
"""
"""Runs when Python starts."""

Convert = Callable[..., ConversionResult]


def normalise(package: str) -> str:
    """Return the name of a package as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def hide_other_packages() -> str:
    """Return the program that hides what is installed here and is not in the lock; amd64 has tensorflow-cpu."""
    text = (ROOT / "requirements/converter-arm64.txt").read_text(encoding="utf-8")
    locked = {normalise(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    locked |= {"modelexport", "tensorflow-cpu"}
    owners = {name: set(map(normalise, packages)) for name, packages in packages_distributions().items()}
    modules = {name for name, packages in owners.items() if packages.isdisjoint(locked)}
    return HIDE.format(modules=modules, packages=set().union(*owners.values()) - locked)


def ask(fmt: Format, precision: Precision) -> ConversionRequest:
    target = Target(fmt, precision)
    cell = lookup(ARCHITECTURE, target)
    return ConversionRequest(
        export="default/shapes",
        model=Model(ARCHITECTURE, DataRef("s3://checkpoints/a.pt")),
        target=target,
        recipe=cell.recipe(calibrated=True),
        threshold=cell.threshold,
        artifact_name=f"shapes-{precision.lower()}{cell.backend.suffix}",
        output=f"s3://exports/default/shapes/{target.slug}-0123456789/",
        spec_hash="0123456789",
        calibration=Calibration(DataRef("s3://datasets/calibration.zip"), SAMPLES),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    for folder in ("checkpoints", "datasets"):
        (store / folder).mkdir(parents=True)
    shutil.copyfile(MODELS / "weights/yolov8n-cls.pt", store / "checkpoints/a.pt")
    with zipfile.ZipFile(MODELS / "data/calibration-cls.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()[:SAMPLES]}
    labelled.write(store / "datasets/calibration.zip", images)
    return store


@pytest.fixture
def convert(store: Path, tmp_path: Path) -> Convert:
    """Converts in a process, with the packages of the lock for arm64 or with all."""
    hidden = tmp_path / "arm64"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(hide_other_packages(), encoding="utf-8")

    def run(request: ConversionRequest, *, arm64: bool) -> ConversionResult:
        message = tmp_path / "message.json"
        message.unlink(missing_ok=True)
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MODELEXPORT_")},
            "PYTHONPATH": os.pathsep.join(map(str, (*([hidden] if arm64 else []), *SOURCES))),
            names.REQUEST_ENV: request.to_json(),
            names.STORE_ENV: str(store),
            names.TERMINATION_LOG_ENV: str(message),
        }
        command = [sys.executable, "-m", "modelexport_converter"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
        assert message.exists(), done.stderr
        return ConversionResult.from_json(message.read_text(encoding="utf-8"))

    return run


CELLS = [
    *((fmt, Precision.FP32) for fmt in (Format.ONNX, Format.TENSORFLOW, Format.EXECUTORCH)),
    (Format.ONNX, Precision.INT8),
]
EVALUATED = (Format.PYTORCH, Precision.FP32)


def test_every_format_of_arm64_is_converted_here() -> None:
    made = {fmt for fmt, _ in (*CELLS, EVALUATED)}
    assert made == {fmt for fmt, row in BACKENDS.items() if "arm64" in row.cpu_architectures}


def convert_on_both(convert: Convert, store: Path, request: ConversionRequest) -> ConversionResult:
    """Convert with the packages of arm64, and see that the other image takes the file for its own work."""
    made = convert(request, arm64=True)
    assert (made.reason, made.reused) == (Reason.SUCCEEDED, False), made.message
    (report,) = store.rglob("report.json")
    tools = BACKENDS[request.target.format].tools
    assert json.loads(report.read_text(encoding="utf-8"))["versions"].keys() >= {*tools}
    again = convert(request, arm64=False)
    assert (again.reused, again.artifact) == (True, made.artifact)
    return made


@pytest.mark.parametrize(("fmt", "precision"), CELLS)
def test_other_image_recognises_file_of_arm64(fmt: Format, precision: Precision, convert: Convert, store: Path) -> None:
    convert_on_both(convert, store, ask(fmt, precision))


def test_other_image_takes_evaluation_of_original(convert: Convert, store: Path) -> None:
    labelled.write(store / "datasets/val.zip", labelled.folders(6))
    evaluation = Evaluation(DataRef("s3://datasets/val.zip"))
    first = convert_on_both(convert, store, replace(ask(*EVALUATED), evaluation=evaluation))
    records = store / "exports/default/shapes/original.records"
    content = records.read_bytes()
    os.utime(records, ns=(1, 1))
    second = convert(replace(ask(Format.ONNX, Precision.FP32), evaluation=evaluation), arm64=False)
    assert first.accuracy is not None
    assert second.accuracy is not None
    assert (first.accuracy.original, first.accuracy.images) == (second.accuracy.original, second.accuracy.images)
    assert (records.stat().st_mtime_ns, records.read_bytes()) == (1, content), "it is measured and written again"


@pytest.mark.parametrize("fmt", [fmt for fmt, row in BACKENDS.items() if "arm64" not in row.cpu_architectures])
def test_image_without_tools_of_format_says_so(fmt: Format, convert: Convert, store: Path) -> None:
    failed = convert(ask(fmt, Precision.FP32), arm64=True)
    assert failed.reason is Reason.CLASS_INVALID
    assert f"this converter makes no {fmt} files, because it has no " in failed.message
    assert "an image for amd64 does" in failed.message
    assert not list(store.rglob("report.json"))
