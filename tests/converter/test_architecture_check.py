"""The statistics of normalisation layers expose a wrong network and never reject a right one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.refusals import failure_of
from converter.test_state_dict import WITH_WEIGHTS_ALONE
from modelexport.api.result import WARNING_LENGTH, Reference
from modelexport.api.spec import Model
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.architectures.shared.folding import freeze
from modelexport_converter.backends import Array
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.image_selection import open_dataset
from modelexport_converter.inputs.images import PreparedImages, open_archive
from modelexport_converter.model import LoadedModel
from modelexport_converter.norm_statistics import ENOUGH_IMAGES, SUSPECT_MEAN, SUSPECT_SPREAD, Fit, measure
from modelexport_converter.verification.architecture_check import alternatives, check_network
from trained.cells import TRAINED, ask, load, load_model
from trained.model import MODELS

Change = Callable[[Array], Array]


def unchanged(image: Array) -> Array:
    return image


def checkpoint_of(architecture: str) -> Checkpoint:
    """The weights alone, as a state dict has them; of networks that they do not describe, the module too."""
    found = read_checkpoint(TRAINED[architecture].weights)
    return found if architecture not in WITH_WEIGHTS_ALONE else replace(found, module=None)


def own_images(architecture: str, model: LoadedModel, count: int = ENOUGH_IMAGES) -> Sequence[Array]:
    archive = MODELS / "data" / f"calibration{TRAINED[architecture].images}.zip"
    return list(
        PreparedImages(open_archive(archive, "calibration")[8 : 8 + count], model.preprocessing, model.input_size)
    )


def built_in(model: LoadedModel, tmp_path: Any) -> list[Array]:
    dataset = open_dataset(None, None, tmp_path)
    return list(PreparedImages(dataset.verification, model.preprocessing, model.input_size))


def always(images: Sequence[Array]) -> Callable[[object], Sequence[Array]]:
    return lambda _: images


def check(
    found: Checkpoint,
    architecture: str,
    change: Change = unchanged,
    count: int = ENOUGH_IMAGES,
    reference: Reference = Reference.REBUILT,
    **parameters: Any,
) -> LoadedModel:
    """Check a network on images of its own kind, changed."""
    model = ask(architecture, input_size=load_model(architecture).input_size, **parameters)

    def prepare(loaded: LoadedModel) -> Sequence[Array]:
        return [change(image) for image in own_images(architecture, loaded, count)]

    return check_network(
        replace(load(found, model), reference=reference), model, lambda asked: load(found, asked), prepare, own=True
    )


def fit_of(model: LoadedModel) -> Fit:
    assert model.fit is not None
    return model.fit


@pytest.mark.parametrize("architecture", TRAINED)
def test_right_network_raises_no_warning_on_its_images(architecture: str) -> None:
    model = check(checkpoint_of(architecture), architecture)
    assert model.warnings == ()
    assert (fit_of(model).mean, fit_of(model).spread) < (SUSPECT_MEAN, SUSPECT_SPREAD)
    assert len(fit_of(model).deviations) > 10


@pytest.mark.parametrize("architecture", TRAINED)
def test_right_network_is_accepted_on_other_images(architecture: str, tmp_path: Any) -> None:
    model, loaded = ask(architecture), load_model(architecture)
    images = built_in(loaded, tmp_path)
    for own, shown in ((False, images), (True, images * 2)):
        checked = check_network(loaded, model, unusual, always(shown), own=own)
        assert fit_of(checked).images == len(shown)
        assert own or checked.warnings == ()


def unusual(_: Model) -> LoadedModel:
    """Another statement about the network, of which none fits either."""
    return replace(load_model("UNet"), module=nn.Identity())


def times(factor: float) -> Change:
    return lambda image: image * np.float32(factor)


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-CLS", "YOLOv4", "YOLOX", "UNet"])
@pytest.mark.parametrize("factor", [255, 1 / 255])
@pytest.mark.parametrize("reference", Reference)
def test_wrong_pixel_scale_is_refused_on_any_images(
    architecture: str, factor: float, reference: Reference, tmp_path: Any
) -> None:
    model, loaded = ask(architecture), replace(load_model(architecture), reference=reference)
    images = [image * np.float32(factor) for image in built_in(loaded, tmp_path)]
    if reference is not Reference.REBUILT:
        checked = check_network(loaded, model, unusual, lambda _: images, own=False)
        assert checked.warnings[0].startswith("the network or the images may differ from the training: means are")
        assert len(checked.warnings[0]) <= WARNING_LENGTH
        return
    with pytest.raises(Failure, match="or the images are others than in training: on 4 images its means are off"):
        check_network(loaded, model, unusual, lambda _: images, own=False)


def test_single_colour_images_blame_no_network() -> None:
    model = check(checkpoint_of("UNet"), "UNet", change=np.zeros_like)
    assert (model.fit, model.warnings) == (None, ())


def test_grey_images_may_be_cause_of_deviation() -> None:
    def grey(image: Array) -> Array:
        return np.broadcast_to(image.mean(1, keepdims=True), image.shape).copy()

    message = str(failure_of(check, checkpoint_of("YOLOv8"), "YOLOv8", change=grey))
    assert message.startswith("the network or the images are others than in training: on 8 images its means are")
    assert "give images like those of the training" in message


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-SEG", "YOLOv8-CLS", "YOLOv8-Pose", "YOLOX"])
@pytest.mark.parametrize("activation", ["ReLU", "LeakyReLU"])
def test_wrong_activation_is_reported(architecture: str, activation: str) -> None:
    usual = fit_of(check(checkpoint_of(architecture), architecture))
    changed = check(checkpoint_of(architecture), architecture, activation=activation)
    assert fit_of(changed).misfit > 2.5 * usual.misfit
    assert (changed.warnings != ()) == (fit_of(changed).misfit > 1)


def test_too_few_images_do_not_judge_activation() -> None:
    model = check(checkpoint_of("YOLOv8"), "YOLOv8", count=ENOUGH_IMAGES - 1, activation="LeakyReLU")
    assert model.warnings == ()
    assert check(checkpoint_of("YOLOv8"), "YOLOv8", activation="LeakyReLU").warnings != ()


def test_fitting_parameter_is_suggested() -> None:
    """Weights of a YOLOX for pixels of 0 to 1: only the scale of the first layer shows it."""
    found = checkpoint_of("YOLOX")
    stem = "backbone.backbone.stem.conv.conv.weight"
    legacy = replace(found, tensors={**found.tensors, stem: found.tensors[stem] * 255})
    message = str(failure_of(check, legacy, "YOLOX"))
    assert "; set pixelRange: 0-1 in spec.model.parameters, with which its means are off by 0.0" in message
    assert check(legacy, "YOLOX", pixel_range="0-1").warnings == ()


def test_right_activation_is_suggested() -> None:
    found = with_statistics_of("YOLOv8-CLS", "ReLU")
    message = str(failure_of(check, found, "YOLOv8-CLS"))
    assert "; set activation: ReLU in spec.model.parameters, with which its means are off by 0.0" in message
    assert check(found, "YOLOv8-CLS", activation="ReLU").warnings == ()
    # A user who overrides the check is warned, and so is one who brings the network itself.
    assert check(found, "YOLOv8-CLS", activation="SiLU").warnings != ()
    assert check(found, "YOLOv8-CLS", reference=Reference.CHECKPOINT).warnings != ()


def with_statistics_of(architecture: str, activation: str) -> Checkpoint:
    """A state dict with the statistics of a network with another activation, measured on other images."""
    found = checkpoint_of(architecture)
    tensors = {name: value.clone() for name, value in found.tensors.items()}
    images = own_images(architecture, load_model(architecture), 40)[ENOUGH_IMAGES:]
    layers = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    for layer in layers:  # in the order of the network, as each changes the inputs of the layers behind it
        model = load(Checkpoint(tensors, found.facts), ask(architecture, activation=activation))
        convolution = model.module.get_submodule(layer.removesuffix(".bn") + ".conv")
        values = outputs_of(model.module, convolution, images)
        scale, shift = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        deviation = (tensors[f"{layer}.running_var"] + 1e-5).sqrt() / scale
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
        tensors[f"{layer}.running_mean"] = tensors[f"{layer}.running_mean"] + (mean - shift) * deviation
        tensors[f"{layer}.running_var"] = (std * deviation) ** 2
    return Checkpoint(tensors, found.facts)


def outputs_of(network: nn.Module, layer: nn.Module, images: Sequence[Array]) -> torch.Tensor:
    found: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.inference_mode():
        for image in images:
            network(torch.from_numpy(image))
    hook.remove()
    return torch.cat(found)


def normalised(convolution: nn.Conv2d) -> nn.Sequential:
    normalisation = nn.BatchNorm2d(convolution.out_channels, momentum=None)
    network = nn.Sequential(convolution, normalisation, nn.ReLU())
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network.train()(images)
    nn.init.uniform_(normalisation.weight, 0.5, 2)
    nn.init.normal_(normalisation.bias)
    return network.eval()


def test_deviation_is_measured_before_folding() -> None:
    torch.manual_seed(0)
    network = normalised(nn.Conv2d(3, 5, 3))
    image = torch.rand(1, 3, 8, 8) * 3 + 1
    with torch.inference_mode():
        values = network[0](image)
    statistics: Any = network[1]
    deviation = (statistics.running_var + 1e-5).sqrt()
    difference = (values.mean((0, 2, 3)) - statistics.running_mean) / deviation
    ratio = values.std((0, 2, 3), correction=0) / deviation
    fit = measure(freeze(network), [image.numpy()])
    assert fit is not None
    assert fit.mean == pytest.approx(float(difference.abs().double().quantile(0.5)), rel=1e-3)
    assert fit.spread == pytest.approx(float(torch.maximum(ratio, 1 / ratio).double().quantile(0.5)), rel=1e-3)
    assert (fit.deviations[0].layer, fit.images) == ("0", 1)


def test_deviation_is_measured_over_all_images() -> None:
    torch.manual_seed(0)
    network = freeze(normalised(nn.Conv2d(3, 5, 3)))
    first, second = torch.rand(1, 3, 8, 8) * 3 + 1, torch.rand(1, 3, 8, 8) - 4
    apart, together = (
        measure(network, [first.numpy(), second.numpy()]),
        measure(network, [torch.cat((first, second)).numpy()]),
    )
    assert apart is not None
    assert together is not None
    assert (apart.mean, apart.spread) == pytest.approx((together.mean, together.spread), rel=1e-4)


def test_warnings_during_measurement_are_forwarded() -> None:
    torch.manual_seed(0)
    network, kept = freeze(normalised(nn.Conv2d(3, 5, 3))), list[Any]()
    images = [np.random.default_rng(seed).random((1, 3, 8, 8), np.float32) for seed in range(2)]
    measure(network, images, lambda image, outputs: kept.append((image, outputs)))
    assert [image is kept_one for image, (kept_one, _) in zip(images, kept, strict=True)] == [True, True]
    with torch.inference_mode():
        assert all(torch.equal(network(torch.from_numpy(image)), outputs) for image, outputs in kept)


def test_untrained_statistics_are_ignored() -> None:
    network = freeze(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    assert measure(network, [np.full((1, 3, 8, 8), 1e6, np.float32)]) is None


def test_overflow_counts_as_infinite_deviation() -> None:
    network = freeze(normalised(nn.Conv2d(3, 5, 3)))
    image = np.full((1, 3, 8, 8), np.finfo(np.float32).max, np.float32)
    image[..., 0, 0] = 0
    fit = measure(network, [image])
    assert fit is not None
    assert fit.is_impossible(enough=False)


def test_network_without_normalisation_is_not_run() -> None:
    assert measure(nn.Conv2d(3, 5, 3), refused_images()) is None


def refused_images() -> Iterator[Array]:
    yield pytest.fail("an image was prepared")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alternatives_keep_explicit_settings(architecture: str) -> None:
    row, tried = ARCHITECTURES[architecture], dict(alternatives(ask(architecture)))
    assert bool(tried) == bool(row.activations or row.takes - {"anchors"})
    stated: Mapping[str, Any] = {"activation": "ReLU", "pixel_range": "0-1", "image_mean": (0.0,) * 3}
    assert list(alternatives(ask(architecture, align_corners=True, **stated))) == []
