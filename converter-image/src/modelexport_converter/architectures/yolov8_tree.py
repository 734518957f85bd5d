"""YOLOv8 from the tree of ultralytics' pickle: the network that the checkpoint holds, layer by layer, as it is.

Every class that is known here is built with the attributes that its module has: another stride, activation, pooling,
upsampling or number of heads, without shortcuts, or with its normalisation folded already. A class that is not known,
or a module with a hook or a method of its own, is refused by its name and never replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelexport.matrix import Task
from modelexport_converter.architectures.ultralytics_layers import (
    build_layer,
    check_known,
    check_own,
    is_in_place,
    short_kind,
)
from modelexport_converter.architectures.yolov8_blocks import Classification, Head
from modelexport_converter.architectures.yolov8_decoder import Decoder
from modelexport_converter.architectures.yolov8_families import explain_class, explain_module
from modelexport_converter.checkpoints.tree import Module
from modelexport_converter.matching import mismatch

VALUES_PER_PIXEL = 1024
"""Of a map, by the pixels of the input: those of YOLOv8x have 20, so that there is room for much wider networks."""
MOST_LAYERS = 1000

_NETWORKS = {f"ultralytics.nn.tasks.{name}Model" for name in ("Detection", "Segmentation", "Pose", "Classification")}
_TASKS = {
    "Detect": Task.DETECTION,
    "Segment": Task.INSTANCE_SEGMENTATION,
    "Pose": Task.KEYPOINTS,
    "Classify": Task.CLASSIFICATION,
}
"""What a network does, by the class of its last layer."""


@dataclass(frozen=True)
class Tree:
    """The module of one of ultralytics' networks: its layers in their order, and what the last of them does."""

    module: Module
    layers: tuple[Module, ...]
    task: Task

    @classmethod
    def read(cls, module: Module) -> "Tree":
        """Find the layers of a pickled network.

        Raises:
            Failure: ``CheckpointMismatch``: it is another network than a YOLOv8, which is named.
        """
        if module.kind.startswith("ultralytics.") and module.kind not in _NETWORKS and module.has_child("model"):
            inner = module.child("model")  # a whole YOLO object
            module = inner if inner.kind in _NETWORKS else module
        if not module.kind.startswith("ultralytics.nn.") or not module.has_child("model"):
            raise explain_module(module)
        check_own(module)
        check_own(module.child("model"))
        layers = tuple(module.child("model").children())
        if not 2 <= len(layers) <= MOST_LAYERS:
            raise module.refuse(f"has {len(layers)} layers, expected 2 to {MOST_LAYERS}")
        task = _TASKS.get(short_kind(layers[-1]))
        for layer in layers[:-1]:
            check_known(layer, module)
        if task is None:
            raise explain_class(layers[-1], module)
        for part in layers[-1].children():
            if short_kind(part) != "DFL":
                check_known(part, module)
        return cls(module, layers, task)

    @property
    def head(self) -> Module:
        """The last layer."""
        return self.layers[-1]

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        if self.task is Task.CLASSIFICATION:
            return self.head.child("linear").integer("out_features", 1)
        return self.head.integer("nc", 1)

    @property
    def strides(self) -> tuple[float, ...]:
        """Sides of the cells of its maps in pixels; none of a classifier."""
        if self.task is Task.CLASSIFICATION:
            return ()
        strides = tuple(self.head.numbers("stride"))
        if not strides or min(strides) <= 0:
            raise self.head.refuse(f"has the strides {strides}; ultralytics sets them when it builds the network")
        return strides

    @property
    def channels(self) -> int:
        """How many channels a picture has."""
        first = self.layers[0]
        while not first.has("in_channels"):
            first = next(first.children(), None) or _without_input(self.layers[0])
        return first.integer("in_channels", 1)


def _without_input(layer: Module) -> Module:
    raise layer.refuse("comes first, and has no convolution that says how many channels a picture has")


