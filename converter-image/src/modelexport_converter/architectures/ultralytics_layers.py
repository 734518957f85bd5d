"""The layers of ultralytics' networks, each built from its module in a pickle, with the attributes that it has there.

Facts about the classes, such as the names of their attributes, are those of the package ultralytics; a class is a row
in ``_BUILDERS``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from modelexport_converter.architectures.layers import Conv
from modelexport_converter.architectures.yolov8_blocks import C2, SPPF, Bottleneck, C2f, Prototypes
from modelexport_converter.architectures.yolov8_families import explain_class
from modelexport_converter.checkpoints.pickles import Node
from modelexport_converter.checkpoints.tree import Module

LARGEST_KERNEL = 64
"""Of a window, its steps and its padding: with more, maps could grow without end."""
LARGEST_SCALE = 8.0
DEEPEST = 12
"""Modules in modules, below a layer of the network."""

_TORCH = "torch.nn.modules."
_ULTRALYTICS = tuple(f"ultralytics.nn.modules.{part}" for part in ("", "block.", "conv.", "head."))

_RUN = {
    *("__call__", "_call_impl", "_slow_forward", "_wrapped_call_impl", "_conv_forward", "_check_input_dim"),
    *("forward", "predict", "_predict_once", "_output_padding"),
    *("_inference", "_get_decode_boxes", "decode_bboxes", "kpts_decode", "forward_head"),
}
"""What runs when a module is called; an attribute of this name takes the place of what the class has."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_FUSED, _SPLIT = "forward_fuse", "forward_split"
"""Methods of ultralytics' own that take the place of ``forward``: without normalisation; with another split."""

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
"""Each with the attributes that are numbers of its own."""


def short_kind(layer: Module) -> str:
    """The name of a known class without its package, ``nn.`` before torch's own; of any other the whole name."""
    package, _, name = layer.kind.rpartition(".")
    if layer.kind.startswith(_TORCH):
        return f"nn.{name}"
    return name if f"{package}." in _ULTRALYTICS else layer.kind


def is_in_place(layer: Module) -> bool:
    """Whether a layer writes its output over its input."""
    return short_kind(layer) in (*_ACTIVATIONS, "nn.GELU", "nn.PReLU") and layer.attribute("inplace") is True


def build_layer(layer: Module, network: Module, depth: int = DEEPEST) -> nn.Module:
    """Build a layer, as ``network`` has it.

    Raises:
        Failure: ``CheckpointMismatch``: its class is not known, or it is not what its class says.
    """
    kind = short_kind(layer)
    if kind in _ACTIVATIONS:
        check_own(layer)
        activation, names = _ACTIVATIONS[kind]
        return activation(*(layer.number(name) for name in names))
    if kind not in _BUILDERS:
        raise explain_class(layer, network)
    if not depth:
        raise layer.refuse("lies too deep in other layers")
    check_own(layer)
    return _BUILDERS[kind](layer, lambda part: build_layer(part, network, depth - 1))


def check_known(layer: Module, network: Module, depth: int = DEEPEST) -> None:
    """Refuse a layer of a class that is not known, or that has one in it.

    Raises:
        Failure: ``CheckpointMismatch``, naming the layer and, where it is known, whose network this is.
    """
    if short_kind(layer) not in _BUILDERS and short_kind(layer) not in _ACTIVATIONS:
        raise explain_class(layer, network)
    for child in layer.children() if depth else ():
        check_known(child, network, depth - 1)


def check_own(layer: Module) -> None:
    """Refuse a module that runs something else than its class does.

    Raises:
        Failure: ``CheckpointMismatch``: it has a hook, a method of its own, or weights that are computed.
    """
    if any(layer.attribute(name) for name in _HOOKS):
        raise layer.refuse("has a hook, which runs code that no checkpoint holds")
    if layer.has_child("parametrizations"):
        raise layer.refuse("computes its weights; call torch.nn.utils.parametrize.remove_parametrizations before")
    for name in _RUN:
        if layer.has(name) and _own_method(layer) not in (_FUSED, _SPLIT):
            raise layer.refuse(f"has a method {name} of its own, which runs code that no checkpoint holds")


def _own_method(layer: Module) -> str | None:
    """Which method of its own class takes the place of ``forward``, and nothing else is replaced."""
    allowed = {"Conv": _FUSED, "DWConv": _FUSED, "C2f": _SPLIT}.get(short_kind(layer))
    replaced = [name for name in _RUN if layer.has(name)]
    match layer.attribute("forward"):
        case Node(kind="builtins.getattr" | "__builtin__.getattr", arguments=(Node() as owner, str(method))):
            return method if owner is layer.node and method == allowed and replaced == ["forward"] else None
    return None


