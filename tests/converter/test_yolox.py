"""The YOLOX network: equal to Megvii's, and strict about its checkpoints."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.refusals import refuse
from converter.synthetic_weights import make_weights
from modelexport.matrix.support import Format, Recipe
from modelexport_converter.architectures.shared.yolo_layers import decoder_buffers, fuse
from modelexport_converter.architectures.yolox.loader import load
from modelexport_converter.architectures.yolox.network import EPSILON, SCALES, Decoder, Network
from modelexport_converter.backends.small_layers import MOST_WEIGHTS
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from trained.cells import TRAINED, ask, produce

STEM = "backbone.backbone.stem.conv.conv.weight"
SIZE = (64, 96)

# Of the state dicts that Megvii's own code makes for 80 classes: their length, and the first digits of the SHA-256 of
# the sorted lines "name shape". Parameters in millions are those of the table in Megvii's README.
PUBLISHED = {
    "nano": (642, "3bb40b0511a5f905", 0.91),
    "tiny": (462, "94b84951f5111594", 5.06),
    "s": (462, "d0fc0633634b486c", 9.0),
    "m": (606, "446823ef5ea1313d", 25.3),
    "l": (750, "51ced5da4d6556be", 54.2),
    "x": (894, "946f1400621891b7", 99.1),
}
# The outputs of Megvii's own code with the synthetic weights of three classes for a random image of SIZE, at the given
# anchors: centre x, centre y, width, height in pixels, probability of an object and of each class.
ANSWERS = {
    "nano": {
        0: (-1.891396, 0.042522, 7.627638, 7.257105, 0.47869, 0.505661, 0.56065, 0.503154),
        50: (13.968424, 32.656319, 7.827404, 7.070366, 0.487583, 0.511639, 0.559587, 0.48264),
        100: (70.207794, 0.986163, 14.230151, 13.038606, 0.523182, 0.523398, 0.473858, 0.486794),
        125: (68.664932, 25.293772, 39.504997, 26.4795, 0.538318, 0.461526, 0.514098, 0.494708),
    },
    "s": {
        0: (0.016384, -1.688357, 6.433229, 7.921419, 0.499728, 0.487914, 0.543362, 0.479313),
        50: (16.231775, 30.194462, 6.745611, 7.99727, 0.473751, 0.458353, 0.549453, 0.461279),
        100: (68.720047, -6.127035, 13.674571, 16.670303, 0.491158, 0.467021, 0.48799, 0.513192),
        125: (56.873325, 26.455379, 25.804955, 29.111647, 0.52851, 0.471292, 0.510145, 0.491643),
    },
}


def weights(variant: str = "nano", classes: int = 3) -> dict[str, torch.Tensor]:
    """Synthetic weights of a network for pixels in 0..255, as Megvii's are."""
    network = Network(variant, classes, (32, 32))
    made = make_weights(
        {name: value for name, value in network.state_dict().items() if name not in decoder_buffers(network)}
    )
    return {**made, STEM: made[STEM] / 255}


@pytest.mark.parametrize("variant", SCALES)
def test_every_variant_has_megvii_weights(variant: str) -> None:
    with torch.device("meta"):
        network = Network(variant, 80, (32, 32))
    found = {name: value for name, value in network.state_dict().items() if not name.startswith("decoder.")}
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in found.items())
    count, digest, millions = PUBLISHED[variant]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == (count, digest)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("variant", ANSWERS)
