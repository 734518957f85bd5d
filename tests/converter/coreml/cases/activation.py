"""Activations."""

import math

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor

from converter.coreml.building import Case, normal

_X = 3 * normal(2, 3, 4, 5)
_ALPHA, _BETA = np.array([0.1, 0.2, -0.3], np.float32), np.array([0.5, 1.0, 2.0], np.float32)


def _per_channel(values: np.ndarray) -> np.ndarray:
    return values[None, :, None, None]


def _gelu_by_definition(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (x / math.sqrt(2)).erf())


def _gelu_by_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


CASES: dict[str, list[Case]] = {
    "relu": [Case("drops what is negative", lambda x: mb.relu(x=x), (_X,), lambda x: x.clamp(min=0))],
    "relu6": [Case("cuts at 0 and 6", lambda x: mb.relu6(x=x), (3 * _X,), lambda x: x.clamp(0, 6))],
    "leaky_relu": [
        Case("has slope alpha below zero", lambda x: mb.leaky_relu(x=x, alpha=0.1), (_X,), lambda x: x.maximum(0.1 * x))
    ],
    "thresholded_relu": [
        Case(
            "keeps the threshold itself",
            lambda x: mb.thresholded_relu(x=x, alpha=1.0),
            (np.array([0.9, 1.0, 1.1, -2], np.float32),),
            lambda x: np.array([0, 1.0, 1.1, 0], np.float32),
        )
    ],
    "clamped_relu": [
        Case(
            "has slope alpha below zero and stops at beta",
            lambda x: mb.clamped_relu(x=x, alpha=0.2, beta=1.5),
            (_X,),
            lambda x: np.minimum(np.where(x >= 0, x, 0.2 * x.numpy()), 1.5),
        )
    ],
    "prelu": [
        Case(
            "has a slope per channel",
            lambda x: mb.prelu(x=x, alpha=_ALPHA),
            (_X,),
            lambda x: np.where(x > 0, x, _per_channel(_ALPHA) * x.numpy()),
        )
    ],
    "elu": [
        Case(
            "is exponential below zero",
            lambda x: mb.elu(x=x, alpha=0.7),
            (_X,),
            lambda x: np.where(x > 0, x, 0.7 * np.expm1(x.numpy())),
        )
    ],
    "gelu": [
        Case("is exact by default", lambda x: mb.gelu(x=x), (_X,), _gelu_by_definition),
        Case("has a tanh approximation", lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), (_X,), _gelu_by_tanh),
        Case(
            "has a sigmoid approximation",
            lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
            (_X,),
            lambda x: x * (1.702 * x).sigmoid(),
        ),
    ],
    "sigmoid": [Case("is 1 / (1 + exp(-x))", lambda x: mb.sigmoid(x=x), (_X,), lambda x: 1 / (1 + (-x).exp()))],
    "sigmoid_hard": [
        Case(
            "is linear between 0 and 1",
            lambda x: mb.sigmoid_hard(x=x, alpha=0.3, beta=0.4),
            (_X,),
            lambda x: (0.3 * x + 0.4).clamp(0, 1),
        )
    ],
    "silu": [Case("is x times its sigmoid", lambda x: mb.silu(x=x), (_X,), lambda x: x / (1 + (-x).exp()))],
    "softmax": [
        Case(
            "sums to one along its axis",
            lambda x: mb.softmax(x=x, axis=1),
            (_X,),
            lambda x: x.exp() / x.exp().sum(1, True),
        ),
        Case(
            "survives logits that overflow exp",
            lambda x: mb.softmax(x=x),
            (np.array([[1000, 999]], np.float32),),
            lambda x: np.array([[0.7310586, 0.2689414]], np.float32),
        ),
    ],
    "softplus": [
        Case("is log(1 + exp(x))", lambda x: mb.softplus(x=x), (_X,), lambda x: x.double().exp().log1p().float()),
        Case(
            "is x for large x",
            lambda x: mb.softplus(x=x),
            (np.array([200], np.float32),),
            lambda x: np.array([200], np.float32),
        ),
    ],
    "softplus_parametric": [
        Case(
            "has alpha and beta per channel",
            lambda x: mb.softplus_parametric(x=x, alpha=_ALPHA, beta=_BETA),
            (_X,),
            lambda x: _per_channel(_ALPHA) * np.log1p(np.exp(_per_channel(_BETA) * x.numpy())),
        )
    ],
    "softsign": [Case("is x / (1 + |x|)", lambda x: mb.softsign(x=x), (_X,), lambda x: x / (1 + x.abs()))],
    "scaled_tanh": [
        Case(
            "scales inside and outside",
            lambda x: mb.scaled_tanh(x=x, alpha=1.7, beta=0.6),
            (_X,),
            lambda x: 1.7 * (0.6 * x).tanh(),
        )
    ],
    "linear_activation": [
        Case(
            "is a straight line",
            lambda x: mb.linear_activation(x=x, alpha=2.0, beta=-1.0),
            (_X,),
            lambda x: 2 * x - 1,
        )
    ],
}
