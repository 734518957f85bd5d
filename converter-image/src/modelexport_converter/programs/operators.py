"""The table of operators that a program may use: pure functions of tensors, by their exact names.

Names from an archive are only looked up here; calls go to the operators of these lists. They exclude operators that
access files, memory or the screen, return random or uninitialised numbers, or have a result whose size depends on the
image, and those of complex, sparse, nested and quantised tensors, which no format supports.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from modelexport_converter.failures import Failure
from modelexport_converter.programs.errors import shown, unfit, unsafe

ATEN = "torch.ops.aten."

_PURE = """
abs.default acos.default acosh.default asin.default asinh.default atan.default atan2.default atanh.default
ceil.default cos.default cosh.default erf.default erfc.default exp.default exp2.default expm1.default floor.default
frac.default log.default log10.default log1p.default log2.default neg.default reciprocal.default round.default
round.decimals rsqrt.default sgn.default sigmoid.default sign.default sin.default sinh.default sqrt.default
square.default tan.default tanh.default trunc.default isfinite.default isinf.default isnan.default logit.default
nan_to_num.default

add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar subtract.Tensor subtract.Scalar mul.Tensor
mul.Scalar multiply.Tensor multiply.Scalar div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode divide.Tensor
divide.Scalar true_divide.Tensor true_divide.Scalar floor_divide.default floor_divide.Scalar fmod.Tensor fmod.Scalar
remainder.Tensor remainder.Scalar pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar maximum.default minimum.default
fmax.default fmin.default hypot.default addcmul.default addcdiv.default lerp.Tensor lerp.Scalar clamp.default
clamp.Tensor clamp_min.default clamp_min.Tensor clamp_max.default clamp_max.Tensor clip.default clip.Tensor

eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor
ge.Scalar less.Tensor less.Scalar greater.Tensor greater.Scalar logical_and.default logical_or.default
logical_xor.default logical_not.default bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar
bitwise_xor.Tensor bitwise_xor.Scalar bitwise_not.default __and__.Tensor __and__.Scalar __or__.Tensor __or__.Scalar
where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor

relu.default relu6.default hardtanh.default hardswish.default hardsigmoid.default leaky_relu.default elu.default
celu.default selu.default gelu.default silu.default mish.default softplus.default log_sigmoid.default
threshold.default prelu.default hardshrink.default softshrink.default glu.default softmax.int log_softmax.int

conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding conv_transpose1d.default
conv_transpose2d.input conv_transpose3d.input convolution.default linear.default bilinear.default matmul.default
mm.default bmm.default mv.default dot.default addmm.default addmv.default baddbmm.default addbmm.default outer.default
einsum.default tensordot.default chain_matmul.default scaled_dot_product_attention.default

batch_norm.default instance_norm.default group_norm.default layer_norm.default native_layer_norm.default
rms_norm.default linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype
norm_except_dim.default cosine_similarity.default pairwise_distance.default

max_pool1d.default max_pool2d.default max_pool3d.default max_pool2d_with_indices.default
max_pool3d_with_indices.default avg_pool1d.default avg_pool2d.default avg_pool3d.default adaptive_avg_pool1d.default
adaptive_avg_pool2d.default adaptive_avg_pool3d.default _adaptive_avg_pool2d.default adaptive_max_pool1d.default
adaptive_max_pool2d.default

lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell.default gru_cell.default rnn_tanh_cell.default
rnn_relu_cell.default

sum.default sum.dim_IntList mean.default mean.dim prod.default prod.dim_int amax.default amin.default aminmax.default
max.default max.dim max.other min.default min.dim min.other argmax.default argmin.default all.default all.dim all.dims
any.default any.dim any.dims var.default var.dim var.correction std.default std.dim std.correction var_mean.dim
var_mean.correction std_mean.dim std_mean.correction logsumexp.default cumsum.default cumprod.default median.default
median.dim nansum.default count_nonzero.dim_IntList count_nonzero.default topk.default sort.default sort.stable
argsort.default argsort.stable

