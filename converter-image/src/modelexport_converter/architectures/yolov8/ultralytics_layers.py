"""Builds the layers of ultralytics' networks, each from its pickled module and the attributes stored there.

Class and attribute names are those of the package ultralytics. ``_BUILDERS`` has one builder per class.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from modelexport_converter.architectures.shared.yolo_layers import Conv
from modelexport_converter.architectures.yolov8.blocks import C2, SPPF, Bottleneck, C2f, Prototypes
from modelexport_converter.architectures.yolov8.families import unknown_layer_failure
from modelexport_converter.architectures.yolov8.yolo11_blocks import C2PSA, Attention, C3k, PSABlock
from modelexport_converter.architectures.yolov8.yolo26_blocks import FusedPrototypes
from modelexport_converter.checkpoints.module_tree import Module
from modelexport_converter.checkpoints.pickles import PickledObject

LARGEST_KERNEL = 64
"""Limit of kernel sizes, strides and paddings; larger ones could make maps grow without bound."""
LARGEST_SCALE = 8.0
DEEPEST = 12
"""Levels of nested modules below a layer of the network."""

_TORCH = "torch.nn.modules."
_ULTRALYTICS = tuple(f"ultralytics.nn.modules.{part}" for part in ("", "block.", "conv.", "head."))

_CALL_METHODS = {
    *("__call__", "_call_impl", "_slow_forward", "_wrapped_call_impl", "_conv_forward", "_check_input_dim"),
    *("forward", "predict", "_predict_once", "_output_padding"),
    *("_inference", "_get_decode_boxes", "decode_bboxes", "kpts_decode", "forward_head"),
}
"""Methods that run when a module is called. An instance attribute of such a name replaces the method of the class."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_FUSED, _SPLIT = "forward_fuse", "forward_split"
"""ultralytics' own replacements of ``forward``: without normalisation, and with another split."""

_ACTIVATIONS: Mapping[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "nn.SiLU": (nn.SiLU, ()),
    "nn.ReLU": (nn.ReLU, ()),
    "nn.ReLU6": (nn.Hardtanh, ("min_val", "max_val")),
    "nn.LeakyReLU": (nn.LeakyReLU, ("negative_slope",)),
    "nn.ELU": (nn.ELU, ("alpha",)),
    "nn.CELU": (nn.CELU, ("alpha",)),
    "nn.SELU": (nn.SELU, ()),
    "nn.Hardswish": (nn.Hardswish, ()),
    "nn.Hardsigmoid": (nn.Hardsigmoid, ()),
    "nn.Hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "nn.Mish": (nn.Mish, ()),
    "nn.Sigmoid": (nn.Sigmoid, ()),
    "nn.Softplus": (nn.Softplus, ("beta", "threshold")),
    "nn.Tanh": (nn.Tanh, ()),
}
"""Activations, each with the names of its numeric attributes."""


def short_kind(layer: Module) -> str:
    """Return a class name without its package (torch's with ``nn.``); for unknown packages, the full name."""
    package, _, name = layer.kind.rpartition(".")
    if layer.kind.startswith(_TORCH):
        return f"nn.{name}"
    return name if f"{package}." in _ULTRALYTICS else layer.kind


def is_in_place(layer: Module) -> bool:
    """Return whether a layer writes its output over its input."""
    return short_kind(layer) in (*_ACTIVATIONS, "nn.GELU", "nn.PReLU") and layer.attribute("inplace") is True


def build_layer(layer: Module, network: Module, depth: int = DEEPEST) -> nn.Module:
    """Build one layer of ``network``.

    Raises:
        Failure: with reason ``CheckpointMismatch``: its class is unknown, or its attributes do not fit its class.
    """
    kind = short_kind(layer)
    if kind in _ACTIVATIONS:
        check_unmodified(layer)
        activation, names = _ACTIVATIONS[kind]
        return activation(*(layer.number(name) for name in names))
    if kind not in _BUILDERS:
        raise unknown_layer_failure(layer, network)
    if not depth:
        raise layer.refuse("lies too deep in other layers")
    check_unmodified(layer)
    return _BUILDERS[kind](layer, lambda part: build_layer(part, network, depth - 1))


def check_known(layer: Module, network: Module, depth: int = DEEPEST) -> None:
    """Refuse a layer of an unknown class, or with one inside.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the layer and, if known, the family of the network.
    """
    if short_kind(layer) not in _BUILDERS and short_kind(layer) not in _ACTIVATIONS:
        raise unknown_layer_failure(layer, network)
    for child in layer.children() if depth else ():
        check_known(child, network, depth - 1)


