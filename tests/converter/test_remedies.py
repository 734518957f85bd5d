"""Following the way out that a refusal names leads to a correct model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converter.refusals import refuse
from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.inputs.images import prepare
from modelexport_converter.model import LoadedModel
from trained.cells import ask, load
from trained.model import MODELS

SIZE = (64, 64)


def follow(network: nn.Module, folder: Path, architecture: str, channels: int = 3) -> tuple[LoadedModel, torch.Tensor]:
    """Save a network with torch.export.save, as the message says; return the loaded model and an image."""
    image = torch.rand(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    torch.export.save(torch.export.export(network.eval(), (image,)), folder / "x.pt2")
    model = load(read_checkpoint(folder / "x.pt2"), ask(architecture))
    with torch.inference_mode():
        wanted = network(image)
        torch.testing.assert_close(model.module(image)[0], wanted, atol=1e-5, rtol=1e-4)
    return model, image


@pytest.mark.filterwarnings(
    "ignore:No complete tensor found:UserWarning"
)  # of views, which torch.export.save writes well
def test_other_ultralytics_network_exports_as_program(tmp_path: Path) -> None:
    from ultralytics import YOLO

    model = YOLO("yolo12n.yaml").model
    torch.save({"model": model}, tmp_path / "x.pt")
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        message = refuse(tmp_path / name, "YOLOv8")
        assert "after model.model[-1].export = True and a first call" in message
        assert "architecture Custom" in message
    model.model[-1].export = True
    model.eval()(torch.zeros(1, 3, *SIZE))
    assert follow(model, tmp_path, "Custom")[0].outputs[0].name == "output_0"


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image).softmax(1)


@pytest.mark.parametrize("architecture", ["UNet", "Custom"])
def test_program_accepts_grey_images(architecture: str, tmp_path: Path) -> None:
    model, image = follow(Grey(), tmp_path, architecture, channels=1)
    assert model.input_shape == (1, 1, *SIZE)
    assert model.example_input().shape == image.shape


def test_grey_unet_is_detected_from_weights(tmp_path: Path) -> None:
    weights = dict(torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"])
    name = "inc.double_conv.0.weight"
    grey = {**weights, name: weights[name].float().sum(1, keepdim=True)}
    for path, content in (("rgb.pt", weights), ("grey.pt", grey)):
        torch.save(content, tmp_path / path)
    rgb, own = (load(read_checkpoint(tmp_path / path), ask("UNet", input_size=SIZE)) for path in ("rgb.pt", "grey.pt"))
    assert (rgb.input_shape[1], own.input_shape[1]) == (3, 1)
    image = own.example_input()
    torch.testing.assert_close(own.module(image), rgb.module(image.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_grey_image_is_luma() -> None:
    from PIL import Image

    from modelexport_converter.model import Preprocessing

    image = Image.new("RGB", (4, 4), (200, 100, 50))
    found = prepare(image, Preprocessing("stretch").taking(1), (4, 4))
    assert found.shape == (1, 1, 4, 4)
    assert found[0, 0, 0, 0] == pytest.approx((0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, abs=1 / 255)


def test_impossible_channel_count_is_refused(tmp_path: Path) -> None:
    weights = dict(torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"])
    weights["inc.double_conv.0.weight"] = torch.rand(8, 5, 3, 3)
    torch.save(weights, tmp_path / "x.pt")
    assert "images of 5 channels; images have 1 (grey), 2 (grey, alpha)" in refuse(tmp_path / "x.pt", "UNet")


def test_unet_of_other_library_exports_as_program(tmp_path: Path) -> None:
    torch.save({"segmentation_head.0.weight": torch.rand(2, 8, 3, 3)}, tmp_path / "x.pt")
    message = refuse(tmp_path / "x.pt", "UNet")
    assert "those of segmentation_models_pytorch" in message
    assert "with a softmax or sigmoid as its last layer" in message
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Softmax(1))
    assert follow(network, tmp_path, "UNet")[0].outputs[0].name == "probabilities"


def test_old_file_loads_after_saving_again(tmp_path: Path) -> None:
    content = {"state_dict": torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"]}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    message = refuse(tmp_path / "old.pt", "UNet", reason=Reason.CHECKPOINT_UNREADABLE)
    assert "load and save it again with a newer torch" in message
    torch.save(torch.load(tmp_path / "old.pt", weights_only=True), tmp_path / "new.pt")
    assert load(read_checkpoint(tmp_path / "new.pt"), ask("UNet")).outputs[0].name == "probabilities"


def test_state_dict_replaces_unsafe_pickle(tmp_path: Path) -> None:
    import subprocess

    weights = torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"]
    torch.save({"model": weights, "commit": subprocess.CompletedProcess(["git"], 0)}, tmp_path / "x.pt")
    message = refuse(tmp_path / "x.pt", "UNet", reason=Reason.CHECKPOINT_UNSAFE)
    assert "save only the model's state_dict" in message
    torch.save(weights, tmp_path / "alone.pt")
    assert load(read_checkpoint(tmp_path / "alone.pt"), ask("UNet")).outputs[0].name == "probabilities"


@pytest.mark.parametrize("parts", [("student", "teacher"), ("generator", "discriminator"), ("net_a", "net_b")])
@pytest.mark.parametrize("nested", [True, False])
def test_two_networks_are_both_named(parts: tuple[str, str], nested: bool, tmp_path: Path) -> None:
    weights = torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"]
    flat = {f"{part}.{name}": value for part in parts for name, value in weights.items()}
    torch.save(dict.fromkeys(parts, weights) if nested else {"state_dict": flat}, tmp_path / "x.pt")
    message = refuse(tmp_path / "x.pt", "UNet")
    assert f"{min(parts)} and {max(parts)}" in message
    assert "save the one that is meant alone" in message
    torch.save({"state_dict": weights}, tmp_path / "one.pt")
    assert load(read_checkpoint(tmp_path / "one.pt"), ask("UNet")).outputs[0].name == "probabilities"


def test_averaged_module_is_selected(tmp_path: Path) -> None:
    weights = torch.load(MODELS / "weights/unet.pt", weights_only=True)["state_dict"]
    nothing = {name: torch.zeros_like(value) for name, value in weights.items()}
    both = {f"model.{name}": value for name, value in nothing.items()}
    torch.save({"state_dict": {**both, **{f"ema_model.{n}": v for n, v in weights.items()}}}, tmp_path / "x.pt")
    module = load(read_checkpoint(tmp_path / "x.pt"), ask("UNet")).module
    assert module.get_parameter("network.outc.conv.weight").abs().sum() > 0
