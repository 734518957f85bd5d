"""Typical networks of users in every format, compared with the exported network."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils import _pytree as pytree

from converter.ordinary_networks import SIZE, build_networks
from modelexport.api.reasons import Reason
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format, Precision, Recipe
from modelexport_converter.architectures.custom import load
from modelexport_converter.backends import Array, FileContents, Run, load_backend
from modelexport_converter.backends import onnx as onnx_backend
from modelexport_converter.backends.unsupported_operators import name_unsupported_operator
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import check, compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import ask

LESS_PRECISE = ("constant_pad", "lstm", "mixer", "norms", "refining", "shared_head", "transformer", "windows")
"""Those that are also converted to FP16 and INT8: weights of every kind, and what each quantiser needs care for."""
NETWORKS_OF = {
    Format.PYTORCH: LESS_PRECISE,
    Format.TENSORFLOW: (*LESS_PRECISE, "circular_pad", "patches", "pooling"),
    Format.EXECUTORCH: ("lstm", "shared_head", "tied"),
}
"""Networks of the formats that convert only some in every run; the rest has the marker ``all_cells``.

torch exports all of them already, to be read here; TensorFlow and ExecuTorch run each file in a process of its own.
"""


@cache
def networks() -> dict[str, torch.nn.Module]:
    return build_networks()


def images() -> list[Array]:
    return [torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)).numpy() for seed in range(4)]


def load_ordinary(network: torch.nn.Module, path: Path) -> LoadedModel:
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, *SIZE),)), path)
    return load(read_checkpoint(path), ask("Custom"))


def cells() -> Iterator[Any]:
    for fmt, name in product(BACKENDS, networks()):
        marks = [pytest.mark.xdist_group(f"ordinary-{fmt}")]
        marks += [] if name in NETWORKS_OF.get(fmt, networks()) else [pytest.mark.all_cells]
        yield pytest.param(fmt, name, marks=marks, id=f"{fmt}-{name}")


@pytest.mark.parametrize(("fmt", "name"), list(cells()))
@pytest.mark.filterwarnings("ignore:The tensor attributes self:UserWarning")  # torch.export, of recurrent layers
def test_ordinary_network_converts(fmt: Format, name: str, tmp_path: Path) -> None:
    network = networks()[name]
    model = load_ordinary(network, tmp_path / "network.pt2")
    _agrees_with_the_network(model, network)
    backend, row = load_backend(fmt), BACKENDS[fmt]
    suffix = row.suffix.removesuffix(".zip")
    recipes = [Recipe.FP32, Recipe.FP16, row.data_free, row.calibrated] if name in LESS_PRECISE else [Recipe.FP32]
    recipes += [Recipe.STATIC_WI8_AI16] if name in LESS_PRECISE and Precision.W8A16 not in row.refused else []
    bases = {base: tmp_path / f"{base}{suffix}" for base in map(row.base, recipes)}
    for base, path in bases.items():
        backend.convert(model, base, path)
    for recipe in dict.fromkeys(recipes):
        path = bases[row.base(recipe)]
        if row.quantises(recipe):
            samples = images() if recipe.needs_calibration else ()
            backend.quantise(model, path, recipe, samples, tmp_path / f"{recipe}{suffix}")
            path = tmp_path / f"{recipe}{suffix}"
        check_facts(backend.inspect(path), model, recipe)
        precision = next(one for one in Precision if recipe in {row.recipe(one, calibrated=k) for k in (False, True)})
        found = compare(model, open_here(fmt, model, path), images())
        check(found, ARCHITECTURES["Custom"].thresholds[precision])


def open_here(fmt: Format, model: LoadedModel, path: Path) -> Run:
    """Load a file; a SavedModel into this process, as a new one takes seconds to import TensorFlow."""
    if fmt is not Format.TENSORFLOW:
        return load_backend(fmt).open_file(model, path)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(image: Array) -> tuple[Array, ...]:
        results = loaded.signatures["serving_default"](image=tf.constant(image.transpose(0, 2, 3, 1)))
        return tuple(results[output.name].numpy() for output in model.outputs)

    return run


def _agrees_with_the_network(model: LoadedModel, network: torch.nn.Module) -> None:
    image = torch.from_numpy(images()[0])
    with torch.inference_mode():
        expected, found = pytree.tree_leaves(network(image)), model.module(image)
    for wanted, given in zip(expected, found, strict=True):
        np.testing.assert_allclose(given.numpy(), wanted.float().numpy(), rtol=1e-4, atol=1e-5)


class Unknown(torch.nn.Module):
    """A network with an operator in its middle that a format lacks."""

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
        pytest.param(Format.TENSORFLOW, _reduce, "aten.scatter_reduce.two", id="tensorflow-named-by-the-table"),
    ],
)
def test_unsupported_operator_is_refused_with_its_line(
    fmt: Format, operator: Any, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_ordinary(Unknown(operator).eval(), tmp_path / "network.pt2")
    backend, suffix = load_backend(fmt), BACKENDS[fmt].suffix.removesuffix(".zip")

    def convert(model: LoadedModel, path: Path) -> None:
        backend.convert(model, Recipe.FP32, path)

    with pytest.raises(Failure) as caught, name_unsupported_operator(model, convert, f"part{suffix}"):
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
def test_multiplied_tensors_count_as_weights(name: str, weights: int, tmp_path: Path) -> None:
    model = load_ordinary(networks()[name], tmp_path / "network.pt2")
    facts = FileContents({"float16": int(weights * 0.97), "float32": 9999}, {}, {"image": (1, 3, *SIZE)}, {})
    with pytest.raises(Failure, match=f" of {weights} weights are stored as float16"):
        check_facts(facts, model, Recipe.FP16)


def test_unshared_weights_answer_as_shared_ones(tmp_path: Path) -> None:
    model, path = load_ordinary(networks()["shared_head"], tmp_path / "network.pt2"), tmp_path / "int8.onnx"
    onnx_backend.convert(model, Recipe.FP32, tmp_path / "fp32.onnx")
    onnx_backend.quantise(model, tmp_path / "fp32.onnx", Recipe.STATIC_WI8_AI8, images(), path)
    content = onnx_backend._unshare_weights(onnx.load(path))
    inputs = Counter(name for node in content.graph.node for name in node.input)
    weights = {tensor.name for tensor in content.graph.initializer}
    dequantised = [node.output[0] for node in content.graph.node if node.input[0] in weights]
    assert {inputs[name] for name in dequantised} == {1}
    shared, unshared = (onnxruntime.InferenceSession(file) for file in (str(path), content.SerializeToString()))
    for image in images():
        feed = {model.input_name: image}
        for expected, found in zip(shared.run(None, feed), unshared.run(None, feed), strict=True):
            np.testing.assert_array_equal(found, expected)
