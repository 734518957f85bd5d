"""Checkpoints of training scripts, with more than the weights: the network in them is found and loaded."""

import argparse
import collections
import copy
import dataclasses
import datetime
import enum
import functools
import random
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelexport.api.reasons import Reason
from modelexport_converter.architectures import unet as unet_code
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from trained.cells import TRAINED, ask, load, load_model

Weights = dict[str, torch.Tensor]
_FOREIGN: dict[str, type] = {}


def foreign(path: str, *bases: type) -> type:
    """A class of a library that is not installed: a pickle names it by its path, and nothing can import it."""
    module, _, name = path.rpartition(".")
    if path not in _FOREIGN:
        _FOREIGN[path] = type(name, bases or (types.SimpleNamespace,), {"__module__": module, "__qualname__": name})
    return _FOREIGN[path]


def save(content: Any, path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in _FOREIGN.items():
            parts = name.split(".")[:-1]
            for end in range(1, len(parts) + 1):
                if (module := ".".join(parts[:end])) not in sys.modules:
                    patch.setitem(sys.modules, module, types.ModuleType(module))
            patch.setattr(sys.modules[kind.__module__], kind.__name__, kind, raising=False)
        torch.save(content, path)


@functools.cache
def trained(architecture: str) -> Weights:
    content = torch.load(TRAINED[architecture].weights, weights_only=architecture != "YOLOv8")
    if architecture == "YOLOv8":
        content = content["model"].float().state_dict()
    weights = next((content[name] for name in ("model", "state_dict") if name in content), content)
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def earlier(weights: Weights) -> Weights:
    """The same network before averaging, which has other outputs."""
    return {name: value * 0.9 if value.is_floating_point() else value for name, value in weights.items()}


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def unet(weights: Weights) -> nn.Module:
    """The U-Net of the weights, as a module of PyTorch-UNet's own classes."""
    widths = [len(weights[name]) for name in unet_code._LEVELS]
    arguments = len(weights["outc.conv.weight"]), "up1.up.weight" not in weights, "inc.double_conv.0.bias" in weights
    network = unet_code.UNet(widths, *arguments)
    network.load_state_dict(weights)
    for module in network.modules():
        if type(module).__module__ == unet_code.__name__:
            place = "unet_model" if module is network else "unet_parts"
            module.__class__ = foreign(f"unet.{place}.{type(module).__name__}", type(module))
    return network


def optimiser(weights: Weights, kind: type[torch.optim.Optimizer] = torch.optim.AdamW) -> torch.optim.Optimizer:
    """An optimiser after one step, which keeps one or two numbers for each weight."""
    parameters = [nn.Parameter(value.clone()) for value in weights.values() if value.is_floating_point()]
    made: Any = kind(parameters, lr=0.1)  # type: ignore[call-arg]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return made


HABITS: dict[str, tuple[str, Callable[[Weights], Any]]] = {}


def habit(architecture: str) -> Callable[[Callable[[Weights], Any]], Callable[[Weights], Any]]:
    def note(write: Callable[[Weights], Any]) -> Callable[[Weights], Any]:
        HABITS[f"{architecture}-{write.__name__}"] = architecture, write
        return write

    return note


@habit("FCN")
def torchvision_segmentation(weights: Weights) -> Any:
    made = optimiser(weights, torch.optim.SGD)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        made,
        [
            torch.optim.lr_scheduler.LinearLR(made, 0.01, total_iters=2),
            torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.9**step),
        ],
        [2],
    )
    arguments = argparse.Namespace(model="fcn", device="cpu", aux_loss=True, output_dir=Path(), gpu=None, lr=0.01)
    return {
        "model": {**weights, "aux_classifier.0.weight": torch.ones(1)},
        "optimizer": made.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 29,
        "args": arguments,
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
    }


@habit("MobileNet")
def torchvision_detection(weights: Weights) -> Any:
    made = optimiser(weights, torch.optim.SGD)
    schedule = torch.optim.lr_scheduler.MultiStepLR(made, [16, 22])  # keeps a Counter
    return {
        "model": weights,
        "optimizer": made.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "args": argparse.Namespace(trainable_backbone_layers=None, norm_weight_decay=None),
        "epoch": 25,
    }


@habit("FCN")
def torchvision_averaged(weights: Weights) -> Any:
    averaged = {"n_averaged": torch.tensor(1000), **prefixed("module.", weights)}
    return {"model": prefixed("module.", earlier(weights)), "model_ema": averaged, "args": argparse.Namespace(ema=True)}


@habit("FCN")
def timm(weights: Weights) -> Any:
    return {
        "epoch": 9,
        "arch": "fcn",
        "state_dict": earlier(weights),
        "state_dict_ema": weights,
        "optimizer": optimiser(weights).state_dict(),
        "version": 2,
        "args": argparse.Namespace(opt_betas=None, mean=(0.485, 0.456, 0.406)),
        "amp_scaler": {"scale": 65536.0},
        "metric": np.float64(81.3),
    }