def check_unmodified(layer: Module) -> None:
    """Refuse a module that runs other code than its class.

    Raises:
        Failure: with reason ``CheckpointMismatch``: it has a hook, a replaced method, or computed weights.
    """
    if any(layer.attribute(name) for name in _HOOKS):
        raise layer.refuse("has a hook, which runs code that no checkpoint holds")
    if layer.has_child("parametrizations"):
        raise layer.refuse("computes its weights; call torch.nn.utils.parametrize.remove_parametrizations before")
    for name in _CALL_METHODS:
        if layer.has(name) and _replaced_forward(layer) not in (_FUSED, _SPLIT):
            raise layer.refuse(f"has a method {name} of its own, which runs code that no checkpoint holds")


def _replaced_forward(layer: Module) -> str | None:
    """Return the method of its own class that replaces ``forward``, if nothing else is replaced."""
    allowed = {"Conv": _FUSED, "DWConv": _FUSED, "C2f": _SPLIT, "C3k2": _SPLIT}.get(short_kind(layer))
    replaced = [name for name in _CALL_METHODS if layer.has(name)]
    match layer.attribute("forward"):
        case PickledObject(
            kind="builtins.getattr" | "__builtin__.getattr", arguments=(PickledObject() as owner, str(method))
        ):
            return method if owner is layer.node and method == allowed and replaced == ["forward"] else None
    return None


_Build = Callable[[Module], nn.Module]
_Builder = Callable[[Module, _Build], nn.Module]

_BUILDERS: dict[str, _Builder] = {
    "nn.Dropout": lambda layer, build: nn.Identity(),
    "nn.Identity": lambda layer, build: nn.Identity(),
    "nn.ModuleList": lambda layer, build: nn.ModuleList(build(child) for child in layer.children()),
    "nn.Sequential": lambda layer, build: nn.Sequential(*(build(child) for child in layer.children())),
}
"""Builders by ``short_kind``; each takes a layer and the function that builds the layers inside it."""


def _builds(*kinds: str) -> Callable[[_Builder], _Builder]:
    """Register the decorated function as the builder of some classes."""

    def register(builder: _Builder) -> _Builder:
        _BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return register


@_builds("Conv", "DWConv")
def _conv_block(layer: Module, build: _Build) -> nn.Module:
    conv, activation = build(layer.child("conv")), build(layer.child("act"))
    if not isinstance(conv, nn.Conv2d):
        raise layer.refuse("has no convolution")
    if _replaced_forward(layer) == _FUSED or not layer.has_child("bn"):
        return _Block(conv, nn.Identity(), activation)
    norm = build(layer.child("bn"))
    block = _Block(conv, norm, activation)
    if isinstance(norm, nn.BatchNorm2d):
        if norm.num_features != conv.out_channels:
            raise layer.refuse(f"normalises {norm.num_features} channels of {conv.out_channels}")
        block.eval()
        block.fuse(norm.eps)
    return block


class _Block(Conv):
    """Convolution, normalisation and activation, from existing layers."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module) -> None:
        nn.Module.__init__(self)
        self.conv, self.bn = conv, norm
        self.activation = activation


@_builds("Bottleneck")
def _bottleneck(layer: Module, build: _Build) -> nn.Module:
    return Bottleneck(build(layer.child("cv1")), build(layer.child("cv2")), layer.flag("add"))


@_builds("C2f", "C3k2")
def _c2f(layer: Module, build: _Build) -> nn.Module:
    blocks = build(layer.child("m"))
    if not isinstance(blocks, nn.ModuleList):
        raise layer.refuse("has no list of blocks")
    hidden = _half(layer)
    if _replaced_forward(layer) == _SPLIT and layer.integer("c", 1) != hidden:
        raise layer.refuse("splits its channels otherwise than in halves")
    return C2f(build(layer.child("cv1")), build(layer.child("cv2")), blocks, hidden)


@_builds("C2")
def _c2(layer: Module, build: _Build) -> nn.Module:
    return C2(build(layer.child("cv1")), build(layer.child("cv2")), build(layer.child("m")), _half(layer))


def _half(layer: Module) -> int:
    """Return half of the channels of a block's first layer, which the block splits."""
    channels = layer.child("cv1").child("conv").integer("out_channels", 1)
    if channels % 2:
        raise layer.refuse(f"splits {channels} channels in halves")
    return channels // 2


@_builds("C3k")
def _c3k(layer: Module, build: _Build) -> nn.Module:
    return C3k(*(build(layer.child(name)) for name in ("cv1", "cv2", "cv3", "m")))


@_builds("C2PSA")
def _c2psa(layer: Module, build: _Build) -> nn.Module:
    return C2PSA(build(layer.child("cv1")), build(layer.child("cv2")), build(layer.child("m")), _half(layer))


@_builds("PSABlock")
def _psa_block(layer: Module, build: _Build) -> nn.Module:
    return PSABlock(build(layer.child("attn")), build(layer.child("ffn")), layer.flag("add"))


