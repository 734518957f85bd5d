"""ExecuTorch files: kinds of layers in each precision, layers in float, and faults of the runtime."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from converter.test_ordinary_networks import images, load_ordinary
from modelexport.matrix.support import ARCHITECTURES, Precision, Recipe
from modelexport_converter.backends import executorch
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import check, compare
from modelexport_converter.verification.inspection import check_facts

RECIPES = [(Precision.FP16, Recipe.FP16), (Precision.INT8, Recipe.STATIC_WI8_AI8)]


class Kinds(nn.Module):
    """One layer of each kind; the second convolution has a channel without weights and a large bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.dilated, self.up = nn.Conv2d(16, 8, 3, padding=2, dilation=2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.overlapping = nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)
        self.classes = nn.Linear(4, 5)
        with torch.no_grad():
            self.dilated.weight[0] = 0
            self.dilated.bias[0] = 1.5  # type: ignore[index]  # it has a bias

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = nn.functional.silu(self.stem(x))
        a, b = nn.functional.relu6(self.depthwise(y)).chunk(2, 1)
        y = torch.cat([a, self.dilated(torch.cat([b, a], 1)).relu()], 1)
        y = self.overlapping(nn.functional.max_pool2d(self.up(y), 2))
        return y, self.classes(y.mean((2, 3)))


def model_of_kinds(folder: Path) -> LoadedModel:
    torch.manual_seed(0)
    return load_ordinary(Kinds().eval(), folder / "network.pt2")


@pytest.mark.parametrize(("precision", "recipe"), RECIPES)
def test_every_kind_of_layer_runs(precision: Precision, recipe: Recipe, tmp_path: Path) -> None:
    model, path = model_of_kinds(tmp_path), tmp_path / "file.pte"
    executorch.convert(model, recipe, path)
    if recipe.needs_calibration:
        executorch.quantise(model, path, recipe, images(), path := tmp_path / "quantised.pte")
    facts = executorch.inspect(path)
    check_facts(facts, model, recipe) if recipe.needs_calibration else None
    check(compare(model, executorch.open_file(model, path), images()), ARCHITECTURES["Custom"].thresholds[precision])


class Rare(nn.Module):
    """What passes of the compiler are for that most programs do not need, each with a layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.line = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv1d(8, 4, 3)
        self.norm, self.slope = nn.BatchNorm2d(8), nn.PReLU(8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = nn.functional.pad(self.stem(x), (1, 2, 1, 2))
        z = nn.functional.relu(torch.cat([self.slope(y), y, self.norm(y + 1), y.sigmoid(), y + 2, y * 2], 1) + 1)
        return z, self.line(y.amax(3)) @ torch.ones(y.shape[2] - 2, 3)


@pytest.mark.parametrize("network", [Kinds, Rare])
def test_skipped_passes_change_nothing(
    network: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = load_ordinary(network().eval(), tmp_path / "network.pt2")
    executorch.convert(model, Recipe.FP32, tmp_path / "fewer.pte")
    monkeypatch.setattr(executorch, "_PASSES", {})
    executorch.convert(model, Recipe.FP32, tmp_path / "all.pte")
    assert (tmp_path / "fewer.pte").read_bytes() == (tmp_path / "all.pte").read_bytes()


def test_layer_alone_is_compiled_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load_ordinary(nn.Conv2d(3, 4, 3).eval(), tmp_path / "network.pt2")
    executorch.convert(model, Recipe.FP16, tmp_path / "file.pte")
    assert executorch.inspect(tmp_path / "file.pte").weight_types["float16"] == 4 * 3 * 3 * 3


def test_compiler_is_as_before_after_a_conversion(tmp_path: Path) -> None:
    source, traces = vars(torch.fx.traceback.NodeSource), torch.fx.config.do_not_emit_stack_traces
    decompose = ExportedProgram.run_decompositions
    executorch.convert(model_of_kinds(tmp_path), Recipe.FP32, tmp_path / "file.pte")
    assert "__deepcopy__" not in source
    assert torch.fx.config.do_not_emit_stack_traces is traces
    assert ExportedProgram.run_decompositions is decompose


def test_noisiest_layers_stay_in_float(tmp_path: Path) -> None:
    model, program = model_of_kinds(tmp_path), tmp_path / "program.pte"
    executorch.convert(model, Recipe.STATIC_WI8_AI8, program)
    weights = {}
    for count in (0, 2):
        path = tmp_path / f"{count}.pte"
        kept = executorch.quantise(model, program, Recipe.STATIC_WI8_AI8, images(), path, max_float_layers=count)
        assert len(kept) == count
        weights[count] = executorch.inspect(path).weight_types["int8"]
    assert weights[0] > weights[2] > 0


def test_fault_of_the_runtime_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.pte").write_bytes(b"no program")
    with pytest.raises(RuntimeError, match="ExecuTorch ended with exit code 1: RuntimeError: Failed to load program"):
        executorch.open_file(model_of_kinds(tmp_path), tmp_path / "file.pte")
