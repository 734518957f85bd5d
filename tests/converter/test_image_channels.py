"""Images of one to four channels: reading them, and networks that take them, in every format."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from converter.test_images import encoded, image_file
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format, Precision, Recipe
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.architectures.yolov8.network import Classifier, Network
from modelexport_converter.architectures.yolox import network as yolox_network
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.image_selection import open_dataset
from modelexport_converter.inputs.images import ImageFile, PreparedImages, decode, prepare
from modelexport_converter.model import COLOURS, LoadedModel, Preprocessing
from modelexport_converter.pipeline import remarks
from modelexport_converter.verification.agreement import check, compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import ask, load

SIZE = (32, 48)
CHANNELS = (1, 2, 3, 4)


class Tiny(nn.Module):
    """A normalised convolution and a map of two classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.map = nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.map(self.features(image))


def custom(channels: int, folder: Path) -> LoadedModel:
    program = torch.export.export(Tiny(channels).eval(), (torch.rand(1, channels, *SIZE),))
    torch.export.save(program, folder / "x.pt2")
    return load(read_checkpoint(folder / "x.pt2"), ask("Custom"))


def noise(count: int) -> list[ImageFile]:
    """Images in RGBA whose channels all vary over the image."""
    generator = np.random.default_rng(0)
    images = (Image.fromarray(generator.integers(0, 256, (*SIZE, 4), dtype=np.uint8), "RGBA") for _ in range(count))
    return [image_file(encoded(image)) for image in images]


def run_itself(model: LoadedModel) -> Callable[[Array], tuple[Array, ...]]:
    def run(image: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            return tuple(output.numpy() for output in model.module(torch.from_numpy(image)))

    return run


CELLS = [
    (channels, fmt, precision, recipe)
    for fmt, backend in BACKENDS.items()
    for precision, recipe, counts in (
        (Precision.FP32, Recipe.FP32, (1, 2, 4)),
        (Precision.INT8, backend.calibrated, (4,)),
    )
    for channels in counts
    if fmt not in (Format.TENSORFLOW, Format.EXECUTORCH) or channels == 2  # each starts a process
]


@pytest.mark.parametrize(("channels", "fmt", "precision", "recipe"), CELLS)
def test_file_has_channel_count_of_program(
    channels: int, fmt: Format, precision: Precision, recipe: Recipe, tmp_path: Path
) -> None:
    model, backend = custom(channels, tmp_path), load_backend(fmt)
    path = converted = tmp_path / f"converted{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    images = PreparedImages(noise(8), model.preprocessing, model.input_size)
    backend.convert(model, BACKENDS[fmt].base(recipe), converted)
    if BACKENDS[fmt].quantises(recipe):
        path = converted.with_stem("file")
        backend.quantise(model, converted, recipe, images, path)
    facts = backend.inspect(path)
    check_facts(facts, model, recipe)
    size = (*SIZE, channels) if fmt is Format.TENSORFLOW else (channels, *SIZE)
    assert facts.inputs == {"image": (1, *size)}
    assert model.preprocessing.colours == COLOURS[channels]
    check(compare(model, backend.open_file(model, path), images), ARCHITECTURES["Custom"].thresholds[precision])


@pytest.mark.parametrize("channels", CHANNELS)
def test_unet_channel_count_comes_from_weights(channels: int) -> None:
    network = UNet((4, 8, 16, 32, 64), 2, channels=channels).eval()
    model = load(Checkpoint(network.state_dict()), ask("UNet", input_size=SIZE))
    assert model.input_shape == (1, channels, *SIZE)
    assert f"pixels {COLOURS[channels]}, 0 to 1" in model.assumptions
    assert len(model.preprocessing.mean) == len(model.preprocessing.std) == channels
    image = model.example_input()
    with torch.inference_mode():
        torch.testing.assert_close(model.module(image)[0], network(image).softmax(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_yolov8_channel_count_comes_from_weights(channels: int) -> None:
    size = (64, 64)
    detector, classifier = Network("n", 2, size, channels=channels), Classifier("n", 2, channels)
    for network, architecture in ((detector, "YOLOv8"), (classifier, "YOLOv8-CLS")):
        model = load(Checkpoint(network.state_dict()), ask(architecture, input_size=size))
        assert model.input_shape == (1, channels, *size)
        assert f"pixels {COLOURS[channels]}, 0 to 1" in model.assumptions


def test_yolox_with_four_channels_is_refused() -> None:
    weights = yolox_network.Network("nano", 2, (64, 64), True).state_dict()
    stem = "backbone.backbone.stem.conv.conv.weight"
    weights[stem] = torch.rand(len(weights[stem]), 16, 3, 3)
    with pytest.raises(Failure, match=r"\(16, 16, 3, 3\) instead of \(16, 12, 3, 3\); save a changed network"):
        load(Checkpoint(weights), ask("YOLOX", color_order="BGR"))


@pytest.mark.parametrize("architecture", ["FCN", "DeepLabV3", "UNet"])
def test_program_is_normalised_per_channel(architecture: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softmax(1))
    program = torch.export.export(network.eval(), (torch.rand(1, 2, *SIZE),))
    torch.export.save(program, tmp_path / "x.pt2")
    checkpoint = read_checkpoint(tmp_path / "x.pt2")
    stated = {"image_mean": (0.25, 0.5), "image_std": (0.5, 1.0)}
    model = load(checkpoint, ask(architecture, **stated))
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.25, 0.5), (0.5, 1.0))
    with pytest.raises(Failure, match=r"imageMean is given for 3 channels, and the images have 2 \(grey, alpha\)"):
        load(checkpoint, ask(architecture, image_mean=(0.1, 0.2, 0.3)))
    if architecture != "UNet":
        with pytest.raises(Failure, match="normalises RGB; set imageMean and imageStd for each of them"):
            load(checkpoint, ask(architecture))


def test_detector_refuses_two_channel_normalisation() -> None:
    from trained.cells import TRAINED

    checkpoint = read_checkpoint(TRAINED["MobileNet"].weights)
    with pytest.raises(Failure, match=r"imageStd is given for 2 channels, and the images have 3 \(RGB\)"):
        load(checkpoint, ask("MobileNet", image_std=(0.5, 0.5)))


GREY = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
SEEN = [
    (Image.new("RGB", (4, 4), (200, 100, 50)), {1: [GREY], 2: [GREY, 255], 3: [200, 100, 50], 4: [200, 100, 50, 255]}),
    (
        Image.new("RGBA", (4, 4), (200, 100, 50, 60)),
        {1: [GREY], 2: [GREY, 60], 3: [200, 100, 50], 4: [200, 100, 50, 60]},
    ),
    (Image.new("LA", (4, 4), (70, 60)), {1: [70], 2: [70, 60], 3: [70] * 3, 4: [70, 70, 70, 60]}),
    (Image.new("L", (4, 4), 70), {1: [70], 2: [70, 255], 3: [70] * 3, 4: [70, 70, 70, 255]}),
]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("image", "expected"), SEEN, ids=[image.mode for image, _ in SEEN])
def test_image_is_decoded_with_requested_channels(
    channels: int, image: Image.Image, expected: dict[int, list[int]]
) -> None:
    asked = Preprocessing("stretch").taking(channels)
    (found,) = PreparedImages([image_file(encoded(image))], asked, (4, 4))
    assert found.shape == (1, channels, 4, 4)
    assert np.round(found[0, :, 0, 0] * 255).tolist() == expected[channels]


