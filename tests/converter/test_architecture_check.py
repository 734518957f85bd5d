"""Statistics of normalisation give a wrong network away, and never a right one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.cells import MODELS, TRAINED, ask, load, load_model
from modelexport.matrix import ARCHITECTURES
from modelexport.reasons import Reason
from modelexport.result import WARNING_LENGTH, Reference
from modelexport.spec import Model
from modelexport_converter.backends import Array
from modelexport_converter.calibration import open_dataset
from modelexport_converter.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.doubts import alternatives, check_network
from modelexport_converter.failures import Failure
from modelexport_converter.folding import freeze
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive
from modelexport_converter.statistics import DOUBTFUL_MEAN, DOUBTFUL_SPREAD, ENOUGH_PICTURES, Fit, measure

Change = Callable[[Array], Array]


def unchanged(picture: Array) -> Array:
    return picture


def checkpoint_of(architecture: str) -> Checkpoint:
    """The weights alone, as a state dict has them."""
    return replace(read_checkpoint(TRAINED[architecture].weights), module=None)


def own_pictures(architecture: str, model: LoadedModel, count: int = ENOUGH_PICTURES) -> Sequence[Array]:
    archive = MODELS / "data" / f"calibration{TRAINED[architecture].pictures}.zip"
    return list(Inputs(open_archive(archive, "calibration")[8 : 8 + count], model.preprocessing, model.input_size))


def built_in(model: LoadedModel, tmp_path: Any) -> Sequence[Array]:
    dataset = open_dataset(None, None, tmp_path)
    return list(Inputs(dataset.verification, model.preprocessing, model.input_size))


def check(
    found: Checkpoint,
    architecture: str,
    change: Change = unchanged,
    count: int = ENOUGH_PICTURES,
    reference: Reference = Reference.REBUILT,
    **parameters: Any,
) -> LoadedModel:
    """Check a network on pictures of its own kind, changed."""
    model = ask(architecture, input_size=load_model(architecture).input_size, **parameters)

    def prepare(loaded: LoadedModel) -> Sequence[Array]:
        return [change(picture) for picture in own_pictures(architecture, loaded, count)]

    return check_network(
        replace(load(found, model), reference=reference), model, lambda asked: load(found, asked), prepare, own=True
    )


def refuse(*arguments: Any, **more: Any) -> str:
    with pytest.raises(Failure) as caught:
        check(*arguments, **more)
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    return str(caught.value)


def fit_of(model: LoadedModel) -> Fit:
    assert model.fit is not None
    return model.fit


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_right_network_is_not_doubted_on_its_own_pictures(architecture: str) -> None:
    model = check(checkpoint_of(architecture), architecture)
    assert model.warnings == ()
    assert (fit_of(model).mean, fit_of(model).spread) < (DOUBTFUL_MEAN, DOUBTFUL_SPREAD)
    assert len(fit_of(model).deviations) > 10


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_right_network_is_not_refused_on_other_pictures(architecture: str, tmp_path: Any) -> None:
    model, loaded = ask(architecture), load_model(architecture)
    pictures = built_in(loaded, tmp_path)
    for own, shown in ((False, pictures), (True, pictures * 2)):
        checked = check_network(loaded, model, unusual, lambda _, shown=shown: shown, own=own)
        assert fit_of(checked).pictures == len(shown)
        assert own or checked.warnings == ()


def unusual(_: Model) -> LoadedModel:
    """Another statement about the network, of which none fits either."""
    return replace(load_model("UNet"), module=nn.Identity())


def times(factor: float) -> Change:
    return lambda picture: picture * np.float32(factor)


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-CLS", "YOLOv4", "YOLOX", "UNet"])
@pytest.mark.parametrize("factor", [255, 1 / 255])
@pytest.mark.parametrize("reference", Reference)
def test_pixels_on_another_scale_are_refused_on_any_pictures(
    architecture: str, factor: float, reference: Reference, tmp_path: Any
) -> None:
    model, loaded = ask(architecture), replace(load_model(architecture), reference=reference)
    pictures = [picture * np.float32(factor) for picture in built_in(loaded, tmp_path)]
    if reference is not Reference.REBUILT:
        checked = check_network(loaded, model, unusual, lambda _: pictures, own=False)
        assert checked.warnings[0].startswith("the network or the pictures may be others than in training: means are")
        assert len(checked.warnings[0]) <= WARNING_LENGTH
        return
    with pytest.raises(Failure, match="or the pictures are others than in training: on 4 pictures its means are off"):
        check_network(loaded, model, unusual, lambda _: pictures, own=False)


def test_pictures_of_one_colour_accuse_no_network() -> None:
    model = check(checkpoint_of("UNet"), "UNet", change=np.zeros_like)
    assert (model.fit, model.warnings) == (None, ())


def test_pictures_without_colour_may_be_what_is_wrong() -> None:
    def grey(picture: Array) -> Array:
        return np.broadcast_to(picture.mean(1, keepdims=True), picture.shape).copy()

    message = refuse(checkpoint_of("YOLOv8"), "YOLOv8", change=grey)
    assert message.startswith("the network or the pictures are others than in training: on 8 pictures its means are")
    assert "give pictures like those of the training" in message


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-SEG", "YOLOv8-CLS", "YOLOv8-Pose", "YOLOX"])
@pytest.mark.parametrize("activation", ["ReLU", "LeakyReLU"])
def test_another_activation_than_the_trained_one_is_doubtful(architecture: str, activation: str) -> None:
    usual = fit_of(check(checkpoint_of(architecture), architecture))
    changed = check(checkpoint_of(architecture), architecture, activation=activation)
    assert fit_of(changed).doubt > 2.5 * usual.doubt
    assert (changed.warnings != ()) == (fit_of(changed).doubt > 1)


def test_few_pictures_say_nothing_of_an_activation() -> None:
    model = check(checkpoint_of("YOLOv8"), "YOLOv8", count=ENOUGH_PICTURES - 1, activation="LeakyReLU")
    assert model.warnings == ()
    assert check(checkpoint_of("YOLOv8"), "YOLOv8", activation="LeakyReLU").warnings != ()


def test_a_statement_that_makes_the_network_fit_leads_out() -> None:
    """Weights of a YOLOX for pixels of 0 to 1: nothing but the scale of the first layer tells."""
    found = checkpoint_of("YOLOX")
    stem = "backbone.backbone.stem.conv.conv.weight"
    legacy = replace(found, tensors={**found.tensors, stem: found.tensors[stem] * 255})
    message = refuse(legacy, "YOLOX")
    assert "; set pixelRange: 0-1 in spec.model.parameters, with which its means are off by 0.0" in message
    assert check(legacy, "YOLOX", pixel_range="0-1").warnings == ()


def test_the_right_activation_is_named_and_leads_out() -> None:
    found = with_statistics_of("YOLOv8-CLS", "ReLU")
    message = refuse(found, "YOLOv8-CLS")
    assert "; set activation: ReLU in spec.model.parameters, with which its means are off by 0.0" in message
    assert check(found, "YOLOv8-CLS", activation="ReLU").warnings == ()
    # Whoever insists is warned, as is who brings the network itself.
    assert check(found, "YOLOv8-CLS", activation="SiLU").warnings != ()
    assert check(found, "YOLOv8-CLS", reference=Reference.CHECKPOINT).warnings != ()


def with_statistics_of(architecture: str, activation: str) -> Checkpoint:
    """A state dict whose statistics were taken of a network with another activation, on other pictures."""
    found = checkpoint_of(architecture)
    tensors = {name: value.clone() for name, value in found.tensors.items()}
    pictures = own_pictures(architecture, load_model(architecture), 40)[ENOUGH_PICTURES:]
    layers = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    for layer in layers:  # in the order of the network, as each changes what comes into those behind it
        model = load(Checkpoint(tensors, found.facts), ask(architecture, activation=activation))
        convolution = model.module.get_submodule(layer.removesuffix(".bn") + ".conv")
        values = outputs_of(model.module, convolution, pictures)
        scale, shift = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        deviation = (tensors[f"{layer}.running_var"] + 1e-5).sqrt() / scale
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
        tensors[f"{layer}.running_mean"] = tensors[f"{layer}.running_mean"] + (mean - shift) * deviation
        tensors[f"{layer}.running_var"] = (std * deviation) ** 2
    return Checkpoint(tensors, found.facts)


def outputs_of(network: nn.Module, layer: nn.Module, pictures: Sequence[Array]) -> torch.Tensor:
    found: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.inference_mode():
        for picture in pictures:
            network(torch.from_numpy(picture))
    hook.remove()
    return torch.cat(found)


def normalised(convolution: nn.Conv2d) -> nn.Sequential:
    network = nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
    pictures = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network[1].momentum = None
    network.train()(pictures)
    nn.init.uniform_(network[1].weight, 0.5, 2)
    nn.init.normal_(network[1].bias)
    return network.eval()


def test_deviations_are_those_of_the_layer_that_was_folded_away() -> None:
    torch.manual_seed(0)
    network = normalised(nn.Conv2d(3, 5, 3))
    picture = torch.rand(1, 3, 8, 8) * 3 + 1
    with torch.inference_mode():
        values = network[0](picture)
    difference = (values.mean((0, 2, 3)) - network[1].running_mean) / (network[1].running_var + 1e-5).sqrt()
    ratio = values.std((0, 2, 3), correction=0) / (network[1].running_var + 1e-5).sqrt()
    fit = measure(freeze(network), [picture.numpy()])
    assert fit is not None
    assert fit.mean == pytest.approx(float(difference.abs().double().quantile(0.5)), rel=1e-3)
    assert fit.spread == pytest.approx(float(torch.maximum(ratio, 1 / ratio).double().quantile(0.5)), rel=1e-3)
    assert (fit.deviations[0].layer, fit.pictures) == ("0", 1)


def test_statistics_before_any_training_say_nothing() -> None:
    network = freeze(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    assert measure(network, [np.full((1, 3, 8, 8), 1e6, np.float32)]) is None


def test_values_that_overflow_are_infinitely_far() -> None:
    network = freeze(normalised(nn.Conv2d(3, 5, 3)))
    picture = np.full((1, 3, 8, 8), np.finfo(np.float32).max, np.float32)
    picture[..., 0, 0] = 0
    fit = measure(network, [picture])
    assert fit is not None
    assert fit.is_impossible(enough=False)


def test_a_network_without_normalisation_is_not_run() -> None:
    assert measure(nn.Conv2d(3, 5, 3), refused_pictures()) is None


def refused_pictures() -> Iterator[Array]:
    yield pytest.fail("a picture was prepared")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alternatives_leave_alone_what_an_export_says(architecture: str) -> None:
    row, tried = ARCHITECTURES[architecture], dict(alternatives(ask(architecture)))
    assert bool(tried) == bool(row.activations or row.takes - {"anchors"})
    stated: Mapping[str, Any] = {"activation": "ReLU", "pixel_range": "0-1", "image_mean": (0.0,) * 3}
    assert list(alternatives(ask(architecture, align_corners=True, **stated))) == []
