"""A conversion loads what it needs and no more: imports are most of the seconds of a small one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("operator/src", "converter-image/src"))
COMMON = {"PIL", "numpy", "torch"}
HEAVY = (
    "PIL",
    "ai_edge_litert",
    "coremltools",
    "litert_torch",
    "minio",
    "numpy",
    "onnxruntime",
    "torch",
    "torch._dynamo",
    "ultralytics",
)


def loaded_by(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print(*(name for name in {HEAVY} if name in sys.modules))"
    environ = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_fetching_and_publishing_load_nothing_that_opens_a_model_or_a_picture() -> None:
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.directory") == set()
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.s3") == {"minio"}


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("litert", "ai_edge_litert")])
def test_a_backend_loads_its_own_libraries_only(name: str, runtime: str) -> None:
    assert loaded_by("modelexport_converter.pipeline", f"modelexport_converter.backends.{name}") == {*COMMON, runtime}


def test_the_backend_of_core_ml_loads_its_own_libraries_only() -> None:
    found = loaded_by("modelexport_converter.pipeline", "modelexport_converter.backends.coreml")
    assert found & {"litert_torch", "ai_edge_litert", "onnxruntime", "ultralytics"} == set()
