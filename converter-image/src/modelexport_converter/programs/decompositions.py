"""Replaces operators of an archive by simpler ones, and by ones that check the sizes of their arguments."""

from collections.abc import Callable, Mapping
from typing import Any

from modelexport_converter.programs.builder import Builder
from modelexport_converter.programs.errors import trained, unfit, unreadable
from modelexport_converter.programs.graph import Ref
from modelexport_converter.programs.operators import CHANGED, PURE, RESHAPED, SAME
from modelexport_converter.programs.size_checks import check_sizes

Arguments = Mapping[str, Any]
Results = tuple[Ref | None, ...]


def call(builder: Builder, name: str, arguments: Arguments) -> Results:
    """Add the nodes of an archive's operator; ``name`` lacks ``torch.ops.aten.``.

    Raises:
        Failure: its arguments do not fit, it is in training form, or it writes where it must not.
    """
    _check_mode(builder, name, arguments)
    if name in PURE:
        check_sizes(builder, name, arguments)
        return builder.emit_all(name, arguments)
    first = next(iter(arguments.values()), None)
    if not isinstance(first, Ref):
        raise unreadable(f"{name}{builder.line} has no tensor to begin with")
    plain = name.replace("_.", ".")
    if name in SAME or (name in CHANGED and plain in SAME) or name == "detach_.default":
        return (first,)
    if name in CHANGED:
        return _write(builder, first, builder.emit(plain, **arguments))
    if name in RESHAPED:
        return builder.emit_all(plain, arguments)
    return _REPLACED[name](builder, arguments)


def is_reshaped(name: str) -> bool:
    """Return whether an operator turns its first argument itself into a view."""
    return name in RESHAPED


_TRAINING = ("train", "training")


def _check_mode(builder: Builder, name: str, arguments: Arguments) -> None:
    # A normalisation without stored statistics uses those of its input in evaluation too.
    stores_none = "momentum" in arguments and arguments.get("running_mean") is None
    trains = not stores_none and any(arguments.get(key) is True for key in _TRAINING)
    trains |= arguments.get("use_input_stats") is True and arguments.get("running_mean") is not None
    if trains or arguments.get("dropout_p") or name == "_native_batch_norm_legit_functional.default":
        what = "statistics of the single image" if "momentum" in arguments else "randomness"
        raise trained(f"{name.partition('.')[0]}{builder.line} uses {what}")


def _write(builder: Builder, target: Ref, new: Ref) -> Results:
    builder.write(target, new)
    return (target,)


def _copy(builder: Builder, arguments: Arguments) -> Ref:
    target, shape = arguments["src"], builder.shape(arguments["self"])
    if builder.shape(target).dtype is not shape.dtype:
        target = builder.emit("to.dtype", self=target, dtype=shape.dtype)
    if builder.shape(target).sizes != shape.sizes:
        target = builder.emit("expand.default", self=target, size=shape.sizes)
    return builder.emit("clone.default", self=target)


def _softmax(name: str) -> Callable[[Builder, Arguments], Results]:
    def replaced(builder: Builder, arguments: Arguments) -> Results:
        return (builder.emit(name, self=arguments["self"], dim=arguments["dim"]),)

    return replaced


def _batch_norm(builder: Builder, arguments: Arguments) -> Results:
    statistics = {key: arguments.get(key) for key in ("running_mean", "running_var")}
    result = builder.emit(
        "batch_norm.default",
        **{key: arguments[key] for key in ("input", "weight", "bias", "momentum", "eps")},
        **statistics,
        training=statistics["running_mean"] is None,
        cudnn_enabled=False,
    )
    return (result, None, None)


def _group_norm(builder: Builder, arguments: Arguments) -> Results:
    image = arguments["input"]
    sizes = builder.shape(image).sizes
    if sizes[:2] != (arguments["N"], arguments["C"]):
        raise unreadable(f"native_group_norm{builder.line} does not take a value of the sizes {list(sizes)}")
    result = builder.emit(
        "group_norm.default",
        **{key: arguments[key] for key in ("input", "weight", "bias", "eps")},
        num_groups=arguments["group"],
    )
    return (result, None, None)


def _attention(mask: str) -> Callable[[Builder, Arguments], Results]:
    def replaced(builder: Builder, arguments: Arguments) -> Results:
        check_sizes(builder, "scaled_dot_product_attention.", arguments)
        result = builder.emit(
            "scaled_dot_product_attention.default",
            **{key: arguments[key] for key in ("query", "key", "value")},
            attn_mask=arguments.get(mask),
            is_causal=arguments.get("is_causal", False),
            **({"scale": arguments["scale"]} if "scale" in arguments else {}),
        )
        return (result, None)

    return replaced


