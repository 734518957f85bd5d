"""The YOLOv4 networks: equal to those of pytorch-YOLOv4, and strict about their checkpoints."""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from converter.refusals import refuse
from converter.synthetic_weights import make_weights
from modelexport_converter.architectures.shared.yolo_layers import decoder_buffers
from modelexport_converter.architectures.yolov4.loader import load
from modelexport_converter.architectures.yolov4.network import Network, Places, Tiny
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from trained.cells import TRAINED, ask

SIZE = (64, 96)
NETWORKS: Mapping[str, type[Network]] = {"full": Network, "tiny": Tiny}

# Of the state dicts that the code of pytorch-YOLOv4 makes for three classes: their length, and the first digits of the
# SHA-256 of the sorted lines "name shape". Parameters in millions are for 80 classes, as published.
PUBLISHED = {"full": (648, "fa6a886a3ab5ecce", 64.4), "tiny": (118, "3a8bebc2f6007836", 6.06)}
# The outputs of that code with the synthetic weights for a random image of SIZE, at the given anchors in our order (the
# tiny network's coarse scale comes first there, last here): centre x, centre y, width, height and scores.
ANSWERS = {
    "full": {
        0: (0.049632, 0.058517, 0.093418, 0.232202, 0.288188, 0.229761, 0.224161),
        100: (0.396216, 0.046297, 0.166139, 0.332087, 0.220534, 0.248509, 0.424985),
        300: (0.097773, 0.622649, 0.602122, 3.900484, 0.247016, 0.175777, 0.219059),
        377: (0.753204, 0.687677, 15.393603, 4.443582, 0.232527, 0.322473, 0.391625),
    },
    "tiny": {
        72 + 0: (0.155375, 0.172903, 0.61993, 1.090534, 0.252142, 0.182397, 0.192808),
        72 + 10: (0.522589, 0.72825, 1.271382, 3.236329, 0.248262, 0.392197, 0.312573),
        60 - 18: (0.08705, 0.843076, 0.481632, 0.947765, 0.230086, 0.321749, 0.324224),
        89 - 18: (0.917604, 0.88009, 1.004107, 2.683703, 0.235299, 0.180956, 0.348047),
    },
}


def weights(variant: str, width: int = 4, classes: int = 3) -> dict[str, torch.Tensor]:
    """Synthetic weights under the names that pytorch-YOLOv4 gives them."""
    network = NETWORKS[variant](width, classes, (32, 32))
    made = make_weights(
        {name: value for name, value in network.state_dict().items() if name not in decoder_buffers(network)}
    )
    layers = [name for name in made if name.endswith("conv.weight")]
    numbers = {name.removesuffix("conv.weight"): index + 1 for index, name in enumerate(layers)}
    return {_published(name, numbers): value for name, value in made.items()}


