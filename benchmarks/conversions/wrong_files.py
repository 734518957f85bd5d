"""Measures what verification finds in files that are known to be wrong, for every trained model.

The model itself plays a wrong file, with one defect and in eager FP32. So the numbers say what the defect costs, with
nothing of a format or of quantisation in them.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.measuring.machine import describe_machine
from benchmarks.results import WRONG_FILES, write_results
from modelexport_converter.architectures.shared.yolo_layers import Conv
from modelexport_converter.backends import Array, Run
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import compare
from trained.cells import TRAINED, eval_inputs, load_model, recall
from trained.model import Outputs, run_eagerly

IMAGES = 64
"""As many as verification uses at most."""
SHIFT = 4
"""Pixels; the images have 128 to 160."""
NOISE = 0.2
"""The deviation of the noise in units of that of the weights."""
BITS = 4

Defect = Callable[[LoadedModel], Run]


@dataclass(frozen=True)
class Scores:
    """What verification finds in one wrong file, as decimals.

    ``agreement`` is that of the worst output; ``fidelity`` is ``None`` if the model gives too few answers for a
    threshold.
    """

    agreement: str
    fidelity: str | None


def with_images(change: Callable[[Array], Array]) -> Defect:
    """Return a defect of the preprocessing."""
    return lambda model: lambda image: run_eagerly(model, np.ascontiguousarray(change(image)))


def with_module(change: Callable[[torch.nn.Module], None]) -> Defect:
    """Return a defect of the network."""

    def build(model: LoadedModel) -> Run:
        module = copy.deepcopy(model.module)
        with torch.no_grad():
            change(module)
        return partial(run_eagerly, replace(model, module=module))

    return build


def lag(model: LoadedModel) -> Run:
    """Return a file that answers with the outputs of the image before."""
    waiting: list[Outputs] = []

    def run(image: Array) -> Outputs:
        answers = run_eagerly(model, image)
        waiting.append(answers)
        return waiting.pop(0) if len(waiting) > 1 else answers

    return run


def reverse_channels(module: torch.nn.Module) -> None:
    """Reverse the output channels of the convolution in the middle."""
    weight = _middle_convolution(module).weight
    weight.copy_(weight.flip(0))


def add_noise(module: torch.nn.Module) -> None:
    """Add noise to the weights of the convolution in the middle."""
    weight = _middle_convolution(module).weight
    weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std() * NOISE)


def drop_activation(module: torch.nn.Module) -> None:
    """Replace the activation in the middle by the identity."""
    activations = [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child).__module__ == torch.nn.SiLU.__module__ and not isinstance(child, torch.nn.Softmax)
    ]
    activations = activations or [(layer, "activation") for layer in module.modules() if isinstance(layer, Conv)]
    parent, name = activations[len(activations) // 2]
    setattr(parent, name, torch.nn.Identity())


def round_weights(module: torch.nn.Module) -> None:
    """Round all weights of convolutions to few bits, with one scale for each convolution."""
    most = 2 ** (BITS - 1) - 1
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            scale = layer.weight.abs().max() / most
            layer.weight.copy_((layer.weight / scale).round() * scale)


def _middle_convolution(module: torch.nn.Module) -> torch.nn.Conv2d:
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d) and layer.out_channels > 1]
    return layers[len(layers) // 2]


DEFECTS: Mapping[str, Defect] = {
    "red and blue exchanged": with_images(lambda image: image[:, ::-1]),
    "pixels times 1.25": with_images(lambda image: image * np.float32(1.25)),
    f"images shifted by {SHIFT} pixels": with_images(lambda image: np.roll(image, SHIFT, axis=-1)),
    "answers of the image before": lag,
    "channels of a convolution reversed": with_module(reverse_channels),
    f"{NOISE:.0%} of noise in a convolution": with_module(add_noise),
    "an activation missing": with_module(drop_activation),
    f"weights of {BITS} bits": with_module(round_weights),
}


def measure(architecture: str, defect: Defect) -> Scores:
    """Compare a file with a defect with its model as a converter does, on the evaluation images of the trained model.

    Raises:
        Failure: the outputs are not finite.
    """
    run = defect(load_model(architecture))
    found = compare(recall(architecture), run, eval_inputs(architecture)[:IMAGES], least_fidelity=1.0)
    fidelity = found.fidelity if found.fidelity and found.fidelity.threshold else None
    return Scores(f"{found.value:.6f}", fidelity.value if fidelity else None)


def measure_wrong_files() -> None:
    """Measure all defects of all architectures, and store the scores after each architecture."""
    torch.set_num_threads(1)
    scores: dict[str, Any] = {}
    for architecture in TRAINED:
        scores[architecture] = {name: asdict(measure(architecture, defect)) for name, defect in DEFECTS.items()}
        print(architecture, scores[architecture], flush=True)
        write_results(WRONG_FILES, {"machine": describe_machine(), "images": IMAGES, "scores": scores})
