"""Chooses where torch computes what grows with the number of images: on a GPU if there is one, else on the CPU.

The original and Core ML programs run there. What makes a file stays on the CPU, so that no file depends on the device:
networks are captured there, and gradients choose ranges there.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch

from modelexport.logs import announce

CPU = torch.device("cpu")
Result = TypeVar("Result")


@dataclass
class _Choice:
    """The device of this process, once it is chosen."""

    device: torch.device | None = None


_choice = _Choice()
_weights: WeakKeyDictionary[torch.nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()
"""Copies of parameters and buffers on the device, by name."""


def compute_device() -> torch.device:
    """Return the device of this process, chosen by the first call: the first GPU that CUDA shows, else the CPU.

    ``CUDA_VISIBLE_DEVICES`` hides GPUs; it is empty in a converter image without the libraries for them.
    """
    if _choice.device is None:
        _choice.device = _find_gpu() or CPU
        announce("chose device", device=str(_choice.device))
    return _choice.device


def _find_gpu() -> torch.device | None:
    """Return a GPU that computes, prepared so that equal inputs have equal answers, in full float32.

    TF32 keeps 10 of the 23 bits of a float32: a relative error of 1e-3 instead of 1e-7 (PyTorch's notes on CUDA,
    "TensorFloat-32 (TF32) on Ampere (and later) devices"), and files must agree by up to .9999. Of cuDNN only
    deterministic algorithms are taken, without trials (PyTorch's notes on reproducibility).
    """
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    gpu = torch.device("cuda", 0)
    try:
        torch.ones(1, device=gpu).sum().item()
    except RuntimeError as error:  # no kernels for a GPU of this age, no memory, or another process has it alone
        announce("GPU cannot be used", level=logging.WARNING, why=str(error))
        return None
    announce("found GPU", name=torch.cuda.get_device_name(gpu))
    return gpu


def on_device(compute: Callable[[torch.device], Result]) -> Result:
    """Call a function with the device, which is also the default of the tensors that it creates.

    If a GPU has too little memory, the CPU computes this and all that follows.
    """
    device = compute_device()
    if device == CPU:
        return compute(device)
    try:
        with device:
            return compute(device)
    except torch.OutOfMemoryError as error:
        why = str(error)
    _choice.device = CPU
    _weights.clear()
    torch.cuda.empty_cache()
    announce("GPU has too little memory; the CPU computes from here on", level=logging.WARNING, why=why)
    return compute(CPU)


def run_network(network: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run a network of the CPU on an image (N, channels, height, width), and return its outputs on the CPU.

    The network keeps its weights: on a GPU, copies of them take part in their place.
    """

    def compute(device: torch.device) -> tuple[torch.Tensor, ...]:
        if device == CPU:
            outputs: tuple[torch.Tensor, ...] = network(image)
            return outputs
        outputs = torch.func.functional_call(network, _copy_weights(network, device), (image.to(device),))
        return tuple(output.cpu() for output in outputs)

    return on_device(compute)


def _copy_weights(network: torch.nn.Module, device: torch.device) -> dict[str, torch.Tensor]:
    if network not in _weights:
        state = dict(network.named_parameters()) | dict(network.named_buffers())
        _weights[network] = {name: tensor.detach().to(device) for name, tensor in state.items()}
    return _weights[network]
