"""Parameters that weights do not contain: the loaders apply them as the original libraries do."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

from converter.refusals import refuse
from converter.synthetic_weights import make_weights
from converter.test_segmentation import Plain, warmed
from converter.test_torchvision_detectors import answer
from converter.test_yolov4 import weights as yolov4_weights
from converter.test_yolox import weights as yolox_weights
from modelexport.api.result import Reference
from modelexport.api.spec import Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.architectures.shared.yolo_layers import ACTIVATIONS, Conv, decoder_buffers
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.architectures.yolox.network import EPSILON, Network
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.checkpoints.state_dict import check_program_parameters
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from trained.cells import TRAINED, ask, load
from trained.detector_cells import drawn, untrained

SIZE = (64, 96)
TORCHS = {
    "SiLU": "SiLU()",
    "ReLU": "ReLU()",
    "LeakyReLU": "LeakyReLU(0.1)",
    "Hardswish": "Hardswish()",
    "Mish": "Mish()",
}


def random_image(scale: float = 1.0) -> torch.Tensor:
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * scale


def run(model: LoadedModel, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        outputs: tuple[torch.Tensor, ...] = model.module(image)
    return outputs


def load_weights(architecture: str, tensors: Mapping[str, torch.Tensor], **parameters: Any) -> LoadedModel:
    return load(Checkpoint(tensors), ask(architecture, input_size=SIZE, **parameters))


def of_ultralytics(kind: type[nn.Module], head: list[Any], activation: str) -> nn.Module:
    """A network of ultralytics with a head of its own on the smallest backbone of YOLOv8."""
    network = kind({**head_and_backbone(head), "activation": f"torch.nn.{TORCHS[activation]}"}, verbose=False)
    network.load_state_dict(make_weights(network.state_dict()))
    return network.eval()


def head_and_backbone(head: list[Any]) -> dict[str, Any]:
    blocks = ((128, 3), (256, 6), (512, 6), (1024, 3))
    layers = [[-1, 1, "Conv", [64, 3, 2]]]
    for channels, count in blocks:
        layers += [[-1, 1, "Conv", [channels, 3, 2]], [-1, count, "C2f", [channels, True]]]
    return {"nc": 3, "scales": {"n": [0.33, 0.25, 1024]}, "scale": "n", "ch": 3, "backbone": layers, "head": head}


CLASSIFIER = [[-1, 1, "Classify", [3]]]


@pytest.mark.parametrize("activation", ARCHITECTURES["YOLOv8-CLS"].activations)
def test_ultralytics_classifier_uses_given_activation(activation: str) -> None:
    network = of_ultralytics(ClassificationModel, CLASSIFIER, activation)
    model = load_weights("YOLOv8-CLS", network.state_dict(), activation=activation)
    with torch.inference_mode():
        expected = network(random_image())
    torch.testing.assert_close(run(model, random_image())[0], expected[0], atol=1e-5, rtol=1e-4)
    assert not any("activation" in assumption for assumption in model.assumptions)


def test_ultralytics_detector_uses_given_activation() -> None:
    network = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    for module in network.modules():
        if isinstance(getattr(module, "act", None), nn.SiLU):
            module.act = nn.LeakyReLU(0.1)
    bins = {name: value for name, value in network.state_dict().items() if ".dfl." in name}
    network.load_state_dict({**make_weights(network.state_dict()), **bins})
    model = load_weights("YOLOv8", network.state_dict(), activation="LeakyReLU")
    with torch.inference_mode():
        found = network.eval()(random_image())[0]
    boxes, scores = run(model, random_image())
    pixels = torch.tensor([SIZE[1], SIZE[0]] * 2).view(1, 4, 1)
    torch.testing.assert_close(boxes * pixels, found[:, :4], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(scores, found[:, 4:], atol=1e-4, rtol=1e-3)


def unfolded_yolox(tensors: Mapping[str, torch.Tensor], activation: nn.Module, depthwise: bool = True) -> nn.Module:
    """Megvii's network in training: its normalisation is a layer of its own, and its pixels are those of training."""
    network = Network("nano", 3, SIZE, depthwise)
    network.load_state_dict({**tensors, **decoder_buffers(network)})
    for module in network.modules():
        if isinstance(module, Conv):
            module.activation = activation
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
    return network.eval()


