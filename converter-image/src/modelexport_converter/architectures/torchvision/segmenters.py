"""Loads DeepLabV3 (Chen et al., 2017) and FCN (Long et al., 2015) with the backbones and the names of torchvision.

The backbone, the width of DeepLabV3's pyramid and the number of classes are read from the checkpoint. The auxiliary
classifier, which only training uses, is dropped.
"""

from dataclasses import replace

import torch
from torch import nn
from torchvision.models import mobilenetv3, resnet
from torchvision.models._utils import IntermediateLayerGetter

from modelexport.api.spec import Model
from modelexport_converter.architectures.shared.folding import freeze
from modelexport_converter.architectures.shared.segmentation import (
    RecognisedNetwork,
    assumed_normalisation,
    check_recognised,
    describe_segmenter,
    load_segmenter_program,
)
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import Tensors, fill, own_weights
from modelexport_converter.model import LoadedModel, Preprocessing, SizedModule

RATES = (12, 24, 36)
"""Dilations of the pyramid, as in torchvision."""
_PYRAMID, _HEAD, _LAST = "classifier.0.convs.0.0.weight", "classifier.0.weight", "classifier.4.weight"
_MARKS = {
    "backbone.layer3.22.conv1.weight": "resnet101",
    "backbone.layer3.5.conv1.weight": "resnet50",
    "backbone.16.0.weight": "mobilenet_v3_large",
    "backbone.12.0.weight": "mobilenet_v3_small",
}
"""The last layers of the backbones, deepest first, by which they are recognised."""
_PREPROCESSING = Preprocessing("stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        return load_segmenter_program(checkpoint, model, _PREPROCESSING)
    own = own_weights(checkpoint.tensors, _LAST)
    tensors = {name: value for name, value in own.items() if not name.startswith("aux_classifier.")}
    found = _recognise(tensors)
    check_recognised(found, model)
    backbone, channels = build_backbone(str(found.variant))
    if found.architecture == "FCN":
        head = fcn_head(channels, found.classes)
    else:
        head = deeplab_head(channels, len(tensors[_PYRAMID]), found.classes)
    network = fill(Segmenter(backbone, head), tensors, f"{found.architecture} with {found.variant}")
    described = describe_segmenter(freeze(network), found, checkpoint, model, _PREPROCESSING)
    stride, activation = (8, "ReLU") if str(found.variant).startswith("resnet") else (16, "those of MobileNetV3")
    pyramid = (f"pyramid rates {', '.join(map(str, RATES))}",) if found.architecture == "DeepLabV3" else ()
    assumptions = (
        f"activation {activation}",
        f"output stride {stride}",
        *pyramid,
        "normalisation epsilon 1e-05",
        *assumed_normalisation(_PREPROCESSING, model.parameters),
    )
    return replace(described, assumptions=assumptions)


def _recognise(tensors: Tensors) -> RecognisedNetwork:
    """Recognise architecture and backbone by the names of the weights."""
    variant = next((variant for name, variant in _MARKS.items() if name in tensors), None)
    if variant is None or _LAST not in tensors or not (_PYRAMID in tensors or _HEAD in tensors):
        return RecognisedNetwork("none of torchvision's with a known backbone", 0)
    return RecognisedNetwork("DeepLabV3" if _PYRAMID in tensors else "FCN", len(tensors[_LAST]), variant)


class Segmenter(nn.Module):
    """Maps an image (1, 3, H, W) to logits (1, classes, H / 8 or 16, W / 8 or 16).

    Its parameters are named ``backbone.*`` and ``classifier.*``.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (1, classes, h, w)."""
        logits: torch.Tensor = self.classifier(self.backbone(image)["out"])
        return logits


def build_backbone(variant: str) -> tuple[nn.Module, int]:
    """Return a dilated backbone without its classifier, and the channels of its features."""
    if variant.startswith("resnet"):
        network = getattr(resnet, variant)(weights=None, replace_stride_with_dilation=[False, True, True])
        return IntermediateLayerGetter(network, {"layer4": "out"}), 2048
    features = getattr(mobilenetv3, variant)(weights=None, dilated=True).features
    last = len(features) - 1
    return IntermediateLayerGetter(features, {str(last): "out"}), features[last].out_channels


def fcn_head(channels: int, classes: int) -> nn.Module:
    """Return two convolutions: (1, channels, h, w) to (1, classes, h, w)."""
    return nn.Sequential(
        *_normalised(channels, channels // 4, 3, 1), nn.Dropout(0.1), nn.Conv2d(channels // 4, classes, 1)
    )


def deeplab_head(channels: int, width: int, classes: int) -> nn.Module:
    """Return a pyramid of dilated convolutions of ``width`` channels, and two convolutions to ``classes`` channels."""
    return nn.Sequential(_Pyramid(channels, width), *_normalised(width, width, 3, 1), nn.Conv2d(width, classes, 1))


class _Pyramid(SizedModule):
    """One 1x1 convolution, three dilated ones and the average of the image, joined by a 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        dilated = [nn.Sequential(*_normalised(channels, width, 3, rate)) for rate in RATES]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_normalised(channels, width))
        self.convs = nn.ModuleList([nn.Sequential(*_normalised(channels, width)), *dilated, pooled])
        self.project = nn.Sequential(*_normalised(len(self.convs) * width, width), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, channels, H, W) to (1, width, H, W)."""
        # Sizes as numbers: a file of one size needs no operators that compute it.
        height, width = x.shape[-2:] if self.any_size else (int(side) for side in x.shape[-2:])
        *maps, pooled = (conv(x) for conv in self.convs)
        # A sum, which every runtime broadcasts. LiteRT refuses a quantised ``expand``.
        spread = pooled + torch.zeros(1, 1, height, width)
        joined: torch.Tensor = self.project(torch.cat([*maps, spread], 1))
        return joined


def _normalised(inputs: int, outputs: int, side: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(inputs, outputs, side, padding=padding, dilation=dilation, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