@habit("YOLOX")
def yolox(weights: Weights) -> Any:
    """Megvii's trainer saves the averaged network as the model."""
    kept = {"best_ap": np.float64(0.41), "curr_ap": np.float32(0.4)}
    return {"start_epoch": 300, "model": weights, "optimizer": optimiser(weights, torch.optim.SGD).state_dict(), **kept}


@habit("YOLOX")
def yolox_first_epoch(weights: Weights) -> Any:
    return {"start_epoch": 1, "model": prefixed("module.", weights), "optimizer": {}, "best_ap": 0, "curr_ap": None}


@habit("YOLOX")
def yolox_with_its_experiment(weights: Weights) -> Any:
    experiment = foreign("yolox.exp.yolox_base.Exp")(depth=0.33, width=0.25, act="silu", seed=None, ema=True)
    return {"model": weights, "exp": experiment, "args": argparse.Namespace(name="yolox-nano")}


@habit("YOLOv4")
def pytorch_yolov4(weights: Weights) -> Any:
    return collections.OrderedDict(prefixed("module.", weights))


@habit("YOLOv4")
def pytorch_yolov4_with_its_settings(weights: Weights) -> Any:
    settings = foreign("easydict.EasyDict", dict)(batch=64, anchors=[[12, 16]], TRAIN_OPTIMIZER="adam")
    return {"epoch": 3, "state_dict": weights, "optimizer": optimiser(weights).state_dict(), "config": settings}


@habit("YOLOv8")
def ultralytics_state_dict(weights: Weights) -> Any:
    """`YOLO(...).state_dict()` prefixes every name with one more `model.`."""
    return prefixed("model.", weights)


@habit("UNet")
def pytorch_unet(weights: Weights) -> Any:
    return collections.OrderedDict(weights, mask_values=[0, 1, 2])


@habit("UNet")
def pytorch_unet_with_masks_in_colour(weights: Weights) -> Any:
    return collections.OrderedDict(weights, mask_values=np.array([[0, 0, 0], [255, 0, 0]]))


@habit("UNet")
def pytorch_unet_whole(weights: Weights) -> Any:
    return unet(weights)


@habit("UNet")
def tutorial(weights: Weights) -> Any:
    """PyTorch's own tutorial."""
    return {
        "epoch": 5,
        "model_state_dict": weights,
        "optimizer_state_dict": optimiser(weights, torch.optim.Adam).state_dict(),
        "loss": torch.tensor(float("nan")),
    }


@habit("UNet")
def data_parallel(weights: Weights) -> Any:
    return nn.DataParallel(unet(weights)).state_dict()


@habit("UNet")
def data_parallel_whole(weights: Weights) -> Any:
    return {"model": nn.DataParallel(unet(weights)), "epoch": 3}


@habit("UNet")
def compiled(weights: Weights) -> Any:
    network: Any = torch.compile(unet(weights))
    return network.state_dict()


@habit("UNet")
def compiled_and_distributed(weights: Weights) -> Any:
    return {"model": prefixed("_orig_mod.module.", weights)}


@habit("UNet")
def stochastic_averages(weights: Weights) -> Any:
    averaged = torch.optim.swa_utils.AveragedModel(unet(weights))
    return {"model": earlier(weights), "ema_model": averaged.state_dict()}


@habit("UNet")
def averages_of_timm_whole(weights: Weights) -> Any:
    averaged = foreign("timm.utils.model_ema.ModelEmaV2", nn.Module)()
    averaged.module, averaged.decay, averaged.device = unet(weights), 0.9999, None
    return {"model": unet(earlier(weights)), "ema": averaged}


def lightning(weights: Weights, **parts: Any) -> dict[str, Any]:
    """The checkpoint of Lightning's trainer."""
    progress = {"total": {"ready": 5, "completed": 5}, "current": {"ready": 1, "completed": 1}, "is_last_batch": True}
    best = {
        "monitor": "val_loss",
        "best_model_score": torch.tensor(0.2),
        "best_model_path": "/home/user/epoch=4.ckpt",
        "current_score": torch.tensor(float("inf")),
        "best_k_models": {"/home/user/epoch=4.ckpt": torch.tensor(float("inf"))},
        "kth_value": torch.tensor(0.2),
    }
    stopping = {"wait_count": 0, "stopped_epoch": 0, "best_score": torch.tensor(float("inf")), "patience": 3}
    return {
        "epoch": 4,
        "global_step": 500,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.batch_progress": progress}, "test_loop": {}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min'}": best, "EarlyStopping{}": stopping},
        "optimizer_states": [optimiser(weights).state_dict()],
        "lr_schedulers": [{"last_epoch": 5, "milestones": collections.Counter([3, 4])}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.001, "encoder": None},
        **parts,
    }