_Build = Callable[[Module], nn.Module]


def _conv_block(layer: Module, build: _Build) -> nn.Module:
    conv, activation = build(layer.child("conv")), build(layer.child("act"))
    if not isinstance(conv, nn.Conv2d):
        raise layer.refuse("has no convolution")
    if _own_method(layer) == _FUSED or not layer.has_child("bn"):
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
    """Convolution, normalisation and activation, of layers that exist."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module) -> None:
        nn.Module.__init__(self)
        self.conv, self.bn = conv, norm
        self.activation = activation


def _bottleneck(layer: Module, build: _Build) -> nn.Module:
    return Bottleneck(build(layer.child("cv1")), build(layer.child("cv2")), layer.flag("add"))


def _c2f(layer: Module, build: _Build) -> nn.Module:
    blocks = build(layer.child("m"))
    if not isinstance(blocks, nn.ModuleList):
        raise layer.refuse("has no list of blocks")
    hidden = _half(layer)
    if _own_method(layer) == _SPLIT and layer.integer("c", 1) != hidden:
        raise layer.refuse("splits its channels otherwise than in halves")
    return C2f(build(layer.child("cv1")), build(layer.child("cv2")), blocks, hidden)


def _c2(layer: Module, build: _Build) -> nn.Module:
    return C2(build(layer.child("cv1")), build(layer.child("cv2")), build(layer.child("m")), _half(layer))


def _half(layer: Module) -> int:
    """Half of the channels of a block's first layer, which it splits."""
    channels = layer.child("cv1").child("conv").integer("out_channels", 1)
    if channels % 2:
        raise layer.refuse(f"splits {channels} channels in halves")
    return channels // 2


def _sppf(layer: Module, build: _Build) -> nn.Module:
    return SPPF(
        build(layer.child("cv1")),
        build(layer.child("cv2")),
        build(layer.child("m")),
        min(layer.integer("n", 0, default=3), LARGEST_KERNEL),
        layer.flag("add", default=False),
    )


def _prototypes(layer: Module, build: _Build) -> nn.Module:
    return Prototypes(*(build(layer.child(name)) for name in ("cv1", "upsample", "cv2", "cv3")))


class Join(nn.Module):
    """Puts maps behind each other."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the joined map."""
        return torch.cat(maps, self.axis)


def _concat(layer: Module, _: _Build) -> nn.Module:
    return Join(layer.integer("d", 1))


def _window(layer: Module, name: str, least: int) -> tuple[int, int]:
    pair = layer.pair(name, least)
    if max(pair) > LARGEST_KERNEL:
        raise layer.refuse(f"has {name}={pair}, at most {LARGEST_KERNEL} is supported")
    return pair


