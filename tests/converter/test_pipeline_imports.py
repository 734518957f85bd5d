"""A conversion imports only the libraries it needs: imports take most of the time of a small one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import SOURCES

COMMON = {"PIL", "numpy", "torch"}
WEIGHTS = Path(__file__).parents[2] / "testdata/models/weights/yolov8n.pt"
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


def loaded_by(*modules: str, program: str = "") -> set[str]:
    program = f"{program}\nimport {', '.join(['sys', *modules])}"
    return set(printed_by(f"{program}\nprint(*(name for name in {HEAVY} if name in sys.modules))"))


def printed_by(program: str) -> list[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_fetch_and_publish_import_no_model_or_image_reader() -> None:
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.directory") == set()
    assert loaded_by("modelexport_converter.__main__", "modelexport_converter.stores.s3") == {"minio"}


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("litert", "ai_edge_litert")])
def test_backend_imports_only_its_own_libraries(name: str, runtime: str) -> None:
    assert loaded_by("modelexport_converter.pipeline", f"modelexport_converter.backends.{name}") == {*COMMON, runtime}


def test_core_ml_backend_imports_only_its_own_libraries() -> None:
    found = loaded_by("modelexport_converter.pipeline", "modelexport_converter.backends.coreml")
    assert found == {"coremltools", *COMMON}


def test_loading_and_reading_detections_import_torch_alone() -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
from modelexport.api.spec import DataRef, Model
from modelexport_converter.architectures.shared.detection import BOXES, SCORES
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.verification.answers import read_detections
load(read_checkpoint(Path({str(WEIGHTS)!r})), Model("YOLOv8", DataRef("s3://a/b")))
read_detections((BOXES, SCORES), (32, 32), (np.full((1, 4, 2), 0.5), np.full((1, 1, 2), 0.9)))
"""
    assert loaded_by(program=program) == {"numpy", "torch"}


def test_step_and_backend_are_imported_without_collections() -> None:
    """The step ends at once, because it has no request."""
    program = """
import gc
from types import SimpleNamespace
from modelexport import names
from modelexport_converter import steps
from modelexport_converter.runtime.progress import Stages
steps.FetchedInputs.read = lambda folder: SimpleNamespace(effort=Stages().effort(), earlier=None)
gc.collect()
before = gc.get_stats()[2]["collections"]
try:
    steps.convert({names.INPUTS_ENV: "."}, None, Stages())
except AttributeError:
    print(gc.get_freeze_count())
from modelexport.matrix.support import Format
from modelexport_converter.backends import load_backend
load_backend(Format.ONNX)
print(gc.get_freeze_count(), gc.get_stats()[2]["collections"] - before)
"""
    step, backend, full_collections = map(int, printed_by(program))
    assert 100_000 < step < backend
    assert full_collections == 0
