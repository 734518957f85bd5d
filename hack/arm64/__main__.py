"""Converts a trained model on an emulated arm64 and here, and compares the files: ``make arm64``.

The command is the user's, ``modelexport run``, which runs the converter as a program: on arm64 one in the emulated
machine, with the same store. So every file is verified there, against the original as arm64 computes it. Measured here
is whether amd64 takes the file for its own work, and what amd64 computes with it.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from arm64 import machine
from arm64.comparison import Record, TargetComparison, failures
from modelexport.building import read_targets
from modelexport.local.runner import CONVERTER_ENV
from modelexport.matrix.support import Target, lookup
from modelexport_converter.backends import Run, load_backend
from modelexport_converter.verification.agreement import compare
from testcluster.layout import REPOSITORY
from testcluster.shell import ClusterError, exclusive, say
from trained.cells import inputs, load_model, run_model

ARCHITECTURE = "YOLOv8-CLS"
MODELS = REPOSITORY / "testdata/models"
CHECKPOINT, IMAGES = MODELS / "weights/yolov8n-cls.pt", MODELS / "data/calibration-cls.zip"
"""The smallest trained model of the stable matrix, and its images."""
VERIFYING, CALIBRATING = 16, 8
"""Images that the emulated machine has time for."""
FORMATS = ("ONNX/FP32", "ONNX/INT8", "PyTorch/FP32", "TensorFlow/FP32")
"""The targets that it converts by default: one of each format that arm64 can make, and a calibrated one."""
FOLDER = machine.ROOM / "run"
"""The stores and the logs of the last run."""


def main() -> int:
    """Convert, compare and print. Return the exit status: 0 only if every file of arm64 is right."""
    parser = argparse.ArgumentParser(prog="python -m arm64", description=sys.modules[__name__].__doc__)
    parser.add_argument("targets", nargs="*", default=FORMATS, metavar="TARGET", help="such as ONNX/INT8")
    targets = list(read_targets(parser.parse_args().targets))
    try:
        with exclusive("arm64"):
            root = machine.provide()
            shutil.rmtree(FOLDER, ignore_errors=True)
            emulated, native = lay_out(FOLDER / "arm64", targets), lay_out(FOLDER / "amd64", targets)
            say("converting on the emulated arm64")
            made = run_export(emulated, {CONVERTER_ENV: shlex.join(converter(root))})
            say("converting here")
            recognised, usual = run_export(emulated, {}), run_export(native, {})
            compared = [compare_files(*records) for records in zip(targets, made, recognised, usual, strict=True)]
    except ClusterError as error:
        print(f"arm64: {error}", file=sys.stderr)
        return 1
    for one in compared:
        print("\n".join(one.lines()), flush=True)
    problems = [problem for one in compared for problem in one.problems()]
    for problem in problems:
        print(f"arm64: {problem}", file=sys.stderr)
    return 1 if problems else 0


def lay_out(folder: Path, targets: Sequence[Target]) -> Path:
    """Write an export of some targets, and a store with its checkpoint and images. Return their folder."""
    for part in ("scratch", "store/checkpoints", "store/datasets"):
        (folder / part).mkdir(parents=True)
    shutil.copy(CHECKPOINT, folder / "store/checkpoints/shapes.pt")
    with zipfile.ZipFile(IMAGES) as images, zipfile.ZipFile(folder / "store/datasets/shapes.zip", "w") as some:
        for name in images.namelist()[:VERIFYING]:
            some.writestr(name, images.read(name))
    export = {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": "shapes"},
        "spec": {
            "model": {"architecture": ARCHITECTURE, "checkpoint": {"uri": "s3://checkpoints/shapes.pt"}},
            "targets": [target.to_dict() for target in targets],
            "calibration": {"dataset": {"uri": "s3://datasets/shapes.zip"}, "samples": CALIBRATING},
        },
    }
    (folder / "export.yaml").write_text(yaml.safe_dump(export), encoding="utf-8")
    return folder


def converter(root: Path) -> list[str]:
    """Return the command of the converter on the emulated machine."""
    return machine.command(root, [FOLDER, *machine.SOURCES], machine.PYTHON, "-m", "modelexport_converter")


def run_export(folder: Path, environment: Mapping[str, str]) -> list[Record]:
    """Run the export of a folder and return the records of its targets.

    Raises:
        ClusterError: a target failed, so its file was not verified.
    """
    own = {
        # No setting of the caller reaches the emulated machine.
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder / "scratch"),
        "PYTHONPATH": ":".join(map(str, machine.SOURCES)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "QEMU_CPU": machine.CPU,
    }
    options = ["--store", "store", "--jobs", "1", "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "modelexport", "run", "export.yaml", *options],
        cwd=folder,
        env={**own, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    records: list[Record] = json.loads(done.stdout or "[]")
    if done.returncode:
        raise ClusterError("\n".join(failures(records)) or f"modelexport run ended with status {done.returncode}")
    return records


def compare_files(target: Target, made: Record, recognised: Record, usual: Record) -> TargetComparison:
    """Run the files of both on the evaluation images, here."""
    model = load_model(ARCHITECTURE)
    images = list(inputs(ARCHITECTURE, "eval"))
    ours, theirs = (
        open_file(target, FOLDER / name / "store" / record["artifact"]["uri"].removeprefix("s3://"))
        for name, record in (("arm64", made), ("amd64", usual))
    )
    agreement = compare(model, ours, images, original=partial(run_model, ARCHITECTURE)).value
    difference = max(
        float(np.abs(one - other).max())
        for image in images
        for one, other in zip(ours(image), theirs(image), strict=True)
    )
    threshold = lookup(ARCHITECTURE, target).threshold.minimum
    return TargetComparison(made, usual, recognised, agreement, threshold, difference, len(images))


def open_file(target: Target, path: Path) -> Run:
    """Open a published file in the runtime that verifies it."""
    if path.suffix == ".zip":
        folder = path.with_suffix(".unpacked")
        shutil.unpack_archive(path, folder)
        (path,) = folder.iterdir()
    return load_backend(target.format).open_file(load_model(ARCHITECTURE), path)


if __name__ == "__main__":
    sys.exit(main())
