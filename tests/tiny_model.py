"""A model of a few weights and a backend that just writes them: a conversion in milliseconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends.activation_ranges import Budget, CalibrationMemo
from modelexport_converter.model import LoadedModel, Output, Preprocessing

SIZE = (32, 32)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, stride=32)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.sigmoid(self.conv(image).mean((2, 3))),)


def tiny_model() -> LoadedModel:
    torch.manual_seed(0)
    output = Output("scores", ("batch", "class"), "Probability of each class.")
    module = Net().eval().requires_grad_(False)
    return LoadedModel(module, SIZE, (output,), ("a", "b", "c", "d"), Preprocessing("letterbox"))


class TinyBackend:
    """Writes the weights one after the other; ``calls`` records the calls, ``convert`` raises ``error``.

    The outputs of a file have the noise of ``recovers``, by its layers in float, or else ``noise``.
    """

    def __init__(
        self, error: BaseException | None = None, noise: float = 0.0, recovers: Mapping[int, float] | None = None
    ) -> None:
        self.calls: list[str] = []
        self.samples = 0
        self._error = error
        self._noise = noise
        self._recovers = recovers or {}

    def convert(self, model: LoadedModel, base: Recipe, path: Path) -> None:
        self.calls.append("convert")
        if self._error:
            path.write_bytes(b"half")
            raise self._error
        path.write_bytes(_weights(model).astype(np.float32).tobytes())

    def quantise(
        self,
        model: LoadedModel,
        source: Path,
        recipe: Recipe,
        samples: Sequence[Array],
        path: Path,
        *,
        max_float_layers: int = 0,
        memo: CalibrationMemo | None = None,
    ) -> Mapping[str, float]:
        self.calls.append(f"quantise {recipe}")
        if memo and recipe.needs_calibration:
            memo.recall(lambda _: self._calibrate(samples))
        weights = np.frombuffer(source.read_bytes(), np.float32)
        path.write_bytes(weights.astype(np.float16 if recipe is Recipe.FP16 else np.int8).tobytes())
        self._noise = self._recovers.get(max_float_layers, self._noise)
        return {f"conv{index}": 0.1 for index in range(max_float_layers)}

    def _calibrate(self, samples: Sequence[Array]) -> Budget:
        self.calls.append("calibrate")
        self.samples = sum(sample.shape == (1, 3, *SIZE) for sample in samples)
        return Budget({}, {})

    def inspect(self, path: Path) -> FileContents:
        count = _weights(tiny_model()).size
        kind = {4: "float32", 2: "float16", 1: "int8"}[path.stat().st_size // count]
        operators, activations = {"Conv": 1, "QuantizeLinear": 1}, {"uint8": 1}
        shapes = {"image": (1, 3, *SIZE)}, {"scores": (1, 4)}
        return FileContents({kind: count}, operators, *shapes, activation_types=activations)

    def open_file(self, model: LoadedModel, path: Path) -> Run:
        def run(image: Array) -> tuple[Array, ...]:
            (scores,) = model.module(torch.from_numpy(image))
            return (scores.numpy() + np.float32(self._noise),)

        return run


def _weights(model: LoadedModel) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.concatenate([parameter.numpy().ravel() for parameter in model.module.parameters()])
