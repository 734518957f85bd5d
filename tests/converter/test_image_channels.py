"""Pictures of one to four channels: how they are read, and networks that take them, in every format."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from converter.cells import ask, load
from converter.test_pictures import encoded, picture
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Precision, Scheme
from modelexport_converter.architectures import yolox_network
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.architectures.yolov8_network import Classifier, Network
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.calibration import open_dataset
from modelexport_converter.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inspection import check_facts
from modelexport_converter.model import COLOURS, LoadedModel, Preprocessing
from modelexport_converter.pictures import Inputs, Picture, decode, prepare
from modelexport_converter.pipeline import remarks
from modelexport_converter.verify import check, compare

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


def noise(count: int) -> list[Picture]:
    """Pictures in RGBA, of which each channel differs from place to place."""
    generator = np.random.default_rng(0)
    images = (Image.fromarray(generator.integers(0, 256, (*SIZE, 4), dtype=np.uint8), "RGBA") for _ in range(count))
    return [picture(encoded(image)) for image in images]


def run_itself(model: LoadedModel) -> Callable[[Array], tuple[Array, ...]]:
    def run(image: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            return tuple(output.numpy() for output in model.module(torch.from_numpy(image)))

    return run


CELLS = [
    (channels, fmt, precision, scheme)
    for fmt, backend in BACKENDS.items()
    for precision, scheme, counts in (
        (Precision.FP32, Scheme.FP32, (1, 2, 4)),
        (Precision.INT8, backend.calibrated, (4,)),
    )
    for channels in counts
]


@pytest.mark.parametrize(("channels", "fmt", "precision", "scheme"), CELLS)
def test_a_file_takes_the_channels_of_its_program(
    channels: int, fmt: Format, precision: Precision, scheme: Scheme, tmp_path: Path
) -> None:
    model, backend = custom(channels, tmp_path), load_backend(fmt)
    path = converted = tmp_path / f"converted{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    pictures = Inputs(noise(8), model.preprocessing, model.input_size)
    backend.convert(model, BACKENDS[fmt].base(scheme), converted)
    if scheme is not BACKENDS[fmt].base(scheme):
        path = converted.with_stem("file")
        backend.quantise(model, converted, scheme, pictures, path)
    facts = backend.inspect(path)
    check_facts(facts, model, scheme)
    assert facts.inputs == {"image": (1, channels, *SIZE)}
    assert model.preprocessing.colours == COLOURS[channels]
    check(compare(model, backend.open_file(model, path), pictures), ARCHITECTURES["Custom"].thresholds[precision])


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_unet_says_the_channels_of_its_pictures(channels: int) -> None:
    network = UNet((4, 8, 16, 32, 64), 2, channels=channels).eval()
    model = load(Checkpoint(network.state_dict()), ask("UNet", input_size=SIZE))
    assert model.input_shape == (1, channels, *SIZE)
    assert f"pixels {COLOURS[channels]}, 0 to 1" in model.assumptions
    assert len(model.preprocessing.mean) == len(model.preprocessing.std) == channels
    image = model.example_input()
    with torch.inference_mode():
        torch.testing.assert_close(model.module(image)[0], network(image).softmax(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_weights_of_a_yolov8_say_the_channels(channels: int) -> None:
    size = (64, 64)
    detector, classifier = Network("n", 2, size, channels=channels), Classifier("n", 2, channels)
    for network, architecture in ((detector, "YOLOv8"), (classifier, "YOLOv8-CLS")):
        model = load(Checkpoint(network.state_dict()), ask(architecture, input_size=size))
        assert model.input_shape == (1, channels, *size)
        assert f"pixels {COLOURS[channels]}, 0 to 1" in model.assumptions


def test_a_yolox_of_four_channels_is_refused() -> None:
    weights = yolox_network.Network("nano", 2, (64, 64), True).state_dict()
    stem = "backbone.backbone.stem.conv.conv.weight"
    weights[stem] = torch.rand(len(weights[stem]), 16, 3, 3)
    with pytest.raises(Failure, match=r"\(16, 16, 3, 3\) instead of \(16, 12, 3, 3\); save a changed network"):
        load(Checkpoint(weights), ask("YOLOX", color_order="BGR"))


@pytest.mark.parametrize("architecture", ["FCN", "DeepLabV3", "UNet"])
def test_a_program_is_normalised_by_channel(architecture: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softmax(1))
    program = torch.export.export(network.eval(), (torch.rand(1, 2, *SIZE),))
    torch.export.save(program, tmp_path / "x.pt2")
    checkpoint = read_checkpoint(tmp_path / "x.pt2")
    stated = {"image_mean": (0.25, 0.5), "image_std": (0.5, 1.0)}
    model = load(checkpoint, ask(architecture, **stated))
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.25, 0.5), (0.5, 1.0))
    with pytest.raises(Failure, match=r"imageMean is given for 3 channels, and the pictures have 2 \(grey, alpha\)"):
        load(checkpoint, ask(architecture, image_mean=(0.1, 0.2, 0.3)))
    if architecture != "UNet":
        with pytest.raises(Failure, match="normalises RGB; set imageMean and imageStd for each of them"):
            load(checkpoint, ask(architecture))


def test_a_detector_is_not_normalised_by_two_numbers() -> None:
    from converter.cells import TRAINED

    checkpoint = read_checkpoint(TRAINED["MobileNet"].weights)
    with pytest.raises(Failure, match=r"imageStd is given for 2 channels, and the pictures have 3 \(RGB\)"):
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
def test_a_picture_has_the_channels_that_are_asked_for(
    channels: int, image: Image.Image, expected: dict[int, list[int]]
) -> None:
    asked = Preprocessing("stretch").taking(channels)
    (found,) = Inputs([picture(encoded(image))], asked, (4, 4))
    assert found.shape == (1, channels, 4, 4)
    assert np.round(found[0, :, 0, 0] * 255).tolist() == expected[channels]


def test_transparent_palettes_keep_their_alpha() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30])
    found = decode(picture(encoded(image, transparency=0)), alpha=True)
    assert found.getpixel((0, 0)) == (10, 20, 30, 0)
    assert decode(picture(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 255)))), alpha=True).mode == "RGB"


def test_colours_are_not_weighed_by_their_alpha() -> None:
    """What is behind alpha 0 is scaled as it is, as in a tensor; padding is 114 in alpha, too."""
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    for resize in ("stretch", "centre_crop", "letterbox"):
        found = prepare(image, Preprocessing(resize).taking(4), (4, 6))[0] * 255
        middle = found[:, 2, 3]
        assert np.round(middle).tolist() == [200, 100, 50, 0]
    assert np.round(found[:, 0, 0]).tolist() == [114] * 4


def test_pictures_that_differ_in_alpha_alone_are_not_one(tmp_path: Path) -> None:
    from modelexport.spec import Calibration, DataRef
    from modelexport_converter.datasets import Found, file_of

    shades = [Image.new("RGBA", (4, 4), (0, 0, 0, alpha)) for alpha in (10, 200, 255)]
    for index, image in enumerate(shades):
        (tmp_path / file_of(index)).write_bytes(encoded(image))
    found = Found("d" * 64, tuple(f"{index}.png" for index in range(3)), 3)
    dataset = open_dataset(Calibration(DataRef("s3://a/b/"), 3), found, tmp_path)
    assert (len(dataset.calibration), dataset.repeated, dataset.opaque) == (3, 0, 1)


def test_opaque_pictures_are_told_where_alpha_counts(tmp_path: Path) -> None:
    dataset = open_dataset(None, None, tmp_path)
    for channels, expected in ((4, ["4 of the pictures have no alpha and count as opaque"]), (3, [])):
        model = custom(channels, tmp_path)
        pictures = Inputs(dataset.verification[:1], model.preprocessing, model.input_size)
        comparison = compare(model, run_itself(model), pictures)
        assert [remark for remark in remarks(dataset, model, comparison) if "alpha" in remark] == expected


def test_sixteen_bits_of_grey_are_no_alpha() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((2, 2), 40_000, np.uint16)).save(stream, "PNG")
    assert decode(picture(stream.getvalue()), alpha=True).getpixel((0, 0)) == (156, 156, 156)
