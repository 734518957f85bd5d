"""Pictures that a user gave: found in an archive or a folder, checked, and turned into inputs of a model.

Nothing of an archive is unpacked to disk, so its names can do no harm; what it holds is bounded before it is read.
"""

import io
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from modelexport.reasons import Reason
from modelexport.text import clean
from modelexport_converter.datasets import PICTURE_LIMIT, SHOWN, TOTAL_LIMIT, check_found, is_picture
from modelexport_converter.failures import Failure
from modelexport_converter.picture_bounds import PIXEL_LIMIT, Excessive, check_bytes, check_pixels

if TYPE_CHECKING:  # the module of models imports torch, which a conversion that is reused never needs
    from modelexport_converter.model import Preprocessing

Array = npt.NDArray[np.float32]

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
BRIEF = 200
"""Characters of a decoder's message that reach the user."""
LETTERBOX_GREY = 114
"""The value with which YOLO models were padded in training, in every channel."""
OPAQUE = 255
"""Alpha of what hides all that is behind it."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""How Pillow calls pictures of so many channels."""

MIB = 1 << 20
ENTRY_LIMIT = 100_000
DIRECTORY_LIMIT = 24 * MIB
"""Bytes of an archive's directory; an entry takes 46, its name, and up to 40 for times and the like."""
RATIO_LIMIT = 200
"""A photo hardly shrinks in an archive, a drawn BMP a hundredfold; beyond that an archive is made to do harm."""
_IN_DIRECTORY = b"PK\1\2"
"""How every record of a directory begins."""
_ENCRYPTED = 1
_HEADER_BYTES = 30
"""The least that stands before the bytes of an entry, its name aside."""


@dataclass(frozen=True)
class Picture:
    """One picture: the name to show to the user, how to read its bytes, and its name within its archive or folder."""

    name: str
    read: Callable[[], bytes]
    entry: str = ""


def open_archive(path: Path, uri: str) -> tuple[Picture, ...]:
    """Return the pictures of a zip archive, sorted by name.

    Raises:
        Failure: ``CalibrationInvalid`` for what is no archive or has no picture, ``CalibrationTooLarge`` for a bomb.
    """
    archive = _open_zip(path, uri)
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_bounds(entries, uri)
    _check_entries(entries, path.stat().st_size, uri)
    # A name can stand twice in an archive, so an entry is read by its record and not by its name.
    chosen = sorted(filter(_is_picture, entries), key=lambda entry: entry.filename)
    check_found(chosen, [entry.filename for entry in entries], uri)
    return tuple(
        Picture(f"{clean(entry.filename, SHOWN)} in {uri}", _reader(archive, entry), entry.filename) for entry in chosen
    )


class _Bounded(io.FileIO):
    """An archive whose directory is bounded before ``zipfile`` makes records of it, each of about a KiB.

    It is closed with the last picture that is read from it.
    """

    is_open = False

    def __del__(self) -> None:
        self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        """See ``io.FileIO``; a directory is read whole, before the archive is open.

        Raises:
            Excessive: it has too many bytes or too many files.
        """
        left = os.fstat(self.fileno()).st_size - self.tell()
        if not self.is_open and min(left, left if size is None or size < 0 else size) > DIRECTORY_LIMIT:
            raise Excessive(f"a directory of more than {DIRECTORY_LIMIT // MIB:,} MiB")
        content = super().read(size) or b""
        if not self.is_open and (count := content.count(_IN_DIRECTORY)) > ENTRY_LIMIT:
            raise Excessive(f"{count:,} files, the limit is {ENTRY_LIMIT:,}")
        return content


def _open_zip(path: Path, uri: str) -> zipfile.ZipFile:
    file = _Bounded(path)
    try:
        archive = zipfile.ZipFile(file)
    except Excessive as error:
        file.close()
        raise Failure(Reason.CALIBRATION_TOO_LARGE, f"{uri} holds {error}; give fewer or smaller pictures") from error
    except MemoryError:
        file.close()
        raise
    except Exception as error:
        # What is broken ends in whatever exception its reader comes upon, beside BadZipFile.
        file.close()
        problem = clean(str(error), BRIEF) or type(error).__name__
        message = f"{uri} is not a zip archive ({problem}); give a zip of pictures or a folder"
        raise Failure(Reason.CALIBRATION_INVALID, message) from error
    file.is_open = True
    return archive


def _is_picture(entry: zipfile.ZipInfo) -> bool:
    return is_picture(entry.filename) and not stat.S_ISLNK(entry.external_attr >> 16)


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        """No more than the entry says that it holds: without a size, ``zipfile`` unpacks all that there is."""
        with archive.open(entry) as file:
            return file.read(entry.file_size)

    return read


