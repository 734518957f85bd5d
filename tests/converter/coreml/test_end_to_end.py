"""A small network, converted as the product does it, agrees with eager PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.optimize import coreml as compression
from torch import Tensor, nn

from converter.coreml.building import TARGET
from modelexport_converter.coreml import load_program
from modelexport_converter.coreml.library import coremltools

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")


class Network(nn.Module):
    """The building blocks of a small detector: downsampling, pooling, an upsampled branch, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, groups=4), nn.BatchNorm2d(32), nn.SiLU())
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.up = nn.Upsample(scale_factor=2)
        self.mask = nn.ConvTranspose2d(80, 8, 3, 2, 1, output_padding=1)
        self.head = nn.Conv2d(80, 10, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(x)
        coarse = self.down(fine)
        joined = torch.cat([fine, self.up(torch.cat([coarse, self.pool(coarse)], 1))], 1)
        return self.head(joined).flatten(2).softmax(1), self.mask(joined)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.05, 0.5)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def traced(network: nn.Module, image: Tensor) -> Any:
    return torch.jit.trace(network, image)


def _convert(traced: Any, image: Tensor, precision: str) -> Any:
    model = coremltools.convert(
        traced,
        inputs=[coremltools.TensorType("image", shape=image.shape)],
        outputs=[coremltools.TensorType("scores"), coremltools.TensorType("mask")],
        minimum_deployment_target=TARGET.iOS16,
        compute_precision=coremltools.precision.FLOAT16 if precision == "FP16" else coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    if precision != "INT8":
        return model
    options = compression.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64)
    return compression.linear_quantize_weights(
        model, compression.OptimizationConfig(op_type_configs={"conv": options, "conv_transpose": options})
    )


# Weights below the threshold of 64 and biases stay as they are: 8 + 10 + 32 + 16 numbers of bias.
_INT8_WEIGHTS = {"int8": 432 + 1152 + 5760 + 800, "float32": 66}


@pytest.mark.parametrize(
    ("precision", "weights", "tolerance"),
    [
        # Another order of summation in fused batch normalisation.
        pytest.param("FP32", {"float32": 8210}, 1e-5, id="FP32 within 1e-5"),
        # fp16 has 11 bits; the mask, which reaches 2, sums 720 rounded products.
        pytest.param("FP16", {"float16": 8210}, 5e-3, id="FP16 within 5e-3"),
        # A weight moves by at most 1/254 of its channel's largest.
        pytest.param("INT8", _INT8_WEIGHTS, 3e-2, id="INT8 within 3e-2"),
    ],
)
def test_converted_network_agrees_with_pytorch(  # noqa: PLR0917 - fixtures and parameters
    precision: str,
    weights: dict[str, int],
    tolerance: float,
    network: nn.Module,
    traced: Any,
    image: Tensor,
    tmp_path: Path,
) -> None:
    _convert(traced, image, precision).save(str(tmp_path / "network.mlpackage"))
    program = load_program(tmp_path / "network.mlpackage")
    results = program.run({"image": image.numpy()})

    assert program.weight_types() == weights
    for name, expected in zip(("scores", "mask"), network(image), strict=True):
        np.testing.assert_allclose(np.asarray(results[name], np.float32), expected.numpy(), rtol=0, atol=tolerance)


def test_wrong_weight_is_detected(network: nn.Module, traced: Any, image: Tensor, tmp_path: Path) -> None:
    """The check can fail: one stored filter of the head with its sign flipped is far outside the tolerance."""
    path = tmp_path / "network.mlpackage"
    _convert(traced, image, "FP32").save(str(path))
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    head = network.get_parameter("head.weight").numpy()
    stored = head.tobytes()
    flipped = (-head[:1]).tobytes() + stored[len(stored) // 10 :]
    assert stored in weights.read_bytes()
    weights.write_bytes(weights.read_bytes().replace(stored, flipped))

    scores = load_program(path).run({"image": image.numpy()})["scores"]
    assert np.abs(scores - network(image)[0].numpy()).max() > 1e-2
