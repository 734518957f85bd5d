"""The names of ``import modelexport``: all there, and nothing heavy behind them until they are used."""

import io
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from typing import Any

import pytest
from packaging.requirements import Requirement
from rich.console import Console

import modelexport
from modelexport import console as module
from modelexport.console import is_live

HEAVY = ("kubernetes", "pydantic", "aiohttp", "kopf", "torch", "modelexport_operator", "modelexport_converter")


@pytest.mark.parametrize("name", modelexport.__all__)
def test_public_name_can_be_loaded(name: str) -> None:
    assert getattr(modelexport, name) is not None
    assert name in dir(modelexport)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'modelexport' has no attribute 'Cleint'"):
        _ = modelexport.Cleint


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import modelexport, modelexport.cli; modelexport.convert; modelexport.export", ()),
        ("import modelexport; modelexport.Client", ("kubernetes", "pydantic", "aiohttp")),
    ],
)
def test_names_load_what_they_need_only(statement: str, allowed: Sequence[str]) -> None:
    program = f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert set(eval(found)) <= set(allowed)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "architecture": ({"architecture": "YOLOv9"}, "spec.model.architecture", "'YOLOv9' is not supported; use one of"),
    "target": ({"to": ["TFLite"]}, "spec.targets", "'TFLite' is not a target; use one of LiteRT/FP32"),
    "no target": ({"to": []}, "spec.targets", "add at least one target"),
    "checkpoint": ({"checkpoint": "best.pt"}, "spec.model.checkpoint.uri", "use s3://bucket/key or https://host/path"),
    "samples": ({"calibration": "s3://abc/d/", "samples": 0}, "spec.calibration.samples", "whole number from 1"),
    "name": ({"name": "a" * 64}, "metadata.name", "use at most 63 characters"),
    "level": ({"architecture": "FasterRCNN", "to": ["CoreML"]}, "spec.targets[0]", "set spec.supportLevel: Extended"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_export_names_field_and_way_out(case: str) -> None:
    changed, field, words = BAD[case]
    arguments = {"name": "a", "architecture": "YOLOv8", "checkpoint": "s3://abc/a.pt", "to": ["ONNX"], **changed}
    with pytest.raises(modelexport.BadInput) as refused:
        modelexport.export(**arguments)
    assert refused.value.field == field
    assert words in str(refused.value)


def test_evaluation_is_a_uri_or_states_the_allowed_loss() -> None:
    stated = modelexport.Evaluation(modelexport.DataRef("s3://abc/val.zip"), max_drop=0.002)
    for evaluation, drop in (("s3://abc/val.zip", 0.01), (stated, 0.002)):
        export = modelexport.export(
            "a", architecture="YOLOv8", checkpoint="s3://abc/a.pt", to="ONNX", evaluation=evaluation
        )
        assert export.evaluation is not None
        assert (export.evaluation.dataset.uri, export.evaluation.max_drop) == ("s3://abc/val.zip", drop)


@pytest.mark.parametrize(("installed", "live"), [(True, True), (False, False)])
def test_notebook_shows_a_table_if_ipywidgets_is_there(
    monkeypatch: pytest.MonkeyPatch, installed: bool, live: bool
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object() if installed else None)
    assert is_live(Console(force_jupyter=True, file=io.StringIO())) is live


def test_package_installs_without_torch_and_kopf() -> None:
    needed, found = ["modelexport"], set()
    while needed:
        name = needed.pop()
        for text in requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed += [] if requirement.name in found else [requirement.name]
                found.add(requirement.name)
    assert "kubernetes" in found
    assert found.isdisjoint({"torch", "kopf", "numpy", "minio", "prometheus-client"})