def _check_bounds(entries: Sequence[zipfile.ZipInfo], uri: str) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    for found, limit, what in (
        (-(-largest // MIB), PICTURE_LIMIT // MIB, "MiB in one file"),
        (-(-total // MIB), TOTAL_LIMIT // MIB, "MiB unpacked"),
        (total // max(packed, 1), RATIO_LIMIT, "times its packed size"),
    ):
        if found > limit:
            message = f"{uri} holds {found:,} {what}, the limit is {limit:,}; give fewer or smaller pictures"
            raise Failure(Reason.CALIBRATION_TOO_LARGE, message)


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int, uri: str) -> None:
    """Refuse entries that cannot be read, and such as share bytes, of which a small archive can hold any number."""
    end = size
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        if entry.flag_bits & _ENCRYPTED:
            problem = "is encrypted; give an archive without a password"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = f"is packed by method {entry.compress_type}; pack it by deflate, as zip does, or not at all"
        elif entry.header_offset + _HEADER_BYTES + entry.compress_size > end:
            problem = "shares bytes with another file or reaches beyond the archive; pack it anew"
        else:
            end = entry.header_offset
            continue
        raise Failure(Reason.CALIBRATION_INVALID, f"{clean(entry.filename, SHOWN)} in {uri} {problem}")


def decode(picture: Picture, *, alpha: bool = False) -> Image.Image:
    """Return a picture in RGB and upright, as its EXIF orientation says; of an animation the first frame.

    With ``alpha`` it is in RGBA where not all of it is opaque.

    Raises:
        Failure: ``CalibrationInvalid`` for a broken picture, ``CalibrationTooLarge`` for one that asks for too much.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what decoders say of a picture that they read all the same
            return _decode(picture.read(), alpha=alpha)
    except (Excessive, Image.DecompressionBombError) as error:
        message = f"{picture.name} has {clean(str(error), BRIEF)}; make it smaller, save it anew, or remove it"
        raise Failure(Reason.CALIBRATION_TOO_LARGE, message) from error
    except (Failure, MemoryError):
        raise
    except Exception as error:
        # Decoders fail on broken data with whatever exception they come upon.
        problem = clean(str(error), BRIEF) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            problem = f"it is not of the kinds {', '.join(DECODERS)}"
        message = f"{picture.name} cannot be read as a picture ({problem}); repair or remove it"
        raise Failure(Reason.CALIBRATION_INVALID, message) from error


def _decode(content: bytes, *, alpha: bool) -> Image.Image:
    check_bytes(content)
    image = Image.open(io.BytesIO(content), formats=DECODERS)
    check_pixels(*image.size)
    ImageOps.exif_transpose(image, in_place=True)
    if alpha and image.has_transparency_data and not image.mode.startswith("I"):
        whole = image.convert("RGBA")
        return whole if whole.getchannel("A").getextrema() != (OPAQUE, OPAQUE) else whole.convert("RGB")
    return image if image.mode == "RGB" else _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which a conversion to RGB would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


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
        image = decode(self._pictures[index], alpha=self._preprocessing.has_alpha)
        return prepare(image, self._preprocessing, self._input_size)


def prepare(image: Image.Image, preprocessing: "Preprocessing", input_size: tuple[int, int]) -> Array:
    """Turn a picture in RGB or RGBA into an input (1, channels, height, width), float32, by the model's preprocessing.

    Grey is the luma of ITU-R 601, as OpenCV and Pillow read a picture in grey. A picture in RGB is opaque.
    """
    resized = _RESIZERS[preprocessing.resize](_in(image, "RGBA" if preprocessing.has_alpha else "RGB"), input_size)
    pixels = np.atleast_3d(np.asarray(_in(resized, _MODES[preprocessing.channels]), dtype=np.float32)) / np.float32(255)
    mean, std = (np.asarray(values, dtype=np.float32) for values in (preprocessing.mean, preprocessing.std))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


def _in(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _scale(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Scale (to width, height) each channel by itself, as OpenCV does; Pillow would weigh colours by their alpha."""
    if image.mode != "RGBA":
        return image.resize(size, Image.Resampling.BILINEAR, box=box)
    return Image.merge("RGBA", [band.resize(size, Image.Resampling.BILINEAR, box=box) for band in image.split()])


def letterbox(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to fit (height, width), centre, and pad with grey; rounds as ultralytics' ``LetterBox`` does."""
    height, width = input_size
    scale = min(height / image.height, width / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top = (round((outer - inner) / 2 - 0.1) for outer, inner in zip((width, height), size, strict=True))
    canvas = Image.new(image.mode, (width, height), (LETTERBOX_GREY,) * len(image.mode))
    canvas.paste(image if size == image.size else _scale(image, size), (left, top))
    return canvas


def centre_crop(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to cover (height, width) and cut the centre, as torchvision's ``Resize`` and ``CenterCrop`` do."""
    height, width = input_size
    scale = max(height / image.height, width / image.width)
    size = (max(width, math.floor(image.width * scale)), max(height, math.floor(image.height * scale)))
    left, top = (round((inner - outer) / 2) for inner, outer in zip(size, (width, height), strict=True))
    if size[0] * size[1] > PIXEL_LIMIT:  # of a strip, most of which is cut away, only the rest is scaled
        across, down = image.width / size[0], image.height / size[1]
        kept = (left * across, top * down, (left + width) * across, (top + height) * down)
        return _scale(image, (width, height), kept)
    return _scale(image, size).crop((left, top, left + width, top + height))


def stretch(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to (height, width), whatever the aspect ratio."""
    return _scale(image, (input_size[1], input_size[0]))


_RESIZERS = {"letterbox": letterbox, "centre_crop": centre_crop, "stretch": stretch}
