"""Writes `releases/`: checkpoints of narrow YOLOv8 and YOLO11 networks, as releases of ultralytics write them.

    PYTHONPATH=testdata:examples python -m models.make_checkpoints [RELEASE ...]    # all releases, one after the other

Each release is installed, by the hash in `releases.txt`, into its own folder with today's torch. `releases-aside.txt`
lists the other packages that older releases need. `train_release.py` runs in this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import matplotlib

from models import shapes
from models.dataset import write_dataset

_HERE = Path(__file__).resolve().parent
CHECKPOINTS = _HERE / "releases"
# Outside of the project and of the home folder: checkpoints contain the path and the git repository of a training.
_WORKSPACE = Path(tempfile.gettempdir()) / "shapes"
_OVERLAYS = _WORKSPACE / "packages"
_IMAGES = {"train": 12, "val": 6}

PLAN: Mapping[str, Mapping[str, str]] = {
    # The detector's loss is NaN with today's torch; its training arguments are an object of omegaconf.
    "8.0.6": {"classify": "finished"},
    "8.0.20": {"detect": "finished interrupted", "segment": "finished", "classify": "finished"},
    "8.0.58": {"detect": "finished", "segment": "finished", "classify": "interrupted"},
    "8.0.100": {"detect": "module", "pose": "finished"},
    "8.0.121": {"detect": "finished interrupted", "segment": "finished", "pose": "finished"},
    "8.0.150": {"detect": "finished", "classify": "finished", "detect-p2": "finished"},
    "8.0.200": {"detect": "finished", "segment": "finished", "pose": "finished"},
    "8.1.0": {"detect": "finished", "pose": "finished", "classify": "finished"},
    "8.1.20": {"detect": "saved", "segment": "finished"},
    "8.2.0": {"detect": "finished fused", "pose": "interrupted"},
    "8.2.40": {"detect": "finished interrupted", "segment-whole": "finished", "classify": "finished"},
    "8.2.48": {"detect": "finished saved", "pose": "finished", "classify": "interrupted"},
    "8.2.103": {"detect": "finished", "segment": "finished"},
    "8.3.0": {"detect": "interrupted", "classify": "finished saved", "detect-11": "finished"},
    "8.3.40": {"pose": "finished fused"},
    "8.3.100": {"detect": "last", "segment": "finished"},
    "8.3.200": {"detect": "interrupted", "detect-relu": "finished"},
    "8.4.0": {"detect": "finished interrupted fused", "classify": "finished"},
    "8.4.10": {"detect": "finished module", "detect-whole": "finished", "pose": "finished", "segment": "fused"},
    "8.4.140": {"segment": "finished", "pose": "interrupted", "classify": "fused"},
    "8.4.190": {"detect": "finished interrupted saved fused", "segment": "finished", "pose": "finished",
                "classify": "finished", "detect-11": "finished fused"},
}  # fmt: skip
"""The files of every release, 10 MB in total.

The releases cover the changes of the pickled content: layers in one module (8.0.100, not 8.0.121), the package
`ultralytics.yolo` (8.0.121, not 8.0.150), logits of a classifier (8.0.20, not 8.0.58), the loss in finished files
(8.0.112 to 8.2.46), averaged weights alone (8.2.40, not 8.1.20), depthwise classes (8.3.0, not 8.3.40), the first
YOLO11 (8.3.0), SPPF without its first activation (8.4.0 to 8.4.140, not 8.4.147).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="*", default=list(PLAN))
    for task in ("detect", "segment", "pose", "classify"):
        splits = {name: shapes.single_shape_images(name, count) for name, count in _IMAGES.items()}
        write_dataset(task, _WORKSPACE / "data" / task, splits)
    for release in parser.parse_args().release:
        train(release)


def train(release: str) -> None:
    """Install a release, train the planned networks with it, and write their files into `releases/`."""
    path = [_install(release, _requirement(release))]
    aside = (_HERE / "releases-aside.txt").read_text()
    if tuple(map(int, release.split("."))) < (8, 3, 200):
        path.append(_install("aside", aside))
    workspace = _WORKSPACE / release
    shutil.rmtree(workspace, ignore_errors=True)
    configuration = workspace / ".config" / "Ultralytics"
    configuration.mkdir(parents=True)
    # Any font keeps old releases from looking for theirs on the web.
    shutil.copyfile(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", configuration / "Arial.ttf")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(workspace),
        "YOLO_OFFLINE": "true",
        "OMP_NUM_THREADS": "1",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # they load what they have just written
    }
    plan = json.dumps({"release": release, "data": str(_WORKSPACE / "data"), "files": PLAN[release]})
    command = [sys.executable, str(_HERE / "train_release.py"), str(CHECKPOINTS), plan]
    log = workspace / "log.txt"
    with log.open("wb") as file:
        status = subprocess.run(command, cwd=workspace, env=environment, stdout=file, stderr=file, check=False)
    text = log.read_text(errors="replace")
    print("\n".join(re.findall(r"^.*\.pt: \d+ bytes, .*$", text, re.MULTILINE)), flush=True)
    if status.returncode:
        sys.exit(f"ultralytics {release} ended with exit code {status.returncode}, see {log}:\n{text[-2000:]}")


def _install(name: str, requirements: str) -> Path:
    """Return a folder with the required packages, each checked by its hash, and without their dependencies."""
    folder = _OVERLAYS / name
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        listed = partial / "requirements.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text(requirements)
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", sys.executable]
        options = ["--target", str(partial), "--no-deps", "--require-hashes", "--requirement", str(listed)]
        subprocess.run([*uv, *options], check=True)
        partial.rename(folder)
    return folder


def _requirement(release: str) -> str:
    """Return the lines of `releases.txt` for a release: its version and the hashes of its files."""
    listed = (_HERE / "releases.txt").read_text()
    found = re.search(rf"^ultralytics=={re.escape(release)} \\\n(?: +--hash=\S+(?: \\)?\n)+", listed, re.MULTILINE)
    assert found, f"releases.txt has no {release}"
    return found.group()


if __name__ == "__main__":
    main()
