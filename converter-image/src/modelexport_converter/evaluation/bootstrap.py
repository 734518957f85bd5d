"""The interval of a loss of accuracy: a paired bootstrap over the images. Pure.

Images are drawn with repetition, as many as there are, and both models are measured on the drawn ones; the interval
holds 95 of 100 of the losses (percentiles; Efron and Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13).
It is paired, because most of what makes a data set easy or hard is the same for both: the interval of the loss is far
narrower than that of either accuracy.
"""

from collections.abc import Callable

import numpy as np

from modelexport_converter.evaluation.records import Numbers, Records

RESAMPLES = 1000
SEED = 0
SHARE = 0.95
CHUNK = 100
"""Selections that are drawn at once."""

Loss = Callable[[Numbers, Numbers], Numbers]
"""Returns the loss for accuracies of the original and of the file."""


def interval(original: Records, file: Records, loss: Loss) -> tuple[float, float]:
    """Return the limits between which the loss lies, for records of the same images."""
    generator, count = np.random.default_rng(SEED), original.count
    losses = []
    for _ in range(RESAMPLES // CHUNK):
        weights = generator.multinomial(count, np.full(count, 1 / count), size=CHUNK).astype(np.float64)
        losses.append(loss(original.values(weights), file.values(weights)))
    low, high = np.quantile(np.concatenate(losses), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)
