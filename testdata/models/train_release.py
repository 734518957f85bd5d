"""Trains narrow YOLOv8 and YOLO11 networks with one release of ultralytics, and keeps the files that it writes.

    python testdata/models/train_release.py TARGET PLAN

`make_checkpoints.py` runs it, with the release first on the path, in the folder where training leaves its files. PLAN
is JSON: {"release": "8.2.48", "data": "/folder/of/data/sets", "files": {"detect": "finished saved", ...}}. Every word
produces a `.pt` as the release wrote it, and a `.npz` with the outputs of the release's own network for
`training_image()`.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import nn

_ASIDE = ("IPython", "seaborn", "sentry_sdk", "torch.utils.tensorboard")
"""Packages that some releases import, without an effect on checkpoints."""
CLASSES, _SIDE, _HIDDEN = 3, 64, 8
_SETTINGS: dict[str, Any] = {
    "imgsz": _SIDE, "epochs": 2, "batch": 4, "nbs": 4, "workers": 0, "device": "cpu", "optimizer": "SGD", "lr0": 1e-3,
    "warmup_epochs": 0.0, "mosaic": 0.0, "plots": False, "cache": False, "verbose": False, "seed": 0, "exist_ok": True,
    "amp": False, "project": "runs", "pretrained": False,
}  # fmt: skip
_SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "classify": "-cls"}

# A YOLOv8 of two levels, since checkpoints of an interrupted training keep everything up to three times.
_BACKBONE = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "C2f", [8, True]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "C2f", [8, True]],
    [-1, 1, "SPPF", [8, 5]],
]
# The same of YOLO11; the first releases give attention one head for each 64 of half of the channels.
_BACKBONE_11 = [
    *_BACKBONE[:3],
    [-1, 1, "C3k2", [8, False, 0.25]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "C3k2", [8, True]],
    [-1, 1, "SPPF", [128, 5]],
    [-1, 1, "C2PSA", [128]],
]
_NECK_11 = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    [[-1, 3], 1, "Concat", [1]],
    [-1, 1, "C3k2", [8, False]],
    [-1, 1, "Conv", [8, 3, 2]],
    [[-1, 7], 1, "Concat", [1]],
    [-1, 1, "C3k2", [8, True]],
    [[10, 13], 1, "Detect", ["nc"]],
]
_NECK = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    [[-1, 3], 1, "Concat", [1]],
    [-1, 1, "C2f", [8]],
    [-1, 1, "Conv", [8, 3, 2]],
    [[-1, 6], 1, "Concat", [1]],
    [-1, 1, "C2f", [8]],
]
_HEADS = {
    "detect": [[9, 12], 1, "Detect", ["nc"]],
    "segment": [[9, 12], 1, "Segment", ["nc", 32, 16]],
    "pose": [[9, 12], 1, "Pose", ["nc", "kpt_shape"]],
}


def training_image() -> torch.Tensor:
    """Return the input (1, 3, 64, 64), in 0..1, whose outputs are stored for every release: blocks of many colours."""
    blocks = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    return torch.from_numpy(blocks.repeat(_SIDE // 16, 2).repeat(_SIDE // 16, 3))


def main(target: Path, plan: Mapping[str, Any]) -> None:
    for name in _ASIDE:
        sys.modules[name] = MagicMock(version_info=(9,), get_ipython=lambda: None)
    socket.create_connection = _refuse
    import ultralytics

    assert ultralytics.__version__ == plan["release"], ultralytics.__file__
    _narrow_heads()
    _keep_first_epoch()
    for kind, words in plan["files"].items():
        task, *variant = kind.split("-")
        weights = _train(kind, _describe(task, *variant), Path(plan["data"]) / task)
        for word in words.split():
            path = target / f"{plan['release']}-{kind}-{word}.pt"
            _STATES[word](weights, path)
            answers = _answer(path, task)
            np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **answers)
            print(f"{path.name}: {path.stat().st_size} bytes, {_spread(answers)}", flush=True)


def _refuse(*_: Any, **__: Any) -> socket.socket:
    raise OSError("training needs no network")


def _train(kind: str, network: Mapping[str, Any], data: Path) -> Path:
    """Train for two epochs; return the folder of the weights, with the first epoch's file as interrupted.pt."""
    from ultralytics import YOLO

    description = Path(f"narrow-{kind}.yaml")
    description.write_text(yaml.safe_dump(dict(network)))
    torch.manual_seed(0)
    model = YOLO(str(description))
    known = yaml.safe_load(next(_root().rglob("default.yaml")).read_text())
    where = data if (data / "train").exists() else data / "data.yaml"
    settings = {**_SETTINGS, "data": str(where), "name": kind}
    with nn.modules.module.register_module_forward_pre_hook(_quicken):
        model.train(**{key: value for key, value in settings.items() if key in known})
    return Path(model.trainer.last).parent


def _quicken(module: nn.Module, _: Any) -> None:
    """Make outputs depend on the input after a few steps: fast batch norm statistics, large linear weights."""
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = 0.5
    if isinstance(module, nn.Linear) and module.weight.std() < 0.5:
        nn.init.normal_(module.weight)