@habit("UNet")
def lightning_2(weights: Weights) -> Any:
    return lightning(prefixed("model.", weights))


@habit("FCN")
def lightning_with_its_loss(weights: Weights) -> Any:
    own = {"criterion.weight": torch.ones(4), "val_iou.confmat": torch.zeros(4, 4, dtype=torch.long)}
    return lightning({**prefixed("net.", weights), **own})


@habit("UNet")
def lightning_with_a_metric_that_is_infinite(weights: Weights) -> Any:
    return lightning({**prefixed("net.", weights), "best_metric": torch.tensor(float("inf"))})


@habit("UNet")
def lightning_compiled(weights: Weights) -> Any:
    return lightning(prefixed("model._orig_mod.", weights))


@habit("UNet")
def lightning_of_2019(weights: Weights) -> Any:
    """Callbacks are keyed by their class, hyperparameters are a namespace."""
    callback = foreign("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    options = argparse.Namespace(data_dir=Path("data"), gpus=None)
    states = {callback: {"best_model_score": torch.tensor(0.1)}}
    return lightning(prefixed("unet.", weights), callbacks=states, hparams=options, hparams_type="Namespace")


@habit("UNet")
def lightning_with_its_parameters(weights: Weights) -> Any:
    parameters = foreign("pytorch_lightning.utilities.parsing.AttributeDict", dict)(
        config=types.SimpleNamespace(root=Path("data"), when=datetime.datetime(2026, 1, 1)), seed=None
    )
    return lightning(prefixed("model.", weights), hyper_parameters=parameters, hparams_type=type(parameters))


@habit("UNet")
def lightning_hydra(weights: Weights) -> Any:
    """`save_hyperparameters()` keeps the untrained network that it was given, and the factory of its optimiser."""
    settings = foreign("omegaconf.dictconfig.DictConfig")(_content={"lr": 0.1}, _parent=None, _flags_cache=None)
    parameters = {
        "net": unet(earlier(weights)),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.001),
        "scheduler": functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, mode="min"),
        "criterion": nn.CrossEntropyLoss(weight=torch.ones(4)),
        "cfg": settings,
    }
    return lightning(prefixed("net.", weights), hyper_parameters=parameters)


@habit("UNet")
def ignite(weights: Weights) -> Any:
    return {
        "trainer": {"iteration": 10, "epoch_length": 5},
        "model": weights,
        "optimizer": optimiser(weights).state_dict(),
    }


@habit("UNet")
def fastai(weights: Weights) -> Any:
    return {"model": weights, "opt": {"state": [{"mom": torch.ones(3)}], "hypers": [{"lr": 1e-3}]}}


@habit("UNet")
def catalyst(weights: Weights) -> Any:
    metrics: Any = collections.defaultdict(list, valid=collections.OrderedDict(loss=[np.float32(0.1), float("inf")]))
    return {"model_state_dict": weights, "epoch_metrics": metrics, "criterion_state_dict": {"weight": torch.ones(4)}}


@habit("UNet")
def mmengine(weights: Weights) -> Any:
    history = foreign("mmengine.logging.history_buffer.HistoryBuffer")(_log_history=np.array([0.5]), max_length=10)
    hub = foreign("mmengine.logging.message_hub.MessageHub")
    hub_state = {"log_scalars": collections.OrderedDict(loss=history), "runtime_info": {"kind": hub}}
    return {
        "meta": {"epoch": 3, "seed": 7, "dataset_meta": {"classes": ("a", "b")}, "cfg": "model = dict()"},
        "state_dict": prefixed("model.", weights),
        "message_hub": hub_state,
        "optimizer": optimiser(weights).state_dict(),
        "param_schedulers": [],
    }


@habit("UNet")
def deepspeed(weights: Weights) -> Any:
    return {
        "module": weights,
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [collections.OrderedDict((name, value.shape) for name, value in weights.items())],
        "ds_config": {"train_batch_size": 8},
        "rng_state": torch.get_rng_state(),
    }


@habit("UNet")
def names_of_its_own(weights: Weights) -> Any:
    """The names of the parts in VainF's DeepLabV3Plus."""
    return {
        "cur_itrs": 30000,
        "model_state": weights,
        "optimizer_state": optimiser(weights).state_dict(),
        "scheduler_state": {"base_lrs": [0.1]},
        "best_score": np.float64(0.7),
    }


@habit("UNet")
def network_of_its_own_name(weights: Weights) -> Any:
    return {"net": weights, "acc": 91.2, "epoch": 4}


@habit("UNet")
def basicsr(weights: Weights) -> Any:
    return {"params": earlier(weights), "params_ema": weights}