def build(tree: Tree, size: tuple[int, int]) -> nn.Module:
    """Build the network of a tree for pictures (height, width), in eval mode, normalisation folded, parameters frozen.

    It maps an image to the outputs of ``yolov8_network.Network`` or ``Classifier``.

    Raises:
        Failure: ``CheckpointMismatch``, naming the layer that is not known, or is not what its class says.
    """
    layers, routes = [build_layer(layer, tree.module) for layer in tree.layers[:-1]], _routes(tree)
    maps = _run_without_numbers(Routed(layers, routes), tree, size)
    network: Routed
    check_own(tree.head)
    if tree.task is Task.CLASSIFICATION:
        network = _Classifier([*layers, _classification(tree)], routes)
    else:
        if not isinstance(maps, list) or len(maps) != len(tree.strides):
            raise tree.head.refuse(f"takes another number of maps than its {len(tree.strides)} strides")
        shapes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        decoder = Decoder(size, tree.strides, shapes, _bins(tree))
        keypoints = keypoint_shape(tree.head) if tree.task is Task.KEYPOINTS else None
        network = _Detector([*layers, _head(tree)], routes, decoder, keypoints)
    network.eval().requires_grad_(False)
    _run_without_numbers(network, tree, size)
    return network


class Routed(nn.Module):
    """Layers, each of which takes the output of one or several before it; -1 is the picture.

    They are called as in ultralytics' networks, ``model.0`` and on.
    """

    def __init__(self, layers: Sequence[nn.Module], routes: Sequence[int | list[int]]) -> None:
        super().__init__()
        self.model = nn.ModuleList(layers)
        self.routes = tuple(routes)

    def forward(self, image: torch.Tensor) -> Any:
        """(1, channels, height, width) to what the last layer takes, a map or a list of maps."""
        outputs = [image]
        for layer, route in zip(self.model, self.routes[:-1], strict=False):
            outputs.append(layer(_pick(outputs, route)))
        return _pick(outputs, self.routes[-1])


def _pick(outputs: list[torch.Tensor], route: int | list[int]) -> Any:
    return outputs[route + 1] if isinstance(route, int) else [outputs[index + 1] for index in route]


class _Detector(Routed):
    """A detector; its last layer is the head."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        routes: Sequence[int | list[int]],
        decoder: Decoder,
        keypoints: tuple[int, int] | None,
    ) -> None:
        super().__init__(layers, routes)
        self.decoder, self.keypoints = decoder, keypoints

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return boxes, scores, and what the task has beside them."""
        maps, head = super().forward(image), self.model[-1]
        boxes, scores, *extra = head(maps)
        outputs = (self.decoder.boxes(boxes), scores.sigmoid())
        if isinstance(head.proto, nn.Module):
            return (*outputs, extra[0], head.proto(maps[0]))
        if self.keypoints:
            return (*outputs, self.decoder.keypoints(extra[0], self.keypoints))
        return outputs


class _Classifier(Routed):
    """A classifier; its last layer is the head."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the probabilities."""
        features = super().forward(image)
        return (self.model[-1](torch.cat(features, 1) if isinstance(features, list) else features),)


def _routes(tree: Tree) -> list[int | list[int]]:
    """Where each layer takes its input: the position of another, -1 for the picture, or a list of them."""
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
    """The position of a layer by its number or, below 0, counted from here."""
    if wanted == -1 and type(wanted) is int:
        return position - 1
    source = wanted + position if type(wanted) is int and wanted < 0 else wanted
    if type(source) is not int or not 0 <= source < position or not kept[source]:
        raise layer.refuse("takes its input from a layer that is not before it, or whose output is not kept")
    return source