@_builds("Attention")
def _attention(layer: Module, build: _Build) -> nn.Module:
    heads, key, value = (layer.integer(name, 1) for name in ("num_heads", "key_dim", "head_dim"))
    channels = layer.child("qkv").child("conv").integer("out_channels", 1)
    if channels != heads * (2 * key + value):
        raise layer.refuse(f"has {channels} channels for {heads} heads of 2 x {key} and {value}")
    if not math.isclose(layer.number("scale"), key**-0.5):
        raise layer.refuse(f"scales by {layer.number('scale'):g}, expected the inverse root of {key}")
    parts = (build(layer.child(name)) for name in ("qkv", "proj", "pe"))
    return Attention(*parts, heads=heads, key=key, value=value)


@_builds("SPPF")
def _sppf(layer: Module, build: _Build) -> nn.Module:
    return SPPF(
        build(layer.child("cv1")),
        build(layer.child("cv2")),
        build(layer.child("m")),
        min(layer.integer("n", 0, default=3), LARGEST_KERNEL),
        layer.flag("add", default=False),
    )


@_builds("Proto")
def _prototypes(layer: Module, build: _Build) -> nn.Module:
    return Prototypes(*(build(layer.child(name)) for name in ("cv1", "upsample", "cv2", "cv3")))


@_builds("Proto26")
def _fused_prototypes(layer: Module, build: _Build) -> nn.Module:
    refine = build(layer.child("feat_refine"))
    if not isinstance(refine, nn.ModuleList):
        raise layer.refuse("has no list of layers for its coarser maps")
    return FusedPrototypes(refine, build(layer.child("feat_fuse")), _prototypes(layer, build))


class Join(nn.Module):
    """Concatenates maps."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Maps (N, C, H, W) that differ in ``axis`` only, to their concatenation along it."""
        return torch.cat(maps, self.axis)


@_builds("Concat")
def _concat(layer: Module, _: _Build) -> nn.Module:
    return Join(layer.integer("d", 1))


def _bounded_pair(layer: Module, name: str, least: int) -> tuple[int, int]:
    """Return an attribute as a pair of integers, from ``least`` to ``LARGEST_KERNEL``."""
    pair = layer.pair(name, least)
    if max(pair) > LARGEST_KERNEL:
        raise layer.refuse(f"has {name}={pair}, at most {LARGEST_KERNEL} is supported")
    return pair


def _bias(layer: Module, outputs: int) -> torch.Tensor | None:
    """Return the bias of a layer, if it has one."""
    return layer.weight("bias", (outputs,)) if layer.has_weight("bias") else None


