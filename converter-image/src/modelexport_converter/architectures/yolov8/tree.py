"""Builds YOLOv8, YOLO11 and YOLO26 from ultralytics' pickle, layer by layer, exactly as the checkpoint describes it.

Each known class is built with the attributes of its module: another stride, activation, pooling, upsampling or number
of heads, without shortcuts, or with its normalisation already folded. An unknown class, or a module with a hook or a
replaced method, is refused by its name and never replaced.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelexport.matrix.support import Task
from modelexport_converter.architectures.yolov8.blocks import Classification, Head
from modelexport_converter.architectures.yolov8.decoder import Decoder
from modelexport_converter.architectures.yolov8.families import (
    ONE_TO_ONE,
    YOLO26,
    foreign_module_failure,
    has_one_to_one,
    network_family,
    unknown_layer_failure,
)
from modelexport_converter.architectures.yolov8.ultralytics_layers import (
    build_layer,
    check_known,
    check_unmodified,
    is_in_place,
    short_kind,
)
from modelexport_converter.checkpoints.module_tree import Module
from modelexport_converter.checkpoints.state_dict import mismatch

VALUES_PER_PIXEL = 1024
"""Limit of a map's values, per pixel of the input.

The maps of YOLOv8x have 20, which leaves room for wider networks.
"""
MOST_LAYERS = 1000

_NETWORKS = {
    f"ultralytics.nn.tasks.{name}Model" for name in ("Detection", "Segmentation", "Pose", "OBB", "Classification")
}
_TASKS = {
    "Detect": Task.DETECTION,
    "Segment": Task.INSTANCE_SEGMENTATION,
    "Segment26": Task.INSTANCE_SEGMENTATION,
    "Pose": Task.KEYPOINTS,
    "Pose26": Task.KEYPOINTS,
    "OBB": Task.ORIENTED_DETECTION,
    "OBB26": Task.ORIENTED_DETECTION,
    "Classify": Task.CLASSIFICATION,
}
"""The task of a network, by the class of its last layer."""
_KEYPOINTS26 = "Pose26"
_DIRECT = {_KEYPOINTS26, "OBB26"}
"""Heads whose keypoints and angles are their raw numbers: see ``Decoder``."""
_OTHER_PARTS = {"DFL", "RealNVP"}
"""Classes of a head's parts that are no layers: its bins, and the distribution of errors, which only the loss reads."""


@dataclass(frozen=True)
class LayerTree:
    """The pickled module of one of ultralytics' networks: its layers in order, and its task."""

    module: Module
    layers: tuple[Module, ...]
    task: Task

    @classmethod
    def read(cls, module: Module) -> "LayerTree":
        """Find the layers of a pickled network.

        Raises:
            Failure: with reason ``CheckpointMismatch``: the network is of another family; names it.
        """
        if module.kind.startswith("ultralytics.") and module.kind not in _NETWORKS and module.has_child("model"):
            inner = module.child("model")  # a whole YOLO object
            module = inner if inner.kind in _NETWORKS else module
        if not module.kind.startswith("ultralytics.nn.") or not module.has_child("model"):
            raise foreign_module_failure(module)
        check_unmodified(module)
        check_unmodified(module.child("model"))
        layers = tuple(module.child("model").children())
        if not 2 <= len(layers) <= MOST_LAYERS:
            raise module.refuse(f"has {len(layers)} layers, expected 2 to {MOST_LAYERS}")
        task = _TASKS.get(short_kind(layers[-1]))
        for layer in layers[:-1]:
            check_known(layer, module)
        if task is None or (has_one_to_one(layers[-1]) and network_family(module) != YOLO26):
            raise unknown_layer_failure(layers[-1], module)
        for part in layers[-1].children():
            if short_kind(part) not in _OTHER_PARTS:
                check_known(part, module)
        return cls(module, layers, task)

    @property
    def head(self) -> Module:
        """The last layer."""
        return self.layers[-1]

    @property
    def family(self) -> str:
        """YOLOv8, YOLO11, or a later family that has no class of its own, such as YOLO26."""
        return network_family(self.module) or "YOLOv8"

    @property
    def repeats(self) -> int:
        """The number of blocks in the first layer that has some; 0 if none has."""
        return next((len(list(layer.child("m").children())) for layer in self.layers if layer.has_child("m")), 0)

    @property
    def classes(self) -> int:
        """The number of classes."""
        if self.task is Task.CLASSIFICATION:
            return self.head.child("linear").integer("out_features", 1)
        return self.head.integer("nc", 1)

    @property
    def strides(self) -> tuple[float, ...]:
        """Sides of the maps' cells in pixels; empty for a classifier."""
        if self.task is Task.CLASSIFICATION:
            return ()
        strides = tuple(self.head.numbers("stride"))
        if not strides or min(strides) <= 0:
            raise self.head.refuse(f"has the strides {strides}; ultralytics sets them when it builds the network")
        return strides

    @property
    def channels(self) -> int:
        """The number of channels of an image."""
        first: Module | None = self.layers[0]
        while first and not first.has("in_channels"):
            first = next(first.children(), None)
        if not first:
            raise self.layers[0].refuse("comes first, and has no convolution that says how many channels an image has")
        return first.integer("in_channels", 1)