@habit("UNet")
def states_of_chance(weights: Weights) -> Any:
    """The random states that exact resuming of a training needs."""
    return {
        "model": weights,
        "torch_rng_state": torch.get_rng_state(),
        "numpy_rng_state": np.random.get_state(),
        "generator": np.random.default_rng(0),
        "python_rng_state": random.getstate(),
    }


class Mode(enum.Enum):
    FAST = "fast"


@dataclasses.dataclass
class Settings:
    lr: float
    sizes: tuple[int, ...]


@habit("UNet")
def plain_things(weights: Weights) -> Any:
    """Every type that such a dict can hold."""
    history: Any = collections.defaultdict(list)
    history["loss"].append(np.float32(0.1))
    relu: Any = torch.relu
    return {
        "model": weights,
        "history": history,
        "iou": np.array([0.1, np.nan]),
        "names": np.array(["a", "b"]),
        "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "took": datetime.timedelta(seconds=3),
        "cfg": types.SimpleNamespace(lr=1, path=Path("a/b")),
        "settings": Settings(0.1, (1, 2)),
        "mode": Mode.FAST,
        "loss": nn.CrossEntropyLoss(weight=torch.ones(4)),
        "loss_fn": nn.functional.cross_entropy,
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "shape": torch.Size([1, 3]),
        "seen": {1, 2},
        "frozen": frozenset({"inc"}),
        "range": range(3),
        "slice": slice(1, 2),
        "raw": b"\x00\x01",
        "queue": collections.deque([0.1], maxlen=5),
        "complex": 1j,
        "inf": float("inf"),
        "best": torch.tensor(float("-inf")),
        "partial": functools.partial(relu, inplace=True),
    }


@pytest.mark.parametrize("name", HABITS)
def test_network_is_found_and_matches_training(name: str, tmp_path: Path) -> None:
    architecture, write = HABITS[name]
    save(write(copy.deepcopy(trained(architecture))), tmp_path / "x.ckpt")
    found = answers(architecture, tmp_path / "x.ckpt")
    save(trained(architecture), tmp_path / "plain.pt")
    for wanted, given in zip(answers(architecture, tmp_path / "plain.pt"), found, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def answers(architecture: str, path: Path) -> tuple[torch.Tensor, ...]:
    size = load_model(architecture).input_size
    model = load(read_checkpoint(path), ask(architecture, input_size=size))
    with torch.inference_mode():
        given: tuple[torch.Tensor, ...] = model.module(model.example_input())
    return given


@pytest.mark.parametrize("architecture", sorted({architecture for architecture, _ in HABITS.values()}))
def test_plain_weights_match_trained_model(architecture: str, tmp_path: Path) -> None:
    """The baseline of the other tests; the network before averaging must differ from it."""
    save(trained(architecture), tmp_path / "plain.pt")
    save(earlier(trained(architecture)), tmp_path / "earlier.pt")
    plain, other = (answers(architecture, tmp_path / f"{name}.pt") for name in ("plain", "earlier"))
    model = load_model(architecture)
    with torch.inference_mode():
        wanted = model.module(model.example_input())
    torch.testing.assert_close(plain, wanted, atol=1e-5, rtol=1e-4)
    assert not all(torch.allclose(one, two, atol=1e-3) for one, two in zip(plain, other, strict=True))


TWO: Mapping[str, tuple[tuple[str, str], Callable[[Weights], Any]]] = {
    "dicts": (("student", "teacher"), lambda own: {"student": own, "teacher": earlier(own), "epoch": 3}),
    "prefixes": (
        ("student", "teacher"),
        lambda own: {"state_dict": prefixed("student.", own) | prefixed("teacher.", earlier(own))},
    ),
    "modules": (("generator", "target"), lambda own: {"generator": unet(own), "target": unet(earlier(own))}),
    "networks in a model": (
        ("online_network", "target_network"),
        lambda own: {"model": prefixed("online_network.", own) | prefixed("target_network.", earlier(own))},
    ),
}


@pytest.mark.parametrize("kind", TWO)
def test_two_networks_are_refused_with_both_names(kind: str, tmp_path: Path) -> None:
    names, write = TWO[kind]
    save(write(trained("UNet")), tmp_path / "x.pt")
    with pytest.raises(Failure) as caught:
        answers("UNet", tmp_path / "x.pt")
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    assert all(name in str(caught.value) for name in names), str(caught.value)


def test_fitting_network_is_chosen_over_discriminator(tmp_path: Path) -> None:
    discriminator = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1))
    both = {"generator": trained("UNet"), "discriminator": discriminator.state_dict(), "epoch": 3}
    save(both, tmp_path / "x.pt")
    save(trained("UNet"), tmp_path / "plain.pt")
    torch.testing.assert_close(answers("UNet", tmp_path / "x.pt"), answers("UNet", tmp_path / "plain.pt"))
