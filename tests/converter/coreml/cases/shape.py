"""Rearranging, joining, splitting and making tensors."""

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere

from converter.coreml.building import Case, bools, ints, normal, ramp

_X = normal(2, 3, 4)
_Y = normal(2, 3, 4, seed=1)

CASES: dict[str, list[Case]] = {
    "reshape": [
        Case("infers -1", lambda x: mb.reshape(x=x, shape=[4, -1]), (_X,), lambda x: x.reshape(4, 6)),
        Case(
            "keeps the size of a dimension for 0",
            lambda x: mb.reshape(x=x, shape=[0, -1, 2]),
            (_X,),
            lambda x: x.reshape(2, 6, 2),
        ),
        Case(
            "of bools gives bools", lambda x: mb.reshape(x=x, shape=[2, 1]), (bools(True, False),), lambda x: x[:, None]
        ),
    ],
    "transpose": [
        Case("permutes", lambda x: mb.transpose(x=x, perm=[2, 0, 1]), (_X,), lambda x: x.numpy().transpose(2, 0, 1)),
        Case(
            "counts negative dimensions from the end",
            lambda x: mb.transpose(x=x, perm=[0, -1, -2]),
            (_X,),
            lambda x: x.numpy().swapaxes(1, 2),
        ),
    ],
    "expand_dims": [
        Case(
            "counts axes in the result",
            lambda x: mb.expand_dims(x=x, axes=[0, -1, 2]),
            (_X,),
            lambda x: x.reshape(1, 2, 1, 3, 4, 1),
        )
    ],
    "squeeze": [
        Case(
            "drops the given axes",
            lambda x: mb.squeeze(x=x, axes=[0, -1]),
            (normal(1, 3, 1, 1),),
            lambda x: x[0, :, :, 0],
        ),
        Case("drops all of size one", lambda x: mb.squeeze(x=x), (normal(1, 3, 1, 2),), lambda x: x[0, :, 0]),
    ],
    "concat": [
        Case(
            "joins along the axis",
            lambda x, y: mb.concat(values=[x, y], axis=-2),
            (_X, _Y),
            lambda x, y: np.hstack([x, y]),
        ),
        Case("accepts a single value", lambda x: mb.concat(values=[x], axis=0), (_X,), lambda x: x),
        Case(
            "can interleave",
            lambda x, y: mb.concat(values=[x, y], axis=0, interleave=True),
            (ints([1, 2], [3, 4], [5, 6]), ints([7, 8], [9, 10], [11, 12])),
            lambda x, y: ints([1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]),
        ),
        Case(
            "joins constants with variables",
            lambda x: mb.concat(values=[x, ints(7)], axis=0),
            (ints(1, 2),),
            lambda x: ints(1, 2, 7),
        ),
    ],
    "stack": [
        Case(
            "makes a new axis", lambda x, y: mb.stack(values=[x, y], axis=1), (_X, _Y), lambda x, y: np.stack([x, y], 1)
        )
    ],
    "split": [
        Case(
            "into equal parts",
            lambda x: mb.split(x=x, num_splits=2, axis=-1),
            (_X,),
            lambda x: [x[..., :2], x[..., 2:]],
        ),
        Case(
            "into parts of given sizes",
            lambda x: mb.split(x=x, split_sizes=[1, 2], axis=1),
            (_X,),
            lambda x: [x[:, :1], x[:, 1:]],
        ),
    ],
    "tile": [
        Case("repeats per dimension", lambda x: mb.tile(x=x, reps=[1, 2, 3]), (_X,), lambda x: np.tile(x, (1, 2, 3)))
    ],
    "reverse": [
        Case("along axes", lambda x: mb.reverse(x=x, axes=[0, -1]), (_X,), lambda x: x.numpy()[::-1, :, ::-1].copy()),
        Case("along all by default", lambda x: mb.reverse(x=x), (_X,), lambda x: x.numpy()[::-1, ::-1, ::-1].copy()),
    ],
    "shape": [Case("is a vector of int32", lambda x: mb.shape(x=x), (_X,), lambda x: ints(2, 3, 4))],
    "fill": [
        Case(
            "makes a constant of the shape that it is given",
            lambda s: mb.fill(shape=s, value=2.5),
            (ints(2, 3),),
            lambda s: np.full((2, 3), 2.5, np.float32),
        ),
        Case("makes integers of an integer", lambda s: mb.fill(shape=s, value=7), (ints(2),), lambda s: ints(7, 7)),
    ],
    "fill_like": [
        Case(
            "takes the shape of another tensor",
            lambda x: mb.fill_like(ref_tensor=x, value=np.float32(3)),
            (_X,),
            lambda x: np.full((2, 3, 4), 3, np.float32),
        )
    ],
    "range_1d": [
        Case(
            "stops before the end",
            lambda end: mb.range_1d(end=mb.squeeze(x=end), start=1, step=3),
            (ints(10),),
            lambda end: ints(1, 4, 7),
        )
    ],
    "one_hot": [
        Case(
            "appends the new axis",
            lambda i: mb.one_hot(indices=i, one_hot_vector_size=3, on_value=5, off_value=-1),
            (ints(2, 0),),
            lambda i: ints([-1, -1, 5], [5, -1, -1]),
        ),
        Case(
            "can put the new axis first",
            lambda i: mb.one_hot(indices=i, one_hot_vector_size=3, axis=0),
            (ints(2, 0),),
            lambda i: ints([0, 1], [0, 0], [1, 0]),
        ),
    ],
    "band_part": [
        Case(
            "keeps diagonals near the main one",
            lambda x: mb.band_part(x=x, lower=1, upper=0),
            (1 + ramp(3, 3),),
            lambda x: np.array([[1, 0, 0], [4, 5, 0], [0, 8, 9]], np.float32),
        ),
        Case(
            "keeps a whole triangle for -1",
            lambda x: mb.band_part(x=x, lower=0, upper=-1),
            (1 + ramp(3, 3),),
            lambda x: np.array([[1, 2, 3], [0, 5, 6], [0, 0, 9]], np.float32),
        ),
    ],
}
