"""Networks as users bring them, in every format, compared with the network that they export."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from converter.cells import ask
from converter.ordinary_networks import SIZE, build_networks
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Precision, Scheme
from modelexport.reasons import Reason
from modelexport_converter.architectures.custom import load
from modelexport_converter.backends import Array, Facts, load_backend
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.culprits import naming_operators
from modelexport_converter.failures import Failure
from modelexport_converter.inspection import check_facts
from modelexport_converter.model import LoadedModel
from modelexport_converter.verify import check, compare

LESS_PRECISE = ("constant_pad", "lstm", "mixer", "norms", "refining", "shared_head", "transformer", "windows")
"""Those that are also converted to FP16 and INT8: weights of every kind, and what each quantiser needs care for."""


@cache
def networks() -> dict[str, torch.nn.Module]:
    return build_networks()


def pictures() -> list[Array]:
    return [torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)).numpy() for seed in range(4)]


def load_ordinary(network: torch.nn.Module, path: Path) -> LoadedModel:
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, *SIZE),)), path)
    return load(read_checkpoint(path), ask("Custom"))


def cells() -> Iterator[Any]:
    for fmt in BACKENDS:
        for name in networks():
            yield pytest.param(fmt, name, marks=pytest.mark.xdist_group(f"ordinary-{fmt}"), id=f"{fmt}-{name}")


@pytest.mark.filterwarnings("ignore:The tensor attributes self:UserWarning")  # torch.export, of recurrent layers
@pytest.mark.parametrize(("fmt", "name"), list(cells()))
def test_an_ordinary_network_converts(fmt: Format, name: str, tmp_path: Path) -> None:
    network = networks()[name]
    model = load_ordinary(network, tmp_path / "network.pt2")
    _agrees_with_the_network(model, network)
    backend, row = load_backend(fmt), BACKENDS[fmt]
    suffix = row.suffix.removesuffix(".zip")
    schemes = [Scheme.FP32, Scheme.FP16, row.data_free, row.calibrated] if name in LESS_PRECISE else [Scheme.FP32]
    bases = {base: tmp_path / f"{base}{suffix}" for base in map(row.base, schemes)}
    for base, path in bases.items():
        backend.convert(model, base, path)
    for scheme in dict.fromkeys(schemes):
        path = bases[row.base(scheme)]
        if scheme not in bases:
            samples = pictures() if scheme.needs_calibration else ()
            backend.quantise(model, path, scheme, samples, tmp_path / f"{scheme}{suffix}")
            path = tmp_path / f"{scheme}{suffix}"
        check_facts(backend.inspect(path), model, scheme)
        precision = {Scheme.FP32: Precision.FP32, Scheme.FP16: Precision.FP16}.get(scheme, Precision.INT8)
        found = compare(model, backend.open_file(model, path), pictures())
        check(found, ARCHITECTURES["Custom"].thresholds[precision])


def _agrees_with_the_network(model: LoadedModel, network: torch.nn.Module) -> None:
    image = torch.from_numpy(pictures()[0])
    with torch.inference_mode():
        expected, found = pytree.tree_leaves(network(image)), model.module(image)
    for wanted, given in zip(expected, found, strict=True):
        np.testing.assert_allclose(given.numpy(), wanted.float().numpy(), rtol=1e-4, atol=1e-5)


class Unknown(torch.nn.Module):
    """A network with an operator in its middle that a format has not."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.conv, self.operator = torch.nn.Conv2d(3, 3, 1), operator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.operator(self.conv(x))
        return y.relu()


def _reduce(x: torch.Tensor) -> torch.Tensor:
    return x.scatter_reduce(3, torch.zeros(1, 3, *SIZE, dtype=torch.int64), x, "amax")


def _diagonal(x: torch.Tensor) -> torch.Tensor:
    return x.diagonal(1, 2, 3)


def _product(x: torch.Tensor) -> torch.Tensor:
    return x.cumprod(3)


@pytest.mark.parametrize(
    ("fmt", "operator", "name"),
    [
        pytest.param(Format.ONNX, _product, "aten.cumprod", id="onnx-named-by-the-library"),
        pytest.param(Format.ONNX, _reduce, "aten.scatter_reduce.two", id="onnx-found-by-halving"),
        pytest.param(Format.COREML, _reduce, "aten.scatter_reduce.two", id="coreml-named-by-the-library"),
        pytest.param(Format.COREML, _diagonal, "aten.diagonal", id="coreml-found-by-halving"),
    ],
)
def test_what_a_format_lacks_is_refused_by_operator_and_line(
    fmt: Format, operator: Any, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_ordinary(Unknown(operator).eval(), tmp_path / "network.pt2")
    backend, suffix = load_backend(fmt), BACKENDS[fmt].suffix.removesuffix(".zip")

    def convert(model: LoadedModel, path: Path) -> None:
        backend.convert(model, Scheme.FP32, path)

    with pytest.raises(Failure) as caught, naming_operators(model, convert, f"part{suffix}"):
        convert(model, tmp_path / f"whole{suffix}")
    assert caught.value.reason is Reason.CONVERSION_FAILED
    assert f"cannot express {name} (test_ordinary_networks.py, line " in str(caught.value)
    assert "in forward: y: torch.Tensor = self.operator(self.conv(x))" in str(caught.value)
    assert len("".join(capfd.readouterr())) < 1000


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("unused_head", 3 * 16 * 9),
        ("shared_head", 3 * 16 * 9 + 16 * 16 * 9 + 16 * 32 * 9 + 32 * 6),
        ("tied", 3 * 16),
        ("transformer", 3 * 32 * 64 + 4 * 32 * 32 + 2 * 32 * 64 + 32 * 5),  # without the positions, which are added
        ("mixer", 3 * 32 * 64 + 24 * 24 + 2 * 32 * 64),
        ("refining", 3 * 16 * 64 + 36 * 16 + 36 * 12),
        ("patches", 27 * 27),
    ],
)
def test_weights_are_what_is_multiplied(name: str, weights: int, tmp_path: Path) -> None:
    model = load_ordinary(networks()[name], tmp_path / "network.pt2")
    facts = Facts({"float16": int(weights * 0.97), "float32": 9999}, {}, {"image": (1, 3, *SIZE)}, {})
    with pytest.raises(Failure, match=f" of {weights} weights are stored as float16"):
        check_facts(facts, model, Scheme.FP16)