reshape.default view.default view_as.default reshape_as.default flatten.using_ints unflatten.int squeeze.default
squeeze.dim squeeze.dims unsqueeze.default expand.default expand_as.default broadcast_to.default permute.default
transpose.int t.default swapaxes.default swapdims.default movedim.int movedim.intlist moveaxis.int moveaxis.intlist
slice.Tensor select.int narrow.default index_select.default index.Tensor
gather.default diagonal.default unbind.int split.Tensor split.sizes split_with_sizes.default
chunk.default tensor_split.sections tensor_split.indices unsafe_chunk.default unsafe_split.Tensor
unsafe_split_with_sizes.default hsplit.int vsplit.int unfold.default cat.default concat.default concatenate.default
stack.default hstack.default vstack.default dstack.default atleast_1d.default atleast_2d.default atleast_3d.default
meshgrid.default meshgrid.indexing broadcast_tensors.default repeat.default repeat_interleave.self_int tile.default
flip.default fliplr.default flipud.default roll.default rot90.default tril.default triu.default pixel_shuffle.default
pixel_unshuffle.default channel_shuffle.default native_channel_shuffle.default im2col.default col2im.default
slice_scatter.default select_scatter.default diagonal_scatter.default scatter.src scatter.value scatter_add.default
scatter.reduce scatter_reduce.two index_put.default index_add.default index_copy.default index_fill.int_Scalar
index_fill.int_Tensor embedding.default one_hot.default clone.default contiguous.default

pad.default constant_pad_nd.default reflection_pad1d.default reflection_pad2d.default replication_pad1d.default
replication_pad2d.default upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec
_upsample_nearest_exact2d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_linear1d.vec
upsample_trilinear3d.vec _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec upsample_nearest1d.default
upsample_nearest2d.default upsample_nearest3d.default _upsample_nearest_exact2d.default upsample_bilinear2d.default
upsample_bicubic2d.default upsample_linear1d.default upsample_trilinear3d.default _upsample_bilinear2d_aa.default
_upsample_bicubic2d_aa.default grid_sampler.default grid_sampler_2d.default affine_grid_generator.default

zeros.default ones.default full.default zeros_like.default ones_like.default full_like.default new_zeros.default
new_ones.default new_full.default arange.default arange.start arange.start_step linspace.default eye.default eye.m
scalar_tensor.default tril_indices.default triu_indices.default

