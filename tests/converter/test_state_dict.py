"""Names of weights: a network is also recognised as a part of another module."""

from pathlib import Path

import pytest
import torch

from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.checkpoints.state_dict import own_weights
from modelexport_converter.failures import Failure
from trained.cells import TRAINED, ask, load, load_model
from trained.yolov8_cells import UNTOLD

WITH_WEIGHTS_ALONE = [name for name in TRAINED if not name.startswith(("YOLO11", "YOLO26", "YOLOv8-OBB"))]
"""A YOLO11 and a YOLO26 need their modules, and so does a YOLOv8 of another width than the published ones."""
PREFIXES = ("model.", "net.", "detector.model.")


@pytest.mark.parametrize("architecture", WITH_WEIGHTS_ALONE)
def test_network_in_lightning_module_is_found(architecture: str, tmp_path: Path) -> None:
    weights = read_checkpoint(TRAINED[architecture].weights).tensors
    inside = {f"model.{name}": value for name, value in weights.items()}
    content = {"state_dict": {**inside, "loss.weight": torch.ones(2)}, "pytorch-lightning_version": "2.5.0", "epoch": 3}
    torch.save(content | UNTOLD.get(architecture, {}), tmp_path / "x.ckpt")
    found = load(
        read_checkpoint(tmp_path / "x.ckpt"), ask(architecture, input_size=load_model(architecture).input_size)
    )
    expected = load_model(architecture).module.state_dict()
    for name, value in found.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_is_removed_and_other_prefixes_dropped(prefix: str) -> None:
    tensors = {f"{prefix}model.0.w": torch.ones(1), f"{prefix}x": torch.ones(1), "loss.x": torch.ones(1)}
    assert set(own_weights(tensors, "model.0.w")) == {"model.0.w", "x"}


@pytest.mark.parametrize("others", [("model.1.w",), ("ema.model.0.w",), ("my_model.0.w",)])
def test_known_names_are_kept(others: tuple[str, ...]) -> None:
    tensors = dict.fromkeys(("model.0.w", *others), torch.ones(1))
    assert own_weights(tensors, "model.0.w") == tensors


def test_two_networks_in_module_are_refused() -> None:
    weights = read_checkpoint(TRAINED["UNet"].weights).tensors
    both = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in weights.items()}
    with pytest.raises(Failure) as caught:
        load(Checkpoint(both), ask("UNet"))
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH


def test_integer_tensors_are_no_weights() -> None:
    """Integers of a quantised network must not be loaded silently as float weights."""
    weights = dict(read_checkpoint(TRAINED["UNet"].weights).tensors)
    weights["outc.conv.weight"] = weights["outc.conv.weight"].to(torch.int8)
    with pytest.raises(Failure, match=r"outc\.conv\.weight holds numbers of torch\.int8 instead of torch\.float32"):
        load(Checkpoint(weights), ask("UNet"))


def test_all_mismatches_are_reported_before_weights_load(tmp_path: Path) -> None:
    weights = dict(read_checkpoint(TRAINED["UNet"].weights).tensors)
    del weights["outc.conv.bias"]
    torch.save({"state_dict": {**weights, "best_metric": torch.tensor(float("inf"))}}, tmp_path / "x.pt")
    with pytest.raises(Failure) as caught:
        load(read_checkpoint(tmp_path / "x.pt"), ask("UNet"))
    assert "outc.conv.bias is missing; best_metric is not of this network" in str(caught.value)
