"""Pooling and padding."""

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor
from torch.nn import functional

from converter.coreml.building import Case, normal, ramp

_X = normal(2, 3, 9, 8)
_NEGATIVE = -1 - ramp(1, 1, 3, 3)


def _max_pool(x: Tensor, size: int, stride: int, *sides: int) -> Tensor:
    """Padding is in torch's order: left, right, top, bottom."""
    return functional.max_pool2d(functional.pad(x, sides, value=-np.inf), size, stride)


def _mean_of_window(x: Tensor, rows: slice, columns: slice, count: int) -> float:
    return float(x[0, 0, rows, columns].sum()) / count


CASES: dict[str, list[Case]] = {
    "max_pool": [
        Case(
            "moves by one by default",
            lambda x: mb.max_pool(x=x, kernel_sizes=[2, 3], pad_type="valid"),
            (_X,),
            lambda x: functional.max_pool2d(x, (2, 3), 1),
        ),
        Case(
            "keeps the size with symmetric padding",
            lambda x: mb.max_pool(x=x, kernel_sizes=[5, 5], pad_type="custom", pad=[2, 2, 2, 2]),
            (_X,),
            lambda x: functional.max_pool2d(x, 5, 1, 2),
        ),
        Case(
            "never lets the padding win",
            lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2]),
            (_NEGATIVE,),
            lambda x: np.array([[[[-1, -2], [-4, -5]]]], np.float32),
        ),
        Case(
            "with padding that differs on all four sides",
            lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[0, 1, 2, 1], strides=[2, 2]),
            (_X,),
            lambda x: _max_pool(x, 3, 2, 2, 1, 0, 1),
        ),
        Case(
            "with padding same puts the odd element after",
            lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2], pad_type="same"),
            (_X,),
            lambda x: _max_pool(x, 2, 1, 0, 1, 0, 1),
        ),
        Case(
            "with padding same_lower puts the odd element before",
            lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2], pad_type="same_lower"),
            (_X,),
            lambda x: _max_pool(x, 2, 1, 1, 0, 1, 0),
        ),
        Case(
            "with padding same and stride 2 depends on the size",
            lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], pad_type="same", strides=[2, 2]),
            (_X,),
            lambda x: _max_pool(x, 3, 2, 0, 1, 1, 1),
        ),
        Case(
            "with ceil_mode keeps the last partial window",
            lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2], pad_type="valid", strides=[2, 2], ceil_mode=True),
            (_X,),
            lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True),
        ),
        Case(
            "with ceil_mode drops a window that starts in the padding",
            lambda x: mb.max_pool(
                x=x, kernel_sizes=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2], ceil_mode=True
            ),
            (_X,),
            lambda x: functional.max_pool2d(x, 2, 2, 1, ceil_mode=True),
        ),
        Case(
            "over one dimension",
            lambda x: mb.max_pool(x=x, kernel_sizes=[3], pad_type="custom", pad=[0, 2], strides=[2]),
            (_X[:, :, 0],),
            lambda x: functional.max_pool1d(functional.pad(x, (0, 2), value=-np.inf), 3, 2),
        ),
        Case(
            "over three dimensions",
            lambda x: mb.max_pool(x=x, kernel_sizes=[2, 2, 2], pad_type="valid"),
            (normal(1, 2, 3, 4, 5),),
            lambda x: functional.max_pool3d(x, 2, 1),
        ),
    ],
    "avg_pool": [
        Case(
            "counts the padding by default",
            lambda x: mb.avg_pool(x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2]),
            (_X,),
            lambda x: functional.avg_pool2d(x, 3, 2, 1),
        ),
        Case(
            "can leave the padding out of the count",
            lambda x: mb.avg_pool(
                x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1], exclude_padding_from_average=True
            ),
            (_X,),
            lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        ),
        Case(
            "with ceil_mode counts no further than the padding",
            lambda x: mb.avg_pool(
                x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2], ceil_mode=True
            ),
            (_X,),
            lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        ),
        Case(
            "with ceil_mode and without the padding counts only what is there",
            lambda x: mb.avg_pool(
                x=x,
                kernel_sizes=[2, 2],
                pad_type="valid",
                strides=[2, 2],
                ceil_mode=True,
                exclude_padding_from_average=True,
            ),
            (_X,),
            lambda x: functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
        ),
        Case(
            "with uneven padding counts each window by itself",
            lambda x: mb.avg_pool(
                x=x,
                kernel_sizes=[2, 2],
                pad_type="custom",
                pad=[0, 0, 1, 0],
                strides=[2, 2],
                exclude_padding_from_average=True,
            ),
            (ramp(1, 1, 2, 3),),
            lambda x: np.array(
                [
                    [
                        [
                            [
                                _mean_of_window(x, slice(0, 2), slice(0, 1), 2),
                                _mean_of_window(x, slice(0, 2), slice(1, 3), 4),
                            ]
                        ]
                    ]
                ],
                np.float32,
            ),
        ),
    ],
    "crop": [
        Case(
            "cuts each side by its own amount",
            lambda x: mb.crop(x=x, crop_height=[1, 0], crop_width=[2, 3]),
            (_X,),
            lambda x: x[:, :, 1:, 2:-3],
        )
    ],
    "pad": [
        Case(
            "fills the last dimensions with a value",
            lambda x: mb.pad(x=x, pad=[1, 0, 2, 3], constant_val=-7.0),
            (_X,),
            lambda x: np.pad(x.numpy(), [(0, 0), (0, 0), (1, 0), (2, 3)], constant_values=-7),
        ),
        Case(
            "fills every dimension",
            lambda x: mb.pad(x=x, pad=[0, 1, 1, 0, 0, 2, 1, 1]),
            (_X,),
            lambda x: np.pad(x.numpy(), [(0, 1), (1, 0), (0, 2), (1, 1)]),
        ),
        Case(
            "reflects without repeating the edge",
            lambda x: mb.pad(x=x, pad=[2, 1, 3, 0], mode="reflect"),
            (_X,),
            lambda x: np.pad(x.numpy(), [(0, 0), (0, 0), (2, 1), (3, 0)], mode="reflect"),
        ),
        Case(
            "replicates the edge",
            lambda x: mb.pad(x=x, pad=[0, 2, 1, 3], mode="replicate"),
            (_X,),
            lambda x: np.pad(x.numpy(), [(0, 0), (0, 0), (0, 2), (1, 3)], mode="edge"),
        ),
    ],
}
