"""Matrix products and normalisation."""

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor, from_numpy
from torch.nn import functional

from converter.coreml.building import TARGET, Case, bools, ints, normal, positive

_X = normal(2, 3, 4, 5)
_W, _B = normal(7, 5, seed=1), normal(7, seed=2)
_MEAN, _VARIANCE, _GAMMA, _BETA = normal(3, seed=3), positive(3, seed=4), normal(3, seed=5), normal(3, seed=6)
_Q, _K, _V = normal(1, 2, 3, 4), normal(1, 2, 5, 4, seed=1), normal(1, 2, 5, 4, seed=2)
_BOX = from_numpy(np.ones((1, 1, 3, 1, 1), np.float32))
_MASK = bools([True, True, False, True, True], [True] * 5, [False, True, True, False, True])


def _attention(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return (logits.masked_fill(~mask[0], -np.inf) if mask else logits).softmax(-1) @ v


def _per_channel(values: np.ndarray) -> np.ndarray:
    return values[None, :, None, None]


def _normal(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


CASES: dict[str, list[Case]] = {
    "linear": [
        Case(
            "multiplies the last dimension",
            lambda x: mb.linear(x=x, weight=_W, bias=_B),
            (_X[0, 0],),
            lambda x: x.numpy() @ _W.T + _B,
        )
    ],
    "matmul": [
        Case("broadcasts over batches", lambda x, y: mb.matmul(x=x, y=y), (_X, normal(5, 6)), lambda x, y: x @ y),
        Case(
            "takes a column for each matrix",
            lambda x, y: mb.matmul(x=x, y=y),
            (_X, normal(2, 1, 5, 1)),
            lambda x, y: x.numpy() @ y.numpy(),
        ),
        Case(
            "transposes its first operand",
            lambda x, y: mb.matmul(x=x, y=y, transpose_x=True),
            (_X, normal(2, 1, 4, 6)),
            lambda x, y: np.swapaxes(x.numpy(), -1, -2) @ y.numpy(),
        ),
        Case(
            "transposes its second operand",
            lambda x, y: mb.matmul(x=x, y=y, transpose_y=True),
            (_X, normal(6, 5)),
            lambda x, y: x.numpy() @ y.numpy().T,
        ),
        Case(
            "of integers stays an integer",
            lambda x, y: mb.matmul(x=x, y=y),
            (ints([1, 2], [3, 4]), ints([5, 6], [7, 8])),
            lambda x, y: ints([19, 22], [43, 50]),
        ),
    ],
    "einsum": [
        Case(
            "sums over the shared index",
            lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
            (_X, normal(2, 5, 4, 6)),
            lambda x, y: np.einsum("nchw,nwhu->nchu", x.numpy(), y.numpy()),
        )
    ],
    "scaled_dot_product_attention": [
        Case(
            "attends to every key",
            lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
            (_Q, _K, _V),
            _attention,
            TARGET.iOS18,
        ),
        Case(
            "attends where a bool mask is true",
            lambda q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
            (_Q, _K, _V, _MASK),
            _attention,
            TARGET.iOS18,
        ),
    ],
    "batch_norm": [
        Case(
            "uses the stored moments",
            lambda x: mb.batch_norm(x=x, mean=_MEAN, variance=_VARIANCE, gamma=_GAMMA, beta=_BETA, epsilon=1e-3),
            (_X,),
            lambda x: (
                (x.numpy() - _per_channel(_MEAN)) / np.sqrt(_per_channel(_VARIANCE) + 1e-3) * _per_channel(_GAMMA)
                + _per_channel(_BETA)
            ),
        ),
        Case(
            "scales and shifts by 1 and 0 by default",
            lambda x: mb.batch_norm(x=x, mean=_MEAN, variance=_VARIANCE),
            (_X,),
            lambda x: (x.numpy() - _per_channel(_MEAN)) / np.sqrt(_per_channel(_VARIANCE) + 1e-5),
        ),
    ],
    "instance_norm": [
        Case(
            "uses the moments of each image and channel",
            lambda x: mb.instance_norm(x=x, gamma=_GAMMA, beta=_BETA, epsilon=1e-3),
            (_X,),
            lambda x: _normal(x.numpy(), (2, 3), 1e-3) * _per_channel(_GAMMA) + _per_channel(_BETA),
            atol=1e-5,
        )
    ],
    "layer_norm": [
        Case(
            "over the last axis with gamma and beta",
            lambda x: mb.layer_norm(x=x, axes=[-1], gamma=_W[0], beta=_W[1], epsilon=1e-3),
            (_X,),
            lambda x: functional.layer_norm(x, (5,), from_numpy(_W[0]), from_numpy(_W[1]), 1e-3),
        ),
        Case(
            "over an axis in the middle",
            lambda x: mb.layer_norm(x=x, axes=[1], gamma=_GAMMA, beta=_BETA),
            (_X,),
            lambda x: _normal(x.numpy(), (1,), 1e-5) * _per_channel(_GAMMA) + _per_channel(_BETA),
            atol=1e-5,
        ),
        Case(
            "over every axis",
            lambda x: mb.layer_norm(x=x, axes=[0, 1, 2, 3]),
            (_X,),
            lambda x: _normal(x.numpy(), (0, 1, 2, 3), 1e-5),
        ),
    ],
    "l2_norm": [
        Case(
            "over the last three dimensions together",
            lambda x: mb.l2_norm(x=x, epsilon=1e-3),
            (_X,),
            lambda x: x.numpy() / np.sqrt(np.square(x.numpy()).reshape(2, -1).sum(1) + 1e-3).reshape(2, 1, 1, 1),
        )
    ],
    "local_response_norm": [
        Case(
            "over neighbouring channels",
            lambda x: mb.local_response_norm(x=x, size=3, alpha=0.3, beta=0.5, k=2.0),
            (_X,),
            lambda x: (
                x
                / (2 + 0.1 * functional.conv3d(functional.pad(x[:, None] ** 2, (0, 0, 0, 0, 1, 1)), _BOX)[:, 0]).sqrt()
            ),
        )
    ],
}