def build(tree: LayerTree, size: tuple[int, int]) -> nn.Module:
    """Build the network for images (H, W), in eval mode, normalisation folded, parameters frozen.

    It maps an image to the outputs of ``yolov8_network.Network`` or ``Classifier``.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the layer that is unknown or does not fit its class.
    """
    layers, routes = [build_layer(layer, tree.module) for layer in tree.layers[:-1]], _routes(tree)
    maps = _infer_shapes(Routed(layers, routes), tree, size)
    network: Routed
    check_unmodified(tree.head)
    if tree.task is Task.CLASSIFICATION:
        network = _Classifier([*layers, _classification(tree)], routes)
    else:
        if not isinstance(maps, list) or len(maps) != len(tree.strides):
            raise tree.head.refuse(f"takes another number of maps than its {len(tree.strides)} strides")
        shapes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        oriented = tree.task is Task.ORIENTED_DETECTION
        direct = short_kind(tree.head) in _DIRECT
        decoder = Decoder(size, tree.strides, shapes, _bins(tree), in_pixels=oriented, direct=direct)
        keypoints = keypoint_shape(tree.head) if tree.task is Task.KEYPOINTS else None
        network = _Detector([*layers, _head(tree)], routes, decoder, keypoints, oriented)
    network.eval().requires_grad_(False)
    _infer_shapes(network, tree, size)
    return network


class Routed(nn.Module):
    """Layers that each take the output of one or several earlier layers; -1 is the image.

    They are named as in ultralytics' networks, ``model.0`` and on.
    """

    def __init__(self, layers: Sequence[nn.Module], routes: Sequence[int | list[int]]) -> None:
        super().__init__()
        self.model = nn.ModuleList(layers)
        self.routes = tuple(routes)

    def forward(self, image: torch.Tensor) -> Any:
        """(1, C, H, W) to the input of the last layer, a map or a list of maps."""
        outputs = [image]
        for layer, route in zip(self.model, self.routes[:-1], strict=False):
            outputs.append(layer(_select(outputs, route)))
        return _select(outputs, self.routes[-1])


def _select(outputs: list[torch.Tensor], route: int | list[int]) -> Any:
    return outputs[route + 1] if isinstance(route, int) else [outputs[index + 1] for index in route]