_to_copy.default to.dtype to.dtype_layout to.device to.other type_as.default
"""

_SAME = """
alias.default detach.default lift_fresh.default dropout.default feature_dropout.default alpha_dropout.default
feature_alpha_dropout.default positive.default resolve_conj.default resolve_neg.default
"""
"""Operators that return their first argument, such as dropout in evaluation."""

_CHANGED = """
abs_.default acos_.default asin_.default atan_.default ceil_.default cos_.default erf_.default exp_.default
floor_.default frac_.default log_.default log1p_.default log2_.default neg_.default reciprocal_.default round_.default
rsqrt_.default sigmoid_.default sign_.default sin_.default sqrt_.default square_.default tan_.default tanh_.default
trunc_.default nan_to_num_.default add_.Tensor add_.Scalar sub_.Tensor sub_.Scalar mul_.Tensor mul_.Scalar div_.Tensor
div_.Scalar div_.Tensor_mode div_.Scalar_mode multiply_.Tensor multiply_.Scalar subtract_.Tensor subtract_.Scalar
divide_.Tensor divide_.Scalar true_divide_.Tensor fmod_.Tensor fmod_.Scalar remainder_.Tensor remainder_.Scalar
pow_.Scalar addcmul_.default addcdiv_.default lerp_.Tensor lerp_.Scalar clamp_.default clamp_.Tensor
clamp_min_.default clamp_max_.default clip_.default addmm_.default baddbmm_.default eq_.Tensor eq_.Scalar ne_.Tensor
ne_.Scalar lt_.Tensor lt_.Scalar le_.Tensor le_.Scalar gt_.Tensor gt_.Scalar ge_.Tensor ge_.Scalar
logical_and_.default logical_or_.default logical_not_.default bitwise_and_.Tensor bitwise_or_.Tensor
masked_fill_.Scalar masked_fill_.Tensor index_put_.default index_add_.default index_copy_.default
index_fill_.int_Scalar index_fill_.int_Tensor scatter_.src scatter_.value scatter_add_.default cumsum_.default
tril_.default triu_.default relu_.default relu6_.default hardtanh_.default hardswish_.default hardsigmoid_.default
leaky_relu_.default elu_.default celu_.default selu_.default gelu_.default silu_.default mish_.default
threshold_.default dropout_.default feature_dropout_.default alpha_dropout_.default feature_alpha_dropout_.default
"""
"""Operators that write the result of the operator without ``_`` into their first argument."""

_RESHAPED = """
squeeze_.default squeeze_.dim squeeze_.dims unsqueeze_.default transpose_.default t_.default swapaxes_.default
swapdims_.default detach_.default
"""
"""Operators that turn their first argument into a view of itself."""

_REPLACED = """
lift_fresh_copy.default copy.default copy_.default fill.Scalar fill.Tensor fill_.Scalar fill_.Tensor zero.default
zero_.default pow_.Tensor floor_divide_.Tensor _softmax.default _log_softmax.default _unsafe_view.default
_unsafe_index.Tensor as_strided.default native_dropout.default native_group_norm.default native_batch_norm.default
_native_batch_norm_legit.default _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training.default
_native_batch_norm_legit_functional.default _batch_norm_no_update.default _scaled_dot_product_attention_math.default
_scaled_dot_product_flash_attention_for_cpu.default _weight_norm.default _weight_norm_interface.default mT.default
adjoint.default numpy_T.default
"""
"""Operators that ``decompositions`` expresses by operators above: some do not check the sizes of their arguments."""

WRAPPERS = frozenset(("torch.ops.higher_order.wrap_with_set_grad_enabled", "torch.ops.higher_order.wrap_with_autocast"))
"""Operators that run a nested graph in a mode that changes gradients or types."""
ASSERTIONS = frozenset(
    ATEN + name for name in ("_assert_tensor_metadata.default", "_assert_async.default", "_assert_async.msg")
)
"""Operators without a result, which are dropped: types are known here, and no file checks its numbers."""

_TORCH = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|(_operator|math)\.\w+")
_HARMFUL = re.compile(
    r"torch\.ops\.aten\.(from_file|save|_print|set|set_|set_data|_?resize\w*|_?empty\w*|new_empty\w*|record_stream)\b.*"
)
_RANDOM = re.compile(
    r"torch\.ops\.aten\.(_?rand\w*|bernoulli\w*|normal\w*|uniform\w*|exponential\w*|multinomial|poisson|rrelu\w*)\b.*"
)
_VARIABLE = re.compile(
    r"torch\.ops\.aten\.(nonzero\w*|masked_select|item|_local_scalar_dense|_?unique\w*|bincount|sym_\w+)\b.*"
)


@cache
def signatures() -> Mapping[str, Any]:
    """Return the operators that an archive may name, by their names in it."""
    names = " ".join((_PURE, _SAME, _CHANGED, _RESHAPED, _REPLACED)).split()
    return {ATEN + name: resolve(name) for name in names}


@cache
def resolve(name: str) -> Any:
    """Return an operator by its name without ``torch.ops.aten.``, e.g. ``relu.default``."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


PURE, SAME, CHANGED, RESHAPED = (frozenset(names.split()) for names in (_PURE, _SAME, _CHANGED, _RESHAPED))


def is_random(target: str) -> bool:
    """Return whether an operator of an archive returns other numbers at every call."""
    return _RANDOM.fullmatch(target) is not None


def refusal(target: str, where: str) -> Failure:
    """Return the failure of a program with an operator outside of the table; ``where`` is the user's line."""
    name = shown(target.removeprefix("torch.ops."))
    if not _TORCH.fullmatch(target) or _HARMFUL.fullmatch(target):
        return unsafe(f"operators that are not accepted: {shown(target)}")
    if is_random(target):
        problem = f"{name}{where} returns other numbers at every call, as dropout does in training mode"
        return unfit(problem, "call model.eval() before torch.export.export, and draw no random numbers in forward")
    if _VARIABLE.fullmatch(target):
        problem = f"{name}{where} returns numbers or sizes that make the program differ from image to image"
        return unfit(problem, "end the program before it, and do the rest on the outputs of the file")
    return unfit(
        f"{name}{where} is an operator that this converter does not know",
        "express that line by other operators of torch, or end the program before it",
    )
