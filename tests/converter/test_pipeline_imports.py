"""A conversion imports only the libraries it needs: imports take most of the time of a small one."""

import os
import subprocess
import sys

import pytest

from command_line import SOURCES

COMMON = {"PIL", "numpy", "torch"}
HEAVY = (
    "PIL",
    "ai_edge_litert",
    "coremltools",
    "litert_torch",
    "minio",
    "numpy",
    "onnxruntime",
    "sklearn",
    "tensorflow",
    "torch",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torchao",
    "torchvision",
    "transformers",
    "ultralytics",
)


def loaded_by(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print(*(name for name in {HEAVY} if name in sys.modules))"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_fetch_and_publish_import_no_model_or_image_reader() -> None:
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.directory") == set()
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.s3") == {"minio"}


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("litert", "ai_edge_litert")])
def test_backend_imports_only_its_own_libraries(name: str, runtime: str) -> None:
    assert loaded_by("modelexport_converter.pipeline", f"modelexport_converter.backends.{name}") == {*COMMON, runtime}


def test_core_ml_backend_imports_only_its_own_libraries() -> None:
    found = loaded_by("modelexport_converter.pipeline", "modelexport_converter.backends.coreml")
    assert found == {"coremltools", *COMMON}