@pytest.mark.parametrize(
    ("activation", "layer"), [("SiLU", nn.SiLU()), ("ReLU", nn.ReLU()), ("LeakyReLU", nn.LeakyReLU(0.1))]
)
def test_yolox_uses_given_activation(activation: str, layer: nn.Module) -> None:
    model = load_weights("YOLOX", yolox_weights(), activation=activation)
    with torch.inference_mode():
        expected = unfolded_yolox(yolox_weights(), layer)(random_image().flip(1) * 255)
    for found, wanted in zip(run(model, random_image()), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_legacy_yolox_takes_imagenet_normalised_rgb() -> None:
    """``preproc`` of Megvii's ``ValTransform(legacy=True)``: RGB, over 255, less mean, over deviation."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    stated = {"color_order": "RGB", "pixel_range": "0-1", "image_mean": mean, "image_std": std}
    model = load_weights("YOLOX", yolox_weights(), **stated)
    assert (model.preprocessing.mean, model.preprocessing.std, model.preprocessing.resize) == (mean, std, "letterbox")
    given = (random_image() - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = unfolded_yolox(yolox_weights(), nn.SiLU())(given)
    for found, wanted in zip(run(model, given), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        ({"color_order": "RGB"}, lambda image: image * 255),
        ({"pixel_range": "0-1"}, lambda image: image.flip(1)),
        ({"color_order": "BGR", "pixel_range": "0-255"}, lambda image: image.flip(1) * 255),
    ],
)
def test_yolox_scales_pixels_as_in_training(stated: dict[str, str], seen: Any) -> None:
    model = load_weights("YOLOX", yolox_weights(), **stated)
    with torch.inference_mode():
        expected = unfolded_yolox(yolox_weights(), nn.SiLU())(seen(random_image()))
    torch.testing.assert_close(run(model, random_image())[1], expected[1], atol=1e-4, rtol=1e-3)


def test_yolox_with_ordinary_convolutions_is_detected() -> None:
    network = Network("nano", 3, SIZE, False)
    tensors = make_weights(
        {name: value for name, value in network.state_dict().items() if name not in decoder_buffers(network)}
    )
    model = load_weights("YOLOX", tensors)
    with torch.inference_mode():
        expected = unfolded_yolox(tensors, nn.SiLU(), False)(random_image().flip(1) * 255)
    torch.testing.assert_close(run(model, random_image())[1], expected[1], atol=1e-4, rtol=1e-3)
    assert (model.int8_sensitive, load_weights("YOLOX", yolox_weights()).int8_sensitive) == (False, True)


def convolutions(module: nn.Module) -> list[Conv]:
    return [layer for layer in module.modules() if isinstance(layer, Conv)]


def test_yolov4_backbone_uses_given_activation() -> None:
    network: Any = load_weights("YOLOv4", yolov4_weights("full"), activation="LeakyReLU").module
    assert {layer.activation for layer in convolutions(network)} == {ACTIVATIONS["LeakyReLU"]}
    network = load_weights("YOLOv4", yolov4_weights("full"), activation="ReLU").module
    assert {layer.activation for layer in convolutions(network.down3)} == {functional.relu}
    assert {layer.activation for layer in convolutions(network.neck)} == {ACTIVATIONS["LeakyReLU"]}
    network = load_weights("YOLOv4", yolov4_weights("tiny"), activation="ReLU").module
    assert {layer.activation for layer in convolutions(network)} == {functional.relu}


@pytest.mark.parametrize(("variant", "count"), [("full", 18), ("tiny", 12)])
def test_yolov4_boxes_scale_with_anchors(variant: str, count: int) -> None:
    usual, model = (
        load_weights("YOLOv4", yolov4_weights(variant), **stated)
        for stated in ({}, {"anchors": tuple(range(1, count + 1))})
    )
    (boxes, scores), (before, unchanged) = run(model, random_image()), run(usual, random_image())
    torch.testing.assert_close(scores, unchanged)
    torch.testing.assert_close(boxes[:, :2], before[:, :2])
    cells = [(SIZE[0] // stride) * (SIZE[1] // stride) for stride in type(model.module).STRIDES]  # type: ignore[attr-defined]
    anchors = [pair for level in type(model.module).ANCHORS for pair in level]  # type: ignore[attr-defined]
    first = 0
    for index, (width, height) in enumerate(anchors):
        last = first + cells[index // 3]
        ratio = torch.tensor([(2 * index + 1) / width, (2 * index + 2) / height]).view(1, 2, 1)
        torch.testing.assert_close(boxes[:, 2:, first:last], before[:, 2:, first:last] * ratio)
        first = last
    assert first == boxes.shape[2]


def test_wrong_yolov4_anchor_count_is_refused_with_both_counts() -> None:
    message = refuse(yolov4_weights("tiny"), "YOLOv4", input_size=SIZE, anchors=tuple(range(1, 19)))
    assert "numbers of anchors 18, the checkpoint has 12" in message


@pytest.mark.parametrize("aligned", [None, True, False])
def test_unet_aligns_corners_as_in_training(aligned: bool | None) -> None:
    weights = warmed(UNet((4, 8, 16, 32, 32), 3, bilinear=True)).state_dict()
    original = Plain(weights)
    original.aligned = aligned is not False
    model = load_weights("UNet", weights, align_corners=aligned)
    with torch.inference_mode():
        torch.testing.assert_close(
            run(model, random_image())[0], original(random_image()).softmax(1), atol=1e-5, rtol=1e-4
        )


def test_align_corners_is_refused_for_learned_upsampling() -> None:
    message = refuse(UNet((4, 8, 16, 32, 64), 3).state_dict(), "UNet", input_size=SIZE, align_corners=False)
    assert message == "alignCorners is for bilinear upsampling, the checkpoint has transposed convolutions; remove it"


@pytest.mark.parametrize("architecture", ["DeepLabV3", "FCN", "UNet"])
def test_images_use_given_normalisation(architecture: str) -> None:
    stated = {"image_mean": (0.1, 0.2, 0.3), "image_std": (0.4, 0.5, 1.0)}
    model = load(read_checkpoint(TRAINED[architecture].weights), ask(architecture, **stated))
    assert (model.preprocessing.mean, model.preprocessing.std) == tuple(stated.values())
    assert not any("image_" in assumption for assumption in model.assumptions)


SMALL = (64, 64)
STATED: dict[str, Any] = {
    "image_mean": (0.3, 0.4, 0.5),
    "image_std": (0.2, 0.3, 0.4),
    "detections_per_image": 7,
    "anchor_sizes": ((8,), (16,), (24,), (40,), (64,)),
    "aspect_ratios": (0.4, 2.5),
}


def restate(network: Any, owner: Any, stage: Any) -> None:
    """Give a detector of torchvision the settings of ``STATED``."""
    network.transform.image_mean, network.transform.image_std = (
        list(STATED[f"image_{name}"]) for name in ("mean", "std")
    )
    stage.detections_per_img = STATED["detections_per_image"]
    owner.anchor_generator = AnchorGenerator(STATED["anchor_sizes"], (STATED["aspect_ratios"],) * 5)


@pytest.fixture(scope="module")
def retinanet() -> Any:
    network = untrained("retinanet_resnet50_fpn", SMALL, classes=3)
    network.head = RetinaNetHead(256, 2, 3)
    nn.init.normal_(network.head.classification_head.cls_logits.weight, std=0.3)
    nn.init.zeros_(network.head.classification_head.cls_logits.bias)
    restate(network, network, network)
    return network.eval()


@pytest.fixture(scope="module")
def fasterrcnn() -> Any:
    network = untrained("fasterrcnn_resnet50_fpn", SMALL, classes=3)
    network.rpn.head = RPNHead(256, 2)
    restate(network, network.rpn, network.roi_heads)
    return network.eval()


@pytest.mark.parametrize(("name", "architecture"), [("retinanet", "RetinaResNet"), ("fasterrcnn", "FasterRCNN")])
def test_detector_uses_given_settings(name: str, architecture: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    model = load(Checkpoint(network.state_dict()), ask(architecture, input_size=SMALL, **STATED))
    (image,) = drawn(1, SMALL)
    with torch.inference_mode():
        expected = network([image])[0]
    assert len(expected["scores"]) == 7
    found = answer(model, image)
    for part in ("scores", "boxes"):
        torch.testing.assert_close(found[part], expected[part], atol=1e-3, rtol=1e-4)
    assert not any(word in " ".join(model.assumptions) for word in ("anchor", "ratio", "image_", "at most"))


@pytest.mark.parametrize(("name", "architecture"), [("retinanet", "RetinaResNet"), ("fasterrcnn", "FasterRCNN")])
def test_wrong_anchor_count_is_refused_with_remedy(
    name: str, architecture: str, request: pytest.FixtureRequest
) -> None:
    tensors = request.getfixturevalue(name).state_dict()
    message = refuse(tensors, architecture, input_size=SIZE)
    assert "the weights are for 2 anchors at each place, sizes and ratios give " in message
    assert "set spec.model.parameters.anchorSizes and aspectRatios" in message
    assert "anchorSizes has 2 levels, the network has 5 feature maps" in refuse(
        tensors, architecture, input_size=SIZE, anchor_sizes=((8,), (16,)), aspect_ratios=(1.0, 2.0)
    )


@pytest.mark.parametrize("stated", ["activation", "color_order", "pixel_range", "anchors", "align_corners"])
def test_parameter_fixed_by_program_is_refused(stated: str) -> None:
    given: dict[str, Any] = {stated: False}
    check_program_parameters(Parameters(image_mean=(0.0, 0.0, 0.0), variant="n"))
    with pytest.raises(
        Failure,
        match=r"^spec.model.parameters.[a-zA-Z]+ changes nothing, as the .pt2 archive brings its own network",
    ):
        check_program_parameters(Parameters(**given))


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-SEG", "YOLOv8-CLS", "YOLOv8-Pose"])
def test_activation_contradicting_pickle_is_refused(architecture: str) -> None:
    found = read_checkpoint(TRAINED[architecture].weights)
    model = load(found, ask(architecture, activation="SiLU"))
    assert (model.reference, model.assumptions) == (Reference.CHECKPOINT, ())
    with pytest.raises(Failure, match=r"asks for activation ReLU, the checkpoint has SiLU; correct spec\.model"):
        load(found, ask(architecture, activation="ReLU"))


def test_grey_images_refuse_three_channel_mean() -> None:
    weights = UNet((4, 8, 16, 32, 64), 3, channels=1).state_dict()
    message = refuse(weights, "UNet", input_size=SIZE, image_mean=(0.1, 0.2, 0.3))
    assert message == "imageMean is given for 3 channels, and the images have 1 (grey); give a number for each"
