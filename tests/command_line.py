"""Runs ``modelexport`` as a user does, with a fake converter or the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "sdk/src", ROOT / "converter-image/src")
FAKE_CONVERTER = ROOT / "tests/unit/cli/fake_converter.py"


def model_export(name: str = "shapes", *targets: str, **spec: Any) -> dict[str, Any]:
    """The body of a ModelExport with targets such as ``LiteRT/INT8``."""
    pairs = [target.split("/") for target in targets or ("ONNX/FP32",)]
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": name},
        "spec": {
            "model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/a.pt"}},
            "targets": [{"format": fmt, "precision": precision} for fmt, precision in pairs],
            **spec,
        },
    }


@dataclass
class CommandLine:
    """Runs ``modelexport`` in ``folder``, with a fake converter or the real one; ``behaviours`` is for the fake."""

    folder: Path
    fake: bool = True
    behaviours: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def write(self, *bodies: Any, name: str = "export.yaml") -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump_all(bodies), encoding="utf-8")
        return path

    def __call__(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = self._command(arguments)
        return subprocess.run(command, **self._settings(), capture_output=True, check=False, timeout=300)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._command(arguments), **self._settings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def _command(self, arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "modelexport", *map(str, arguments)]

    def _settings(self) -> dict[str, Any]:
        plan = self.folder / "behaviours.json"
        plan.write_text(json.dumps(self.behaviours), encoding="utf-8")
        ours = {"PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "TMPDIR": str(self.folder)}
        if self.fake:
            ours |= {"MODELEXPORT_CONVERTER": f"{sys.executable} {FAKE_CONVERTER}", "FAKE_CONVERTER": str(plan)}
        return {"cwd": self.folder, "text": True, "env": {**os.environ, **ours}}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what} did not happen in {seconds} s")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True
