"""The original computes on the device of the process, and its answers lie on the CPU."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from converter.pretended_device import DEVICE, pretended_device
from modelexport.matrix.support import Format
from modelexport_converter.architectures.suppression import suppress_boxes
from modelexport_converter.compute_device import CPU, compute_device, run_network
from modelexport_converter.model import open_sizes
from modelexport_converter.norm_statistics import measure
from modelexport_converter.verification.agreement import run_model
from trained import cells
from trained.cells import TRAINED, inputs, load_model
from trained.model import run_eagerly

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A network with a table that it makes itself, and one that was made before."""

    def __init__(self, *, forgetful: bool = False) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.table: torch.Tensor
        if forgetful:
            self.table = torch.arange(8.0)
        else:
            self.register_buffer("table", torch.arange(8.0))
        self.devices: list[torch.device] = []

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.devices.append(image.device)
        values = self.layer(image) + torch.tensor([1.0, 2.0]).sum() + torch.linspace(0, 1, 8)
        return values * self.table, values.argmax(1)


@pytest.mark.parametrize("architecture", TRAINED)
def test_original_runs_on_device(architecture: str) -> None:
    (image,) = inputs(architecture, "eval", 1)
    with pretended_device():
        found = run_model(load_model(architecture), image)
    for answer, expected in zip(found, cells.run_model(architecture, image), strict=True):
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("fmt", [Format.ONNX, Format.LITERT])
def test_suppression_runs_on_device(fmt: Format) -> None:
    model = suppress_boxes(load_model("YOLOv8"), fmt)
    (image,) = inputs("YOLOv8", "eval", 1)
    with pretended_device():
        found = run_model(model, image)
    assert all(map(np.array_equal, found, run_eagerly(model, image)))


def test_image_of_any_size_runs_on_device() -> None:
    model = replace(load_model("DeepLabV3"), module=deepcopy(load_model("DeepLabV3").module))
    with pretended_device():
        run_model(model, model.example_input().numpy())
        open_sizes(model.module)  # after the first run, as a conversion does
        image = torch.rand(1, 3, 64, 96).numpy()
        found = run_model(model, image)
    assert all(map(np.array_equal, found, run_eagerly(model, image)))


def test_statistics_are_measured_on_device() -> None:
    network, images = load_model("YOLOv8").module, inputs("YOLOv8", "eval", 2)
    expected = measure(network, images)
    with pretended_device():
        found = measure(network, images)
    assert found == expected is not None


def test_network_keeps_its_own_weights() -> None:
    network = Network()
    with torch.inference_mode():
        expected = network(IMAGE)
        with pretended_device():
            found = run_network(network, IMAGE)
        again = network(IMAGE)
    assert network.devices == [CPU, DEVICE, CPU]
    assert all(map(torch.equal, expected, found))
    assert all(map(torch.equal, expected, again))


def test_tensor_left_on_cpu_fails_on_device() -> None:
    network = Network(forgetful=True)
    with torch.inference_mode(), pretended_device(), pytest.raises(RuntimeError, match="of the CPU beside"):
        run_network(network, IMAGE)


def test_cpu_copies_nothing() -> None:
    assert compute_device() == CPU
    (found,) = run_network(Same(), IMAGE)
    assert found is IMAGE


class Same(nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (image,)


class Large(Network):
    """A network that is too large for the device."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answers = super().forward(image)
        if image.device != CPU:
            raise torch.OutOfMemoryError("no memory left")
        return answers


def test_cpu_takes_over_from_gpu_without_memory(caplog: pytest.LogCaptureFixture) -> None:
    network = Large()
    with torch.inference_mode():
        expected = network(IMAGE)
        with pretended_device(), caplog.at_level("WARNING"):
            for _ in range(2):
                assert all(map(torch.equal, expected, run_network(network, IMAGE)))
            assert compute_device() == CPU
    assert network.devices == [CPU, DEVICE, CPU, CPU]
    assert caplog.messages == ["GPU has too little memory; the CPU computes from here on"]