@_builds("nn.Conv2d")
def _convolution(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs, groups = (layer.integer(name, 1) for name in ("in_channels", "out_channels", "groups"))
    kernel = _bounded_pair(layer, "kernel_size", 1)
    if inputs % groups or outputs % groups:
        raise layer.refuse(f"has {groups} groups of {inputs} and {outputs} channels")
    padding: Any = layer.attribute("padding")
    if padding not in ("same", "valid"):
        padding = _bounded_pair(layer, "padding", 0)
    stride, dilation = _bounded_pair(layer, "stride", 1), _bounded_pair(layer, "dilation", 1)
    mode: Any = layer.text("padding_mode", ("zeros", "reflect", "replicate", "circular"), "zeros")
    if padding == "same" and stride != (1, 1):
        raise layer.refuse("has padding='same' and a stride")
    weight = layer.weight("weight", (outputs, inputs // groups, *kernel))
    bias = _bias(layer, outputs)
    with torch.device("meta"):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias is not None, mode)
    return _filled(conv, weight=weight, bias=bias)


@_builds("nn.ConvTranspose2d")
def _transposed(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs, groups = (layer.integer(name, 1) for name in ("in_channels", "out_channels", "groups"))
    kernel, stride = _bounded_pair(layer, "kernel_size", 1), _bounded_pair(layer, "stride", 1)
    padding, dilation = _bounded_pair(layer, "padding", 0), _bounded_pair(layer, "dilation", 1)
    more = _bounded_pair(layer, "output_padding", 0)
    if inputs % groups or outputs % groups or max(more) >= max(*stride, *dilation):
        raise layer.refuse("has groups or an output padding that do not fit its channels and strides")
    weight = layer.weight("weight", (inputs, outputs // groups, *kernel))
    bias = _bias(layer, outputs)
    with torch.device("meta"):
        conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, more, groups, bias is not None, dilation)
    return _filled(conv, weight=weight, bias=bias)


@_builds("nn.Linear")
def _linear(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs = layer.integer("in_features", 1), layer.integer("out_features", 1)
    weight = layer.weight("weight", (outputs, inputs))
    bias = _bias(layer, outputs)
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs, bias is not None)
    return _filled(linear, weight=weight, bias=bias)


@_builds("nn.BatchNorm2d")
def _norm(layer: Module, _: _Build) -> nn.Module:
    count, epsilon, affine = layer.integer("num_features", 1), layer.number("eps"), layer.flag("affine")
    if not layer.flag("track_running_stats") or not layer.has_weight("running_mean"):
        raise layer.refuse("has no running statistics, so that it needs several images at once")
    if epsilon < 0:
        raise layer.refuse(f"has eps={epsilon:g}, expected a number of 0 or more")
    mean, var = (layer.weight(f"running_{name}", (count,)) for name in ("mean", "var"))
    with torch.device("meta"):
        norm = nn.BatchNorm2d(count, epsilon, affine=affine)
    norm.running_mean, norm.running_var = mean.clone(), var.clone()
    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    if affine:
        _filled(norm, weight=layer.weight("weight", (count,)), bias=layer.weight("bias", (count,)))
    return norm.eval()


def _filled(module: nn.Module, **weights: torch.Tensor | None) -> nn.Module:
    """Set parameters to copies, since folding changes them and a pickle may share them; return the module."""
    for name, value in weights.items():
        setattr(module, name, None if value is None else nn.Parameter(value.clone(), requires_grad=False))
    return module


@_builds("nn.PReLU")
def _parametric_relu(layer: Module, _: _Build) -> nn.Module:
    count = layer.integer("num_parameters", 1)
    with torch.device("meta"):
        activation = nn.PReLU(count)
    return _filled(activation, weight=layer.weight("weight", (count,)))


@_builds("nn.GELU")
def _gelu(layer: Module, _: _Build) -> nn.Module:
    return nn.GELU(layer.text("approximate", ("none", "tanh"), "none"))


@_builds("nn.MaxPool2d")
def _max_pool(layer: Module, _: _Build) -> nn.Module:
    kernel, stride, padding, dilation = _pooling(layer, "dilation")
    if layer.attribute("return_indices"):
        raise layer.refuse("gives indices beside its map")
    return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=layer.flag("ceil_mode", default=False))


@_builds("nn.AvgPool2d")
def _average_pool(layer: Module, _: _Build) -> nn.Module:
    kernel, stride, padding, _dilation = _pooling(layer, None)
    if layer.has("divisor_override"):
        raise layer.refuse("has a divisor of its own")
    ceil, count = layer.flag("ceil_mode", default=False), layer.flag("count_include_pad", default=True)
    return nn.AvgPool2d(kernel, stride, padding, ceil, count)


def _pooling(layer: Module, dilation: str | None) -> tuple[tuple[int, int], ...]:
    kernel, padding = _bounded_pair(layer, "kernel_size", 1), _bounded_pair(layer, "padding", 0)
    stride = _bounded_pair(layer, "stride", 1) if layer.has("stride") else kernel
    if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
        raise layer.refuse("has a padding of more than half its window")
    return kernel, stride, padding, _bounded_pair(layer, dilation, 1) if dilation else (1, 1)


@_builds("nn.AdaptiveAvgPool2d")
def _adaptive_pool(layer: Module, _: _Build) -> nn.Module:
    return nn.AdaptiveAvgPool2d(_bounded_pair(layer, "output_size", 1))


@_builds("nn.Upsample")
def _upsample(layer: Module, _: _Build) -> nn.Module:
    mode = layer.text("mode", ("nearest", "nearest-exact", "bilinear", "bicubic"))
    align = layer.flag("align_corners", default=False) if layer.has("align_corners") else None
    if align is not None and mode.startswith("nearest"):
        raise layer.refuse(f"aligns corners, which {mode} has none of")
    if layer.has("size"):
        return nn.Upsample(size=layer.pair("size", 1), mode=mode, align_corners=align)
    factor: Any = layer.attribute("scale_factor")
    factors = factor if isinstance(factor, list | tuple) else (factor, factor)
    if len(factors) != 2 or not all(type(value) in (int, float) and 0 < value <= LARGEST_SCALE for value in factors):
        raise layer.refuse(f"enlarges by other factors than up to {LARGEST_SCALE:g}")
    if layer.attribute("recompute_scale_factor"):
        raise layer.refuse("computes its factor anew")
    scale = (float(factors[0]), float(factors[1]))
    return nn.Upsample(scale_factor=scale if scale[0] != scale[1] else scale[0], mode=mode, align_corners=align)


@_builds("nn.ZeroPad2d")
def _pad(layer: Module, _: _Build) -> nn.Module:
    sides: Any = layer.attribute("padding")
    if not isinstance(sides, list | tuple) or len(sides) != 4:
        raise layer.refuse("pads other than four sides")
    if not all(type(side) is int and 0 <= side <= LARGEST_KERNEL for side in sides):
        raise layer.refuse(f"pads by other numbers than 0 to {LARGEST_KERNEL}")
    return nn.ZeroPad2d((sides[0], sides[1], sides[2], sides[3]))