class _Detector(Routed):
    """A detector; its last layer is the head."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        routes: Sequence[int | list[int]],
        decoder: Decoder,
        keypoints: tuple[int, int] | None,
        oriented: bool,
    ) -> None:
        super().__init__(layers, routes)
        self.decoder, self.keypoints, self.oriented = decoder, keypoints, oriented

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return boxes (1, 4, N), scores (1, classes, N), and the further outputs of the task."""
        maps, head = super().forward(image), self.model[-1]
        boxes, scores, *extra = head(maps)
        places = self.decoder.places(image, maps)
        if self.oriented:
            boxes, angles = self.decoder.rotated_boxes(boxes, extra[0], places)
            return boxes, scores.sigmoid(), angles
        outputs = (self.decoder.boxes(boxes, places), scores.sigmoid())
        if isinstance(head.proto, nn.Module):
            return (*outputs, extra[0], head.proto(maps))
        if self.keypoints:
            return (*outputs, self.decoder.keypoints(extra[0], self.keypoints, places))
        return outputs


class _Classifier(Routed):
    """A classifier; its last layer is the head."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the probabilities (1, classes)."""
        features = super().forward(image)
        return (self.model[-1](torch.cat(features, 1) if isinstance(features, list) else features),)


def _routes(tree: LayerTree) -> list[int | list[int]]:
    """Return the inputs of each layer: the position of another layer, -1 for the image, or a list of them."""
    saved = tree.module.attribute("save")
    if not isinstance(saved, list) or not all(type(item) is int for item in saved):
        raise tree.module.refuse("does not say which outputs it keeps")
    kept = [layer.attribute("i") in saved for layer in tree.layers]
    routes: list[int | list[int]] = []
    for position, layer in enumerate(tree.layers):
        wanted = layer.attribute("f")
        if isinstance(wanted, list | tuple) and 0 < len(wanted) <= MOST_LAYERS:
            routes.append([_source(layer, item, position, kept) for item in wanted])
        else:
            routes.append(_source(layer, wanted, position, kept))
        if is_in_place(layer) and position and kept[position - 1]:
            raise layer.refuse("changes what an earlier layer keeps for later ones")
    return routes


def _source(layer: Module, wanted: Any, position: int, kept: Sequence[bool]) -> int:
    """Return the position of a layer, given by its number or, if negative, relative to ``position``."""
    if wanted == -1 and type(wanted) is int:
        return position - 1
    source = wanted + position if type(wanted) is int and wanted < 0 else wanted
    if type(source) is not int or not 0 <= source < position or not kept[source]:
        raise layer.refuse("takes its input from a layer that is not before it, or whose output is not kept")
    return source