def _published(name: str, numbers: Mapping[str, int]) -> str:
    if name.startswith("models."):
        return re.sub(r"^(models\.\d+\.)(conv|bn)", lambda found: f"{found[0]}{numbers[found[1]]}", name)
    return re.sub(r"\.(conv|bn)\.(\w+)$", lambda found: f".conv.{int(found[1] == 'bn')}.{found[2]}", name)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_every_variant_has_pytorch_yolov4_weights(variant: str) -> None:
    count, digest, millions = PUBLISHED[variant]
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in weights(variant, 32).items())
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == (count, digest)
    with torch.device("meta"):
        whole = NETWORKS[variant](32, 80, (32, 32))
    assert sum(parameter.numel() for parameter in whole.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("variant", ANSWERS)
def test_outputs_match_pytorch_yolov4(variant: str) -> None:
    model = load(Checkpoint(weights(variant, 32)), ask("YOLOv4", input_size=SIZE))
    boxes, scores = model.module(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
    anchors = {"full": 378, "tiny": 90}[variant]
    assert (boxes.shape, scores.shape) == ((1, 4, anchors), (1, 3, anchors))
    for anchor, wanted in ANSWERS[variant].items():
        found = torch.cat([boxes[0, :, anchor], scores[0, :, anchor]])
        torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=1e-4)


def test_older_neck_names_give_same_outputs() -> None:
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    old = {name.replace("neck.", "neek."): value for name, value in weights("full").items()}
    assert old.keys() != weights("full").keys()
    found, expected = (
        load(Checkpoint(tensors), ask("YOLOv4", input_size=SIZE)).module(image) for tensors in (old, weights("full"))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("variant", "scale"), [("full", 1.0), ("tiny", 1.05)])
def test_box_is_anchor_scaled_and_moved_within_cell(variant: str, scale: float) -> None:
    """The second anchor of the first scale, in the second row and third column."""
    network = NETWORKS[variant](4, 3, (96, 192))
    stride, columns, count = (8, 24, 288) if variant == "full" else (16, 12, 72)
    width, height = (19, 36) if variant == "full" else (37, 58)
    index = count + columns + 2
    decoder = network.decoder
    raw = torch.zeros(1, 4, decoder.cells.shape[2])
    raw[0, :, index] = torch.tensor([math.log(3), 0.0, math.log(2), 0.0])  # the sigmoid of log 3 is 3/4
    x = (2 + 0.5 + (0.75 - 0.5) * scale) * stride / 192
    wanted = torch.tensor([x, 1.5 * stride / 96, 2 * width / 192, height / 96])
    places = Places(decoder.cells, decoder.corners, decoder.anchors)
    torch.testing.assert_close(decoder(raw[:, :2], raw[:, 2:], places)[0, :, index], wanted)


@pytest.mark.parametrize("variant", NETWORKS)
def test_variant_classes_and_width_come_from_checkpoint(variant: str) -> None:
    model = load(Checkpoint(weights(variant, 6, 5), {"names": list("abcde")}), ask("YOLOv4"))
    assert model.metadata["variant"] == variant
    assert model.class_names == tuple("abcde")
    assert model.input_size == (416, 416)


def test_centre_size_objectness_classes_have_own_convolutions() -> None:
    module = load(Checkpoint(weights("tiny")), ask("YOLOv4")).module
    last = [layer.out_channels for layer in module.get_submodule("models.29.parts").children()]
    assert last == [6, 6, 3, 9]


def test_mish_stays_float_between_convolutions() -> None:
    whole, tiny = (load(Checkpoint(weights(variant)), ask("YOLOv4")) for variant in ("full", "tiny"))
    assert {*whole.low_precision_modules, "decoder"} == {name for name, _ in whole.module.named_children()}
    assert tiny.low_precision_modules == ()


def test_other_variant_is_refused_with_both_names() -> None:
    assert "variant full, the checkpoint has tiny" in refuse(weights("tiny"), "YOLOv4", variant="full")


def test_wrong_class_count_is_refused_with_both_numbers() -> None:
    assert "number of classes 80, the checkpoint has 3" in refuse(weights("tiny"), "YOLOv4", num_classes=80)


@pytest.mark.parametrize("channels", [15, 25])
def test_fractional_class_count_is_refused(channels: int) -> None:
    last = "models.29.conv18.weight"
    assert last in weights("tiny")
    assert "not one of pytorch-YOLOv4" in refuse({**weights("tiny"), last: torch.ones(channels, 64, 1, 1)}, "YOLOv4")


def test_unrelated_weights_are_refused_with_missing_names() -> None:
    message = refuse({"w": torch.ones(1)}, "YOLOv4")
    assert "down1.conv1.conv" in message
    assert "models.29.conv" in message


def test_changed_network_is_refused_by_mismatched_weight() -> None:
    assert "neck.conv4" in refuse({**weights("full"), "neck.conv4.conv.1.bias": torch.ones(7)}, "YOLOv4")


def test_program_is_used_unchanged(tmp_path: Path) -> None:
    original = load(read_checkpoint(TRAINED["YOLOv4"].weights), ask("YOLOv4", input_size=SIZE))
    image = original.example_input()
    torch.export.save(torch.export.export(original.module, (image,)), tmp_path / "x.pt2")
    model = load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOv4"))
    for wanted, given in zip(original.module(image), model.module(image), strict=True):
        torch.testing.assert_close(given, wanted)