def _run_without_numbers(module: nn.Module, tree: Tree, size: tuple[int, int]) -> Any:
    """The outputs of a module for pictures of a size as shapes alone; nothing is computed.

    Raises:
        Failure: ``CheckpointMismatch``: layers do not fit to each other or to the size, or maps grow without measure.
    """
    limit = VALUES_PER_PIXEL * size[0] * size[1]

    def measure(part: nn.Module, _: Any, output: Any) -> None:
        for value in output if isinstance(output, list | tuple) else (output,):
            if isinstance(value, torch.Tensor) and value.numel() > limit:
                raise tree.module.refuse(
                    f"has a map of the shape {tuple(value.shape)}, more than {VALUES_PER_PIXEL} values per pixel"
                )

    handles = [part.register_forward_hook(measure) for part in module.modules()]
    empty = {name: value.to("meta") for name, value in module.state_dict().items()}
    try:
        picture = torch.empty(1, tree.channels, *size, device="meta")
        return torch.func.functional_call(module, empty, (picture,))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        largest = int(max(tree.strides, default=32))
        raise mismatch(
            f"the layers of the checkpoint do not fit to each other for pictures of {size[0]}x{size[1]}: "
            f"{str(error).splitlines()[0][:200]}; give an inputSize of multiples of {largest}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _head(tree: Tree) -> Head:
    """The branches of a detector's head, and its prototypes if it has some."""
    head, classes = tree.head, tree.classes
    bins = head.integer("reg_max", 1)
    for name in ("one2one_cv2", "one2one_cv3"):
        if head.has_child(name):
            raise explain_class(head, tree.module)
    if head.attribute("xyxy") or head.attribute("end2end") or head.attribute("_end2end"):
        raise head.refuse("gives boxes as corners, or answers end to end")
    extras = {
        Task.INSTANCE_SEGMENTATION: lambda: head.integer("nm", 1),
        Task.KEYPOINTS: lambda: keypoint_shape(head)[0] * keypoint_shape(head)[1],
    }
    branches = [_branches(tree, "cv2", 4 * bins), _branches(tree, "cv3", classes)]
    if tree.task in extras:
        branches.append(_branches(tree, "cv4", extras[tree.task]()))
    built = Head(*branches)
    if tree.task is Task.INSTANCE_SEGMENTATION:
        built.proto = build_layer(head.child("proto"), tree.module)
    return built


def _branches(tree: Tree, name: str, outputs: int) -> nn.ModuleList:
    branches = build_layer(tree.head.child(name), tree.module)
    if not isinstance(branches, nn.ModuleList) or len(branches) != len(tree.strides):
        raise tree.head.refuse(f"has not {len(tree.strides)} branches in {name}")
    for branch in branches:
        last = branch[-1] if isinstance(branch, nn.Sequential) and len(branch) else None
        if not isinstance(last, nn.Conv2d) or last.out_channels != outputs:
            raise tree.head.refuse(f"has a branch in {name} that does not end in {outputs} channels")
    return branches


def _bins(tree: Tree) -> torch.Tensor | None:
    """The distances of the box distribution, (bins,); ``None`` where the head has none."""
    count = tree.head.integer("reg_max", 1)
    if count == 1:
        return None
    layer = tree.head.child("dfl")
    check_own(layer)
    if short_kind(layer) != "DFL":
        raise explain_class(layer, tree.module)
    return layer.child("conv").weight("weight", (1, count, 1, 1)).flatten()


def keypoint_shape(head: Module) -> tuple[int, int]:
    """How many keypoints a head finds, and the components of each: x, y, and visibility where there are three."""
    count, components = head.pair("kpt_shape", 1)
    if components not in (2, 3):
        raise head.refuse(f"has keypoints of {components} components, expected x, y and, if any, visibility")
    return count, components


def _classification(tree: Tree) -> Classification:
    head = tree.head
    pool = build_layer(head.child("pool"), tree.module)
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or pool.output_size not in (1, (1, 1)):
        raise head.refuse("does not average all places of its map")
    linear = build_layer(head.child("linear"), tree.module)
    if not isinstance(linear, nn.Linear) or (head.has_child("drop") and short_kind(head.child("drop")) != "nn.Dropout"):
        raise head.refuse("has other parts than a classifier's head")
    return Classification(build_layer(head.child("conv"), tree.module), linear)