def test_transparent_palette_keeps_alpha() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30])
    found = decode(image_file(encoded(image, transparency=0)), alpha=True)
    assert found.getpixel((0, 0)) == (10, 20, 30, 0)
    assert decode(image_file(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 255)))), alpha=True).mode == "RGB"


def test_colours_are_not_premultiplied_by_alpha() -> None:
    """Colours under alpha 0 are scaled unchanged, as in a tensor; padding is 114 in alpha, too."""
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    for resize in ("stretch", "centre_crop", "letterbox"):
        found = prepare(image, Preprocessing(resize).taking(4), (4, 6))[0] * 255
        middle = found[:, 2, 3]
        assert np.round(middle).tolist() == [200, 100, 50, 0]
    assert np.round(found[:, 0, 0]).tolist() == [114] * 4


def test_images_differing_only_in_alpha_are_distinct(tmp_path: Path) -> None:
    from modelexport.api.spec import Calibration, DataRef
    from modelexport_converter.inputs.dataset import FetchedImages, file_of

    shades = [Image.new("RGBA", (4, 4), (0, 0, 0, alpha)) for alpha in (10, 200, 255)]
    for index, image in enumerate(shades):
        (tmp_path / file_of(index)).write_bytes(encoded(image))
    found = FetchedImages("d" * 64, tuple(f"{index}.png" for index in range(3)), 3)
    dataset = open_dataset(Calibration(DataRef("s3://a/b/"), 3), found, tmp_path)
    assert (len(dataset.calibration), dataset.repeated, dataset.opaque) == (3, 0, 1)


def test_opaque_images_are_reported_when_alpha_is_used(tmp_path: Path) -> None:
    dataset = open_dataset(None, None, tmp_path)
    for channels, expected in ((4, ["4 of the images have no alpha and count as opaque"]), (3, [])):
        model = custom(channels, tmp_path)
        images = PreparedImages(dataset.verification[:1], model.preprocessing, model.input_size)
        comparison = compare(model, run_itself(model), images)
        assert [remark for remark in remarks(dataset, model, comparison) if "alpha" in remark] == expected


def test_sixteen_bit_grey_has_no_alpha() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((2, 2), 40_000, np.uint16)).save(stream, "PNG")
    assert decode(image_file(stream.getvalue()), alpha=True).getpixel((0, 0)) == (156, 156, 156)
