"""Pictures that a user gave: found in an archive or a folder, checked, and turned into inputs of a model.

Nothing of an archive is unpacked to disk, so its names can do no harm; what it holds is bounded before it is read.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from modelexport.reasons import Reason
from modelexport_converter.failures import Failure

if TYPE_CHECKING:  # the module of models imports torch, which a conversion that is reused never needs
    from modelexport_converter.model import Preprocessing

Array = npt.NDArray[np.float32]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
DECODERS = tuple(
    str(decoder.format)
    for decoder in (
        BmpImagePlugin.BmpImageFile,
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
    )
)
"""The decoders that untrusted bytes may reach; naming their modules loads them."""
LETTERBOX_GREY = 114
"""The value with which YOLO models were padded in training."""

MIB = 1 << 20
ENTRY_LIMIT = 100_000
PICTURE_LIMIT = 64 * MIB
TOTAL_LIMIT = 8192 * MIB
RATIO_LIMIT = 200
"""A photo hardly shrinks in an archive, a drawn BMP a hundredfold; beyond that an archive is made to do harm."""


@dataclass(frozen=True)
class Picture:
    """One picture: the name to show to the user, and how to read its bytes."""

    name: str
    read: Callable[[], bytes]


def is_picture(name: str) -> bool:
    """Whether a name is that of a picture; hidden files and what macOS adds to archives are not."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def open_archive(path: Path, uri: str) -> tuple[Picture, ...]:
    """Return the pictures of a zip archive, sorted by name.

    Raises:
        Failure: ``CalibrationInvalid`` for what is no archive or has no picture, ``CalibrationTooLarge`` for a bomb.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise Failure(
            Reason.CALIBRATION_INVALID, f"{uri} is not a zip archive ({error}); give a zip of pictures or a folder"
        ) from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_bounds(entries, uri)
    # A name can stand twice in an archive, so an entry is read by its record and not by its name.
    chosen = sorted((entry for entry in entries if is_picture(entry.filename)), key=lambda entry: entry.filename)
    check_found(chosen, [entry.filename for entry in entries], uri)
    return tuple(Picture(f"{entry.filename} in {uri}", _reader(archive, entry)) for entry in chosen)


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    return lambda: archive.read(entry)


def _check_bounds(entries: Sequence[zipfile.ZipInfo], uri: str) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    for found, limit, what in (
        (len(entries), ENTRY_LIMIT, "files"),
        (largest // MIB, PICTURE_LIMIT // MIB, "MiB in one file"),
        (total // MIB, TOTAL_LIMIT // MIB, "MiB unpacked"),
        (total // max(packed, 1), RATIO_LIMIT, "times its packed size"),
    ):
        if found > limit:
            message = f"{uri} holds {found:,} {what}, the limit is {limit:,}; give fewer or smaller pictures"
            raise Failure(Reason.CALIBRATION_TOO_LARGE, message)


def check_found(chosen: Sequence[object], names: Sequence[str], uri: str) -> None:
    """Refuse a data set without a picture and say what it holds instead.

    Raises:
        Failure: ``CalibrationInvalid``.
    """
    if not chosen:
        held = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
        message = f"{uri} holds no picture ({', '.join(SUFFIXES)}); it holds {len(names)} files: {held}"
        raise Failure(Reason.CALIBRATION_INVALID, message)


def decode(picture: Picture) -> Image.Image:
    """Return a picture in RGB and upright, as its EXIF orientation says.

    Raises:
        Failure: ``CalibrationInvalid`` for a broken picture, ``CalibrationTooLarge`` for one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(picture.read()), formats=DECODERS)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise Failure(
            Reason.CALIBRATION_TOO_LARGE, f"{picture.name} has more than {limit}; make it smaller or remove it"
        ) from error
    except (Failure, MemoryError):
        raise
    except Exception as error:
        # Decoders fail on broken data with whatever exception they come upon.
        raise Failure(
            Reason.CALIBRATION_INVALID, f"{picture.name} cannot be read as a picture ({error}); repair or remove it"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which a conversion to RGB would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def check_readable(pictures: Iterable[Picture]) -> None:
    """Decode every picture once, so that a broken one is told before minutes are spent on a conversion.

    Raises:
        Failure: as ``decode``.
    """
    for picture in pictures:
        decode(picture)


class Inputs(Sequence[Array]):
    """Pictures as inputs of a model, each (1, channels, height, width) float32, prepared when they are asked for.

    Ten thousand of them would not fit in memory at once.
    """

    def __init__(
        self, pictures: Sequence[Picture], preprocessing: "Preprocessing", input_size: tuple[int, int]
    ) -> None:
        self._pictures = pictures
        self._preprocessing = preprocessing
        self._input_size = input_size

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> "Inputs": ...
    def __getitem__(self, index: int | slice) -> "Array | Inputs":
        if isinstance(index, slice):
            return Inputs(self._pictures[index], self._preprocessing, self._input_size)
        return prepare(decode(self._pictures[index]), self._preprocessing, self._input_size)


def prepare(image: Image.Image, preprocessing: "Preprocessing", input_size: tuple[int, int]) -> Array:
    """Turn an RGB picture into an input (1, channels, height, width), float32, by the model's preprocessing.

    Grey is the luma of ITU-R 601, as OpenCV and Pillow read a picture in grey.
    """
    resized = _RESIZERS[preprocessing.resize](image, input_size)
    if preprocessing.channels == 1:
        resized = resized.convert("L")
    pixels = np.atleast_3d(np.asarray(resized, dtype=np.float32)) / np.float32(255)
    mean, std = (
        np.asarray(values[: pixels.shape[2]], dtype=np.float32) for values in (preprocessing.mean, preprocessing.std)
    )
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


def letterbox(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to fit (height, width), centre, and pad with grey; rounds as ultralytics' ``LetterBox`` does."""
    height, width = input_size
    scale = min(height / image.height, width / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top = (round((outer - inner) / 2 - 0.1) for outer, inner in zip((width, height), size, strict=True))
    canvas = Image.new("RGB", (width, height), (LETTERBOX_GREY,) * 3)
    canvas.paste(image if size == image.size else image.resize(size, Image.Resampling.BILINEAR), (left, top))
    return canvas


def centre_crop(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to cover (height, width) and cut the centre, as torchvision's ``Resize`` and ``CenterCrop`` do."""
    height, width = input_size
    scale = max(height / image.height, width / image.width)
    size = (max(width, math.floor(image.width * scale)), max(height, math.floor(image.height * scale)))
    left, top = (round((inner - outer) / 2) for inner, outer in zip(size, (width, height), strict=True))
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def stretch(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to (height, width), whatever the aspect ratio."""
    return image.resize((input_size[1], input_size[0]), Image.Resampling.BILINEAR)


_RESIZERS = {"letterbox": letterbox, "centre_crop": centre_crop, "stretch": stretch}