def test_outputs_match_megvii(variant: str) -> None:
    model = load(Checkpoint(weights(variant)), ask("YOLOX", input_size=SIZE))
    boxes, scores = model.module(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
    assert boxes.shape == (1, 4, 126)
    assert scores.shape == (1, 3, 126)
    pixels = torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    for anchor, (*box, known, one, two, three) in ANSWERS[variant].items():
        torch.testing.assert_close(boxes[0, :, anchor] * pixels, torch.tensor(box), atol=2e-3, rtol=1e-4)
        wanted = torch.tensor([known * one, known * two, known * three])
        torch.testing.assert_close(scores[0, :, anchor], wanted, atol=2e-5, rtol=0)


def test_file_takes_unit_rgb_for_bgr_byte_checkpoint() -> None:
    network = Network("nano", 3, SIZE)
    network.load_state_dict({**weights(), **decoder_buffers(network)})
    fuse(network, EPSILON)
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    expected = network.backbone.backbone.stem(image.flip(1) * 255)
    network.backbone.backbone.stem.fold()
    torch.testing.assert_close(network.backbone.backbone.stem(image), expected, atol=1e-4, rtol=1e-4)


def test_box_is_relative_to_cell_corner() -> None:
    """The second cell of the first row, stride 8, in an image 64 high and 96 wide."""
    raw = torch.zeros(1, 4, 126)
    raw[0, :, 1] = torch.tensor([0.5, 0.25, math.log(2), math.log(3)])
    decoder = Decoder(SIZE)
    found = decoder(raw, decoder.cells, decoder.corners)[0, :, 1]
    torch.testing.assert_close(found, torch.tensor([1.5 * 8 / 96, 0.25 * 8 / 64, 2 * 8 / 96, 3 * 8 / 64]))


def test_last_cells_have_largest_stride() -> None:
    decoder = Decoder(SIZE)
    found = decoder(torch.zeros(1, 4, 126), decoder.cells, decoder.corners)[0, :, -1]
    torch.testing.assert_close(found, torch.tensor([64 / 96, 32 / 64, 32 / 96, 32 / 64]))


@pytest.mark.parametrize(("variant", "side"), [("nano", 416), ("tiny", 416), ("s", 640)])
def test_variant_classes_and_size_come_from_checkpoint(variant: str, side: int) -> None:
    model = load(Checkpoint(weights(variant, 5), {"names": list("abcde")}), ask("YOLOX"))
    assert model.metadata["variant"] == variant
    assert model.class_names == tuple("abcde")
    assert model.input_size == (side, side)
    assert model.preprocessing.resize == "letterbox"


def test_accuracy_in_megvii_checkpoint_is_not_unsafe(tmp_path: Path) -> None:
    content = {"model": weights(), "best_ap": np.float64(0.5), "optimizer": {"param_groups": [{"lr": 0.01}]}}
    torch.save(content, tmp_path / "best_ckpt.pth")
    assert read_checkpoint(tmp_path / "best_ckpt.pth").tensors.keys() == weights().keys()


def test_other_variant_is_refused_with_both_names() -> None:
    assert "variant s, the checkpoint has nano" in refuse(weights(), "YOLOX", variant="s")


def test_wrong_class_count_is_refused_with_both_numbers() -> None:
    assert "number of classes 80, the checkpoint has 3" in refuse(weights(), "YOLOX", num_classes=80)


def test_unrelated_weights_are_refused_with_missing_names() -> None:
    assert STEM in refuse({"w": torch.ones(1)}, "YOLOX")


def test_unknown_width_is_refused() -> None:
    assert "has 20 channels, which no variant" in refuse(
        {**weights(), STEM: torch.ones(20, 12, 3, 3)}, "YOLOX", variant=None
    )


def test_changed_network_is_refused_by_mismatched_weight() -> None:
    assert "backbone.C3_p3.conv1.bn.bias" in refuse(
        {**weights(), "backbone.C3_p3.conv1.bn.bias": torch.ones(7)}, "YOLOX"
    )


def test_depthwise_convolutions_make_nano_sensitive() -> None:
    nano, tiny = (load(Checkpoint(weights(variant)), ask("YOLOX")) for variant in ("nano", "tiny"))
    assert (nano.int8_sensitive, tiny.int8_sensitive) == (True, False)


@pytest.mark.xdist_group("YOLOX-ONNX")
def test_calibrated_onnx_keeps_last_convolutions_float() -> None:
    import onnx

    graph = onnx.load(produce("YOLOX", Format.ONNX, Recipe.STATIC_WI8_AI8)).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    layers = {node.name: node for node in graph.node if node.op_type == "Conv" and node.input[1] in floats}
    last = {f"/head/{kind}_preds.{scale}/Conv" for kind in ("cls", "obj", "reg") for scale in range(3)}
    assert last <= layers.keys()
    others = [layers[name] for name in layers.keys() - last]
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    assert sum(sizes[node.input[1]] for node in others) <= MOST_WEIGHTS * sum(sizes.values())
    results = {node.output[0] for node in others}
    readers = {node.op_type for node in graph.node if results & {*node.input}}
    assert readers == {"Mul", "Sigmoid"}  # of their SiLU: nothing reads them in 8 bits


@pytest.mark.xdist_group("YOLOX-LiteRT")
def test_litert_keeps_predictions_and_layers_of_boxes_float() -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    flat = flatbuffer_utils.read_model(str(produce("YOLOX", Format.LITERT, Recipe.STATIC_WI8_AI8)))
    graph = flat.subgraphs[0]
    convolutions = [
        op for op in graph.operators if flat.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    ]
    types = {graph.tensors[op.outputs[0]].name.decode(): graph.tensors[op.inputs[1]].type for op in convolutions}
    assert set(types.values()) == {schema.TensorType.FLOAT32, schema.TensorType.INT8}
    floats = [name for name, kind in types.items() if kind == schema.TensorType.FLOAT32]
    assert sum("/Head_head/Conv2d_" in name for name in floats) == 9
    assert sum("/Head_head/Sequential_" in name for name in floats) == len(floats) - 9 == 3


def test_program_is_used_unchanged(tmp_path: Path) -> None:
    original = load(read_checkpoint(TRAINED["YOLOX"].weights), ask("YOLOX", input_size=SIZE))
    image = original.example_input()
    torch.export.save(torch.export.export(original.module, (image,)), tmp_path / "x.pt2")
    model = load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOX"))
    assert (model.input_size, len(model.class_names)) == (SIZE, 3)
    for wanted, given in zip(original.module(image), model.module(image), strict=True):
        torch.testing.assert_close(given, wanted)
    with pytest.raises(Failure, match="number of classes 80, the checkpoint has 3"):
        load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOX", num_classes=80))


def test_program_with_other_outputs_is_refused_with_expectation(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 32, 32)
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 4, 3), (image,)), tmp_path / "x.pt2")
    with pytest.raises(Failure, match=r"expected boxes \(1, 4, N\) and scores"):
        load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOX"))