def _infer_shapes(module: nn.Module, tree: LayerTree, size: tuple[int, int]) -> Any:
    """Return the outputs of a module for no image of (H, W): all shapes, with a batch of 0, and no values.

    The meta device gives the same shapes, but torch imports torch._dynamo for it, which takes a second.

    Raises:
        Failure: with reason ``CheckpointMismatch``: the layers do not fit each other or the size, or maps grow too
            large.
    """
    limit = VALUES_PER_PIXEL * size[0] * size[1]

    def measure(part: nn.Module, _: Any, output: Any) -> None:
        for value in output if isinstance(output, list | tuple) else (output,):
            if isinstance(value, torch.Tensor) and math.prod(value.shape[1:]) > limit:
                raise tree.module.refuse(
                    f"has a map of the shape {(1, *value.shape[1:])}, more than {VALUES_PER_PIXEL} values per pixel"
                )

    handles = [part.register_forward_hook(measure) for part in module.modules()]
    try:
        with torch.inference_mode():
            return module(torch.empty(0, tree.channels, *size))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        largest = int(max(tree.strides, default=32))
        raise mismatch(
            f"the layers of the checkpoint do not fit to each other for images of {size[0]}x{size[1]}: "
            f"{str(error).splitlines()[0][:200]}; give an inputSize of multiples of {largest}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _head(tree: LayerTree) -> Head:
    """Return the branches of a detector's head, and its prototypes if it has some.

    Of YOLO26 they are those of the one-to-one head, whichever head ultralytics' last call chose. The one-to-many head
    beside it is for training: it gives an object many boxes.
    """
    head, classes = tree.head, tree.classes
    bins = head.integer("reg_max", 1)
    one_to_one = tree.family == YOLO26
    if head.attribute("xyxy") or (not one_to_one and (head.attribute("end2end") or head.attribute("_end2end"))):
        raise head.refuse("gives boxes as corners, or answers end to end")
    if one_to_one and not has_one_to_one(head):
        raise head.refuse(
            "has no one-to-one head, which fuse() removes and end2end: False leaves out; give the checkpoint of a "
            "training with it, not fused"
        )
    start = ONE_TO_ONE if one_to_one else ""
    extras: Mapping[Task, Callable[[], int]] = {
        Task.INSTANCE_SEGMENTATION: lambda: head.integer("nm", 1),
        Task.KEYPOINTS: lambda: keypoint_shape(head)[0] * keypoint_shape(head)[1],
        Task.ORIENTED_DETECTION: lambda: 1,
    }
    branches = [_branches(tree, f"{start}cv2", 4 * bins), _branches(tree, f"{start}cv3", classes)]
    if tree.task in extras:
        last = "_kpts" if short_kind(head) == _KEYPOINTS26 else ""
        branches.append(_branches(tree, f"{start}cv4", extras[tree.task](), last))
    built = Head(*branches)
    if tree.task is Task.INSTANCE_SEGMENTATION:
        built.proto = build_layer(head.child("proto"), tree.module)
    return built


def _branches(tree: LayerTree, name: str, outputs: int, last: str = "") -> nn.ModuleList:
    """Return the branches of a name, one for each map; with ``last``, their last layers have a list of their own."""
    branches = _for_each_map(tree, name)
    if last:
        name = f"{name}{last}"
        branches = nn.ModuleList(map(nn.Sequential, branches, _for_each_map(tree, name)))
    for branch in branches:
        end = branch[-1] if isinstance(branch, nn.Sequential) and len(branch) else None
        if not isinstance(end, nn.Conv2d) or end.out_channels != outputs:
            raise tree.head.refuse(f"has a branch in {name} that does not end in {outputs} channels")
    return branches


def _for_each_map(tree: LayerTree, name: str) -> nn.ModuleList:
    layers = build_layer(tree.head.child(name), tree.module)
    if not isinstance(layers, nn.ModuleList) or len(layers) != len(tree.strides):
        raise tree.head.refuse(f"has not {len(tree.strides)} branches in {name}")
    return layers


def _bins(tree: LayerTree) -> torch.Tensor | None:
    """Return the distances of the box distribution, (bins,), or ``None`` if the head has none."""
    count = tree.head.integer("reg_max", 1)
    if count == 1:
        return None
    layer = tree.head.child("dfl")
    check_unmodified(layer)
    if short_kind(layer) != "DFL":
        raise unknown_layer_failure(layer, tree.module)
    return layer.child("conv").weight("weight", (1, count, 1, 1)).flatten()


def keypoint_shape(head: Module) -> tuple[int, int]:
    """Return the number of keypoints of a head, and of components: x, y and, if there are three, visibility."""
    count, components = head.pair("kpt_shape", 1)
    if components not in (2, 3):
        raise head.refuse(f"has keypoints of {components} components, expected x, y and, if any, visibility")
    return count, components


def _classification(tree: LayerTree) -> Classification:
    head = tree.head
    pool = build_layer(head.child("pool"), tree.module)
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or pool.output_size not in (1, (1, 1)):
        raise head.refuse("does not average all places of its map")
    linear = build_layer(head.child("linear"), tree.module)
    if not isinstance(linear, nn.Linear) or (head.has_child("drop") and short_kind(head.child("drop")) != "nn.Dropout"):
        raise head.refuse("has other parts than a classifier's head")
    return Classification(build_layer(head.child("conv"), tree.module), linear)