def _weight_norm(builder: Builder, arguments: Arguments) -> Results:
    direction, length = arguments["v"], arguments["g"]
    norm = builder.emit("norm_except_dim.default", v=direction, pow=2, dim=arguments.get("dim", 0))
    scale = builder.emit("div.Tensor", self=length, other=norm)
    return (builder.emit("mul.Tensor", self=direction, other=scale), None)


def _as_strided(builder: Builder, arguments: Arguments) -> Results:
    """Accept ``as_strided`` only if it leaves the value as it is; axes of one element may have any stride."""
    value, wanted = arguments["self"], (arguments["size"], arguments["stride"])
    sizes, strides = builder.shape(value).sizes, builder.strides(value)
    steps = [(size, found, step) for size, found, step in zip(sizes, strides, wanted[1], strict=False) if size > 1]
    if wanted[0] != sizes or any(found != step for _, found, step in steps) or arguments.get("storage_offset"):
        raise unfit(f"as_strided{builder.line} reads memory by its own steps", "use view, permute or unfold instead")
    return (value,)


def _mirrored(builder: Builder, arguments: Arguments) -> Results:
    """Swap the last two axes; this is also the adjoint, since all numbers are real."""
    return (builder.emit("transpose.int", self=arguments["self"], dim0=-2, dim1=-1),)


def _reversed(builder: Builder, arguments: Arguments) -> Results:
    rank = len(builder.shape(arguments["self"]).sizes)
    return (builder.emit("permute.default", self=arguments["self"], dims=tuple(range(rank))[::-1]),)


def _like(name: str, **renamed: str) -> Callable[[Builder, Arguments], Results]:
    def replaced(builder: Builder, arguments: Arguments) -> Results:
        return builder.emit_all(name, {renamed.get(key, key): value for key, value in arguments.items()})

    return replaced


def _writing(change: Callable[[Builder, Arguments], Ref]) -> Callable[[Builder, Arguments], Results]:
    return lambda builder, arguments: _write(builder, arguments["self"], change(builder, arguments))


def _filled(builder: Builder, arguments: Arguments) -> Ref:
    target, value = arguments["self"], arguments.get("value", 0)
    if isinstance(value, Ref):
        shape = builder.shape(target)
        value = builder.emit("to.dtype", self=value, dtype=shape.dtype)
        return builder.emit("expand.default", self=value, size=shape.sizes)
    return builder.emit("full_like.default", self=target, fill_value=value)


def _first(change: Callable[[Builder, Arguments], Ref]) -> Callable[[Builder, Arguments], Results]:
    return lambda builder, arguments: (change(builder, arguments),)


_REPLACED: Mapping[str, Callable[[Builder, Arguments], Results]] = {
    "lift_fresh_copy.default": _like("clone.default"),
    "copy.default": _first(_copy),
    "copy_.default": _writing(_copy),
    **{
        f"{name}.{kind}": _first(_filled)
        for name, kind in (("fill", "Scalar"), ("fill", "Tensor"), ("zero", "default"))
    },
    **{
        f"{name}_.{kind}": _writing(_filled)
        for name, kind in (("fill", "Scalar"), ("fill", "Tensor"), ("zero", "default"))
    },
    "pow_.Tensor": _writing(lambda builder, arguments: builder.emit("pow.Tensor_Tensor", **arguments)),
    "floor_divide_.Tensor": _writing(lambda builder, arguments: builder.emit("floor_divide.default", **arguments)),
    "_softmax.default": _softmax("softmax.int"),
    "_log_softmax.default": _softmax("log_softmax.int"),
    "_unsafe_view.default": _like("reshape.default", size="shape"),
    "_unsafe_index.Tensor": _like("index.Tensor"),
    "as_strided.default": _as_strided,
    "mT.default": _mirrored,
    "adjoint.default": _mirrored,
    "numpy_T.default": _reversed,
    "native_dropout.default": lambda builder, arguments: (arguments["input"], None),
    "native_group_norm.default": _group_norm,
    **dict.fromkeys(
        (
            "native_batch_norm.default",
            "_native_batch_norm_legit.default",
            "_native_batch_norm_legit.no_stats",
            "_native_batch_norm_legit_no_training.default",
            "_native_batch_norm_legit_functional.default",
        ),
        _batch_norm,
    ),
    "_batch_norm_no_update.default": lambda builder, arguments: (*_batch_norm(builder, arguments), None),
    "_scaled_dot_product_attention_math.default": _attention("attn_mask"),
    "_scaled_dot_product_flash_attention_for_cpu.default": _attention("attn_mask"),
    "_weight_norm.default": lambda builder, arguments: _weight_norm(builder, arguments)[:1],
    "_weight_norm_interface.default": _weight_norm,
}
