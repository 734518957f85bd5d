"""Convolutions: every kind of padding, over one to three dimensions."""

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor, from_numpy
from torch.nn import functional

from converter.coreml.building import Case, normal

_X = normal(2, 4, 9, 8)
_W3, _W2, _W34 = normal(6, 4, 3, 3, seed=1), normal(6, 4, 2, 2, seed=2), normal(6, 4, 3, 4, seed=3)
_GROUPED, _DEPTHWISE = normal(6, 2, 3, 3, seed=4), normal(8, 1, 3, 3, seed=5)
_BIAS = normal(6, seed=6)
_T3, _T4, _TG = normal(4, 6, 3, 3, seed=7), normal(4, 6, 4, 4, seed=8), normal(4, 3, 3, 3, seed=9)


def _padded(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    return functional.pad(x, (left, right, top, bottom))


def _conv(x: Tensor, weight: np.ndarray, **options: Any) -> Tensor:
    return functional.conv2d(x, from_numpy(weight), **options)


def _conv_transpose(x: Tensor, weight: np.ndarray, **options: Any) -> Tensor:
    return functional.conv_transpose2d(x, from_numpy(weight), **options)


CASES: dict[str, list[Case]] = {
    "conv": [
        Case("pads nothing by default", lambda x: mb.conv(x=x, weight=_W3), (_X,), lambda x: _conv(x, _W3), atol=1e-5),
        Case(
            "adds a bias per channel",
            lambda x: mb.conv(x=x, weight=_W3, bias=_BIAS),
            (_X,),
            lambda x: _conv(x, _W3) + from_numpy(_BIAS)[:, None, None],
            atol=1e-5,
        ),
        Case(
            "with symmetric custom padding",
            lambda x: mb.conv(x=x, weight=_W3, pad_type="custom", pad=[1, 1, 2, 2], strides=[2, 1]),
            (_X,),
            lambda x: _conv(_padded(x, 2, 2, 1, 1), _W3, stride=(2, 1)),
            atol=1e-5,
        ),
        Case(
            "with custom padding that differs on all four sides",
            lambda x: mb.conv(x=x, weight=_W3, pad_type="custom", pad=[0, 1, 2, 3], strides=[2, 2]),
            (_X,),
            lambda x: _conv(_padded(x, 2, 3, 0, 1), _W3, stride=2),
            atol=1e-5,
        ),
        Case(
            "with padding same puts the odd element after",
            lambda x: mb.conv(x=x, weight=_W2, pad_type="same"),
            (_X,),
            lambda x: _conv(_padded(x, 0, 1, 0, 1), _W2),
            atol=1e-5,
        ),
        Case(
            "with padding same_lower puts the odd element before",
            lambda x: mb.conv(x=x, weight=_W2, pad_type="same_lower"),
            (_X,),
            lambda x: _conv(_padded(x, 1, 0, 1, 0), _W2),
            atol=1e-5,
        ),
        Case(
            "with padding same and stride 2 pads an even size by one, after",
            lambda x: mb.conv(x=x, weight=_W3, pad_type="same", strides=[2, 2]),
            (_X[:, :, :8],),
            lambda x: _conv(_padded(x, 0, 1, 0, 1), _W3, stride=2),
            atol=1e-5,
        ),
        Case(
            "with padding same pads nothing when the kernel is smaller than the stride",
            lambda x: mb.conv(x=x, weight=_W3[:, :, :1, :1], pad_type="same", strides=[2, 3]),
            (_X,),
            lambda x: _conv(x, _W3[:, :, :1, :1], stride=(2, 3)),
            atol=1e-5,
        ),
        Case(
            "with padding same counts the dilated kernel",
            lambda x: mb.conv(x=x, weight=_W34, pad_type="same", dilations=[2, 3]),
            (_X,),
            lambda x: _conv(_padded(x, 4, 5, 2, 2), _W34, dilation=(2, 3)),
            atol=1e-5,
        ),
        Case(
            "in groups",
            lambda x: mb.conv(x=x, weight=_GROUPED, groups=2),
            (_X,),
            lambda x: np.concatenate([_conv(x[:, :2], _GROUPED[:3]), _conv(x[:, 2:], _GROUPED[3:])], axis=1),
            atol=1e-5,
        ),
        Case(
            "depthwise with two outputs per channel",
            lambda x: mb.conv(x=x, weight=_DEPTHWISE, groups=4),
            (_X,),
            lambda x: np.concatenate([_conv(x[:, i : i + 1], _DEPTHWISE[2 * i : 2 * i + 2]) for i in range(4)], axis=1),
            atol=1e-5,
        ),
        Case(
            "over one dimension",
            lambda x: mb.conv(x=x, weight=_W3[:, :, 0], pad_type="custom", pad=[2, 0]),
            (_X[:, :, 0],),
            lambda x: functional.conv1d(functional.pad(x, (2, 0)), from_numpy(_W3[:, :, 0])),
            atol=1e-5,
        ),
        Case(
            "over three dimensions",
            lambda x: mb.conv(x=x, weight=normal(2, 4, 2, 3, 3), strides=[1, 2, 1]),
            (normal(1, 4, 3, 5, 4),),
            lambda x: functional.conv3d(x, from_numpy(normal(2, 4, 2, 3, 3)), stride=(1, 2, 1)),
            atol=1e-5,
        ),
        Case(
            "with weights that are computed",
            lambda x, w: mb.conv(x=x, weight=w),
            (_X, _W3),
            functional.conv2d,
            atol=1e-5,
        ),
    ],
    "conv_transpose": [
        Case(
            "with padding valid gives everything",
            lambda x: mb.conv_transpose(x=x, weight=_T3, strides=[2, 2], bias=_BIAS),
            (_X,),
            lambda x: _conv_transpose(x, _T3, stride=2, bias=from_numpy(_BIAS)),
            atol=1e-5,
        ),
        Case(
            "with custom padding crops",
            lambda x: mb.conv_transpose(x=x, weight=_T3, strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]),
            (_X,),
            lambda x: _conv_transpose(x, _T3, stride=2, padding=1),
            atol=1e-5,
        ),
        Case(
            "with custom padding crops each side by its own amount",
            lambda x: mb.conv_transpose(x=x, weight=_T3, strides=[2, 2], pad_type="custom", pad=[0, 1, 2, 0]),
            (_X,),
            lambda x: _conv_transpose(x, _T3, stride=2)[:, :, :-1, 2:],
            atol=1e-5,
        ),
        Case(
            "with an output_shape that torch calls output_padding",
            lambda x: mb.conv_transpose(
                x=x, weight=_T3, strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], output_shape=[2, 6, 18, 16]
            ),
            (_X,),
            lambda x: _conv_transpose(x, _T3, stride=2, padding=1, output_padding=1),
            atol=1e-5,
        ),
        Case(
            "with an output_shape beyond what is convolved adds the bias alone",
            lambda x: mb.conv_transpose(x=x, weight=_T3, strides=[3, 3], output_shape=[2, 6, 28, 25], bias=_BIAS),
            (_X,),
            lambda x: _padded(_conv_transpose(x, _T3, stride=3), 0, 1, 0, 1) + from_numpy(_BIAS)[:, None, None],
            atol=1e-5,
        ),
        Case(
            "with padding same gives stride times the size, the odd crop after",
            lambda x: mb.conv_transpose(x=x, weight=_T3, strides=[2, 2], pad_type="same"),
            (_X,),
            lambda x: _conv_transpose(x, _T3, stride=2)[:, :, :-1, :-1],
            atol=1e-5,
        ),
        Case(
            "with padding same crops an even excess on both sides",
            lambda x: mb.conv_transpose(x=x, weight=_T4, strides=[2, 2], pad_type="same"),
            (_X,),
            lambda x: _conv_transpose(x, _T4, stride=2, padding=1),
            atol=1e-5,
        ),
        Case(
            "in groups, dilated",
            lambda x: mb.conv_transpose(x=x, weight=_TG, groups=2, dilations=[2, 1]),
            (_X,),
            lambda x: _conv_transpose(x, _TG, groups=2, dilation=(2, 1)),
            atol=1e-5,
        ),
        Case(
            "over one dimension",
            lambda x: mb.conv_transpose(x=x, weight=_T3[:, :, 0], strides=[2]),
            (_X[:, :, 0],),
            lambda x: functional.conv_transpose1d(x, from_numpy(_T3[:, :, 0]), stride=2),
            atol=1e-5,
        ),
    ],
}
