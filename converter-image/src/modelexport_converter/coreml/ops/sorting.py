"""Sorting. Among equal values the lower index comes first: fp16 scores have many ties."""

from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """Return indices in order of value, by default largest first."""
    return x.argsort(dim=axis, descending=not ascending, stable=True)


def topk(
    x: Tensor,
    k: int = 1,
    *,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    """Return the k largest (if ascending, smallest) in order, all for k = -1; without `sort` any order is correct."""
    count = x.shape[axis] if k == -1 else k
    indices = argsort(x, axis, ascending).narrow(axis, 0, count)
    values = x.gather(axis, indices)
    return (values, indices) if return_indices else (values,)


OPS: dict[str, KernelFunction] = {"argsort": argsort, "topk": topk}