def _describe(task: str, variant: str = "short") -> dict[str, Any]:
    """Return the description of a network: of two levels, or ultralytics' own ("whole", "p2") at reduced width.

    "11" is a YOLO11, the others are YOLOv8.
    """
    common: dict[str, Any] = {"nc": CLASSES, "kpt_shape": [4, 3]} if task == "pose" else {"nc": CLASSES}
    if variant == "relu":
        common["activation"] = "nn.ReLU()"
    if variant == "11":  # the first releases build no C3k2 without scales
        return {**common, "scales": {"n": [1.0, 1.0, 1024]}, "backbone": _BACKBONE_11, "head": _NECK_11}
    if variant in {"short", "relu"}:
        common |= {"depth_multiple": 1.0, "width_multiple": 1.0}
        if task == "classify":
            return {**common, "backbone": _BACKBONE[:4], "head": [[-1, 1, "Classify", ["nc"]]]}
        return {**common, "backbone": _BACKBONE, "head": [*_NECK, _HEADS[task]]}
    suffix = _SUFFIX[task] + ("" if variant == "whole" else f"-{variant}")
    names = (f"yolov8{suffix}.yaml", f"yolov8n{suffix}.yaml")
    own = yaml.safe_load(next(path for name in names for path in sorted(_root().rglob(name))).read_text())
    own.pop("scales", None)
    return {**own, **common, "depth_multiple": 0.33, "width_multiple": 0.02}


def _root() -> Path:
    import ultralytics

    return Path(ultralytics.__file__).parent


def _narrow_heads() -> None:
    """Make the branches of every head as narrow as the rest, and their outputs differ between anchors and classes.

    A description cannot: a branch for boxes has at least 64 channels. The classes stay the release's own.
    """
    from ultralytics.nn import modules

    for kind in ("Detect", "Segment", "Pose"):
        head: Any = getattr(modules, kind, None)
        if head is not None:
            head.__init__ = _narrowed(head.__init__)
            head.bias_init = lambda self: None  # which makes every score nearly zero


def _narrowed(initialise: Callable[..., None]) -> Callable[..., None]:
    def narrow(self: Any, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **options)
        for name in ("cv2", "cv3", "cv4"):
            for level, branch in enumerate(getattr(self, name, ())):
                getattr(self, name)[level] = _branch(branch)

    return narrow


def _branch(branch: nn.Sequential) -> nn.Sequential:
    convolution: Any = type(branch[0])
    first = getattr(branch[0], "conv", None)
    if not isinstance(branch[-1], nn.Conv2d) or not isinstance(first, nn.Conv2d):
        return branch  # since 8.3 the class branch is narrow already
    last = nn.Conv2d(_HIDDEN, branch[-1].out_channels, 1)
    nn.init.normal_(last.weight, std=1.5)
    return nn.Sequential(convolution(first.in_channels, _HIDDEN, 3), convolution(_HIDDEN, _HIDDEN, 3), last)


def _keep_first_epoch() -> None:
    """Keep a copy of the file after the first epoch, which an interrupted training would leave."""
    trainer: Any = import_module(f"ultralytics{'.yolo' if (_root() / 'yolo/engine').exists() else ''}.engine.trainer")
    save = trainer.BaseTrainer.save_model

    def save_and_keep(self: Any) -> None:
        save(self)
        kept = Path(self.last).with_name("interrupted.pt")
        if not kept.exists():
            shutil.copyfile(self.last, kept)

    trainer.BaseTrainer.save_model = save_and_keep


def _copy(name: str) -> Callable[[Path, Path], None]:
    def copy(weights: Path, path: Path) -> None:
        shutil.copyfile(weights / name, path)

    return copy


def _save_fused(weights: Path, path: Path) -> None:
    model = _load(weights)
    model.fuse()
    model.save(str(path))


def _load(weights: Path) -> Any:
    from ultralytics import YOLO

    return YOLO(str(weights / "best.pt"))


_STATES: Mapping[str, Callable[[Path, Path], None]] = {
    "finished": _copy("best.pt"),
    "last": _copy("last.pt"),
    "interrupted": _copy("interrupted.pt"),
    "saved": lambda weights, path: _load(weights).save(str(path)),
    "fused": _save_fused,
    "module": lambda weights, path: torch.save(_load(weights).model, path),
}
"""The moments at which users take a file: from the training, from YOLO(...).save(), from torch.save of the module."""


def _answer(path: Path, task: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the outputs of the release's own network: (1, rows, anchors) with prototypes, or probabilities.

    Fails if float32 itself is not exact enough for a comparison; another training may be.
    """
    content = torch.load(path, map_location="cpu", weights_only=False)
    network = (content.get("ema") or content["model"]) if isinstance(content, dict) else content
    with torch.no_grad():
        answers = _named(network.float().eval()(training_image()), task)
        exact = _named(network.double()(training_image().double()), task)
    for name, answer in answers.items():
        assert torch.allclose(answer.double(), exact[name], atol=2e-3, rtol=2e-5), f"{path.name}: {name} are not exact"
    return {name: answer.numpy() for name, answer in answers.items()}


def _named(output: Any, task: str) -> dict[str, torch.Tensor]:
    if task == "classify":
        answer = output[0] if isinstance(output, tuple) else output
        # In early releases the predictor, not the network, computed probabilities.
        sums_to_one = torch.allclose(answer.sum(1), torch.ones(1, dtype=answer.dtype))
        return {"probabilities": answer if sums_to_one else answer.softmax(1)}
    if task != "segment":
        return {"rows": output[0].clone()}
    rows, rest = output
    rows, prototypes = rows if isinstance(rows, tuple) else (rows, rest[-1] if isinstance(rest, tuple | list) else rest)
    return {"rows": rows.clone(), "prototypes": prototypes}


def _spread(answers: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Return the standard deviations of scores over the anchors, or of probabilities over the classes, for the log."""
    scores = answers["rows"][0, 4 : 4 + CLASSES] if "rows" in answers else answers["probabilities"]
    return "scores differ by " + " ".join(f"{deviation:.3f}" for deviation in scores.std(axis=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