def _convolution(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs, groups = (layer.integer(name, 1) for name in ("in_channels", "out_channels", "groups"))
    kernel = _window(layer, "kernel_size", 1)
    if inputs % groups or outputs % groups:
        raise layer.refuse(f"has {groups} groups of {inputs} and {outputs} channels")
    padding: Any = layer.attribute("padding")
    if padding not in ("same", "valid"):
        padding = _window(layer, "padding", 0)
    stride, dilation = _window(layer, "stride", 1), _window(layer, "dilation", 1)
    mode: Any = layer.text("padding_mode", ("zeros", "reflect", "replicate", "circular"), "zeros")
    if padding == "same" and stride != (1, 1):
        raise layer.refuse("has padding='same' and a stride")
    weight = layer.weight("weight", (outputs, inputs // groups, *kernel))
    bias = layer.weight("bias", (outputs,)) if layer.has_weight("bias") else None
    with torch.device("meta"):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias is not None, mode)
    return _filled(conv, weight=weight, bias=bias)


def _transposed(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs, groups = (layer.integer(name, 1) for name in ("in_channels", "out_channels", "groups"))
    kernel, stride = _window(layer, "kernel_size", 1), _window(layer, "stride", 1)
    padding, dilation = _window(layer, "padding", 0), _window(layer, "dilation", 1)
    more = _window(layer, "output_padding", 0)
    if inputs % groups or outputs % groups or max(more) >= max(*stride, *dilation):
        raise layer.refuse("has groups or an output padding that do not fit its channels and strides")
    weight = layer.weight("weight", (inputs, outputs // groups, *kernel))
    bias = layer.weight("bias", (outputs,)) if layer.has_weight("bias") else None
    with torch.device("meta"):
        conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, more, groups, bias is not None, dilation)
    return _filled(conv, weight=weight, bias=bias)


def _linear(layer: Module, _: _Build) -> nn.Module:
    inputs, outputs = layer.integer("in_features", 1), layer.integer("out_features", 1)
    weight = layer.weight("weight", (outputs, inputs))
    bias = layer.weight("bias", (outputs,)) if layer.has_weight("bias") else None
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs, bias is not None)
    return _filled(linear, weight=weight, bias=bias)


def _norm(layer: Module, _: _Build) -> nn.Module:
    count, epsilon, affine = layer.integer("num_features", 1), layer.number("eps"), layer.flag("affine")
    if not layer.flag("track_running_stats") or not layer.has_weight("running_mean"):
        raise layer.refuse("has no running statistics, so that it needs several pictures at once")
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
    """A module with its parameters; they are copies, as folding changes them and a pickle may share them."""
    for name, value in weights.items():
        setattr(module, name, None if value is None else nn.Parameter(value.clone(), requires_grad=False))
    return module


def _parametric_relu(layer: Module, _: _Build) -> nn.Module:
    count = layer.integer("num_parameters", 1)
    with torch.device("meta"):
        activation = nn.PReLU(count)
    return _filled(activation, weight=layer.weight("weight", (count,)))


def _gelu(layer: Module, _: _Build) -> nn.Module:
    return nn.GELU(layer.text("approximate", ("none", "tanh"), "none"))


def _max_pool(layer: Module, _: _Build) -> nn.Module:
    kernel, stride, padding, dilation = _pooling(layer, "dilation")
    if layer.attribute("return_indices"):
        raise layer.refuse("gives indices beside its map")
    return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=layer.flag("ceil_mode", default=False))


def _average_pool(layer: Module, _: _Build) -> nn.Module:
    kernel, stride, padding, _dilation = _pooling(layer, None)
    if layer.has("divisor_override"):
        raise layer.refuse("has a divisor of its own")
    ceil, count = layer.flag("ceil_mode", default=False), layer.flag("count_include_pad", default=True)
    return nn.AvgPool2d(kernel, stride, padding, ceil, count)


def _pooling(layer: Module, dilation: str | None) -> tuple[tuple[int, int], ...]:
    kernel, padding = _window(layer, "kernel_size", 1), _window(layer, "padding", 0)
    stride = _window(layer, "stride", 1) if layer.has("stride") else kernel
    if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
        raise layer.refuse("has a padding of more than half its window")
    return kernel, stride, padding, _window(layer, dilation, 1) if dilation else (1, 1)


def _adaptive_pool(layer: Module, _: _Build) -> nn.Module:
    return nn.AdaptiveAvgPool2d(_window(layer, "output_size", 1))


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


def _pad(layer: Module, _: _Build) -> nn.Module:
    sides: Any = layer.attribute("padding")
    if not isinstance(sides, list | tuple) or len(sides) != 4:
        raise layer.refuse("pads other than four sides")
    if not all(type(side) is int and 0 <= side <= LARGEST_KERNEL for side in sides):
        raise layer.refuse(f"pads by other numbers than 0 to {LARGEST_KERNEL}")
    return nn.ZeroPad2d((sides[0], sides[1], sides[2], sides[3]))


_BUILDERS: Mapping[str, Callable[[Module, _Build], nn.Module]] = {
    "Conv": _conv_block,
    "DWConv": _conv_block,
    "Bottleneck": _bottleneck,
    "C2": _c2,
    "C2f": _c2f,
    "SPPF": _sppf,
    "Concat": _concat,
    "Proto": _prototypes,
    "nn.AdaptiveAvgPool2d": _adaptive_pool,
    "nn.AvgPool2d": _average_pool,
    "nn.BatchNorm2d": _norm,
    "nn.Conv2d": _convolution,
    "nn.ConvTranspose2d": _transposed,
    "nn.Dropout": lambda layer, build: nn.Identity(),
    "nn.GELU": _gelu,
    "nn.Identity": lambda layer, build: nn.Identity(),
    "nn.Linear": _linear,
    "nn.MaxPool2d": _max_pool,
    "nn.ModuleList": lambda layer, build: nn.ModuleList(build(child) for child in layer.children()),
    "nn.PReLU": _parametric_relu,
    "nn.Sequential": lambda layer, build: nn.Sequential(*(build(child) for child in layer.children())),
    "nn.Upsample": _upsample,
    "nn.ZeroPad2d": _pad,
}
