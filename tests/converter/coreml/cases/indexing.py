"""Slices and gathers."""

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor

from converter.coreml.building import TARGET, Case, bools, ints, normal, ramp

_X = normal(2, 5, 4)
_BATCH_INDICES = ints([3, 0], [1, 1])


def _take_per_batch(x: Tensor, indices: Tensor) -> np.ndarray:
    return np.stack([np.take(part, index, 1) for part, index in zip(x.numpy(), indices.numpy(), strict=True)])


CASES: dict[str, list[Case]] = {
    "slice_by_index": [
        Case(
            "takes from begin to end",
            lambda x: mb.slice_by_index(x=x, begin=[0, 1, 2], end=[1, 4, 4]),
            (_X,),
            lambda x: x[0:1, 1:4, 2:4],
        ),
        Case(
            "counts negative bounds from the end",
            lambda x: mb.slice_by_index(x=x, begin=[0, -4, 0], end=[2, -1, -2]),
            (_X,),
            lambda x: x[0:2, -4:-1, 0:-2],
        ),
        Case(
            "leaves masked bounds open",
            lambda x: mb.slice_by_index(
                x=x,
                begin=[1, 3, 1],
                end=[1, 2, 1],
                begin_mask=[True, False, True],
                end_mask=[True, True, False],
            ),
            (_X,),
            lambda x: x[:, 3:, :1],
        ),
        Case(
            "steps",
            lambda x: mb.slice_by_index(x=x, begin=[0, 0, 1], end=[2, 5, 4], stride=[1, 2, 2]),
            (_X,),
            lambda x: x[:, ::2, 1:4:2],
        ),
        Case(
            "steps backwards",
            lambda x: mb.slice_by_index(x=x, begin=[0, 4, 3], end=[2, 0, 1], stride=[1, -2, -1]),
            (_X,),
            lambda x: np.ascontiguousarray(x.numpy()[:, 4:0:-2, 3:1:-1]),
        ),
        Case(
            "reverses with open bounds",
            lambda x: mb.slice_by_index(
                x=x,
                begin=[0, 0, 0],
                end=[0, 0, 0],
                stride=[1, -1, -2],
                begin_mask=[True] * 3,
                end_mask=[True] * 3,
            ),
            (_X,),
            lambda x: np.ascontiguousarray(x.numpy()[:, ::-1, ::-2]),
        ),
        Case(
            "drops squeezed dimensions",
            lambda x: mb.slice_by_index(
                x=x, begin=[1, 0, -1], end=[0, 3, 0], squeeze_mask=[True, False, True], end_mask=[False, False, True]
            ),
            (_X,),
            lambda x: x[1, 0:3, -1],
        ),
        Case(
            "cuts an end beyond the size",
            lambda x: mb.slice_by_index(x=x, begin=[0, 3, 0], end=[2, 99, 4]),
            (_X,),
            lambda x: x[:, 3:],
        ),
        Case(
            "of bools gives bools",
            lambda x: mb.slice_by_index(x=x, begin=[1], end=[3]),
            (bools(True, False, True),),
            lambda x: bools(False, True),
        ),
    ],
    "slice_by_size": [
        Case(
            "takes so many, or all that is left",
            lambda x: mb.slice_by_size(x=x, begin=[1, 2, 0], size=[1, -1, 3]),
            (_X,),
            lambda x: x[1:2, 2:, 0:3],
        )
    ],
    "gather": [
        Case(
            "puts the shape of the indices in place of the axis",
            lambda x, i: mb.gather(x=x, indices=i, axis=1),
            (_X, ints([0, 2, 4], [1, 1, 3])),
            lambda x, i: np.take(x.numpy(), i.numpy(), 1),
        ),
        Case(
            "counts negative indices and axes from the end",
            lambda x, i: mb.gather(x=x, indices=i, axis=-1),
            (_X, ints(-1, 0, -4)),
            lambda x, i: np.take(x.numpy(), i.numpy(), 2),
        ),
        Case(
            "drops the axis for a scalar index",
            lambda x: mb.gather(x=x, indices=np.int32(2), axis=1),
            (_X,),
            lambda x: x[:, 2],
        ),
        Case(
            "goes along batches",
            lambda x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=1),
            (_X, _BATCH_INDICES),
            _take_per_batch,
        ),
        Case(
            "accepts validate_indices",
            lambda x, i: mb.gather(x=x, indices=i, axis=0, validate_indices=True),
            (ints(10, 20, 30), ints(2, 0)),
            lambda x, i: ints(30, 10),
            TARGET.iOS17,
        ),
    ],
    "gather_along_axis": [
        Case(
            "takes along one axis, counting negative indices from the end",
            lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=1),
            (ramp(2, 3), ints([0, -1], [1, 0])),
            lambda x, i: np.take_along_axis(x.numpy(), i.numpy(), 1),
        )
    ],
    "gather_nd": [
        Case(
            "takes slices at positions in the first dimensions",
            lambda x, i: mb.gather_nd(x=x, indices=i),
            (_X, ints([0, 4], [1, -1], [1, 0])),
            lambda x, i: x[[0, 1, 1], [4, 4, 0]],
        ),
        Case(
            "goes along batches",
            lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
            (_X, ints([[4], [0]], [[2], [2]])),
            lambda x, i: np.stack([x[0, [4, 0]], x[1, [2, 2]]]),
        ),
    ],
}
