"""Opens and checks the user's images in an archive or a folder, and turns them into model inputs.

Nothing is unpacked to disk, so names in an archive can do no harm; sizes are checked before content is read.
"""

import io
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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

from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.dataset import IMAGE_LIMIT, SHOWN, TOTAL_LIMIT, is_image, require_images
from modelexport_converter.inputs.fetch import DATASET, Role
from modelexport_converter.inputs.image_bounds import PIXEL_LIMIT, Excessive, check_bytes, check_pixels

if TYPE_CHECKING:  # imports torch, which a reused conversion never needs
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
"""The only decoders that untrusted bytes reach; naming their modules loads them."""
BRIEF = 200
"""Characters of a decoder's message in a failure."""
LETTERBOX_GREY = 114
"""The padding value of YOLO models in training, in every channel."""
OPAQUE = 255
"""Alpha of an opaque pixel."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for images of so many channels."""

MIB = 1 << 20
ENTRY_LIMIT = 100_000
DIRECTORY_LIMIT = 24 * MIB
"""Bytes of an archive's central directory; an entry takes 46, its name, and up to 40 for timestamps and the like."""
RATIO_LIMIT = 200
"""A photo hardly shrinks in an archive, a drawn BMP a hundredfold; a higher ratio is a zip bomb."""
_IN_DIRECTORY = b"PK\1\2"
"""The first bytes of every record of a central directory."""
_ENCRYPTED = 1
_HEADER_BYTES = 30
"""The least number of bytes before the content of an entry, without its name."""


@dataclass(frozen=True)
class ImageFile:
    """One image: its name for messages, a function that reads its bytes, and its name within its archive or folder.

    ``role`` has the reasons if it cannot be used.
    """

    name: str
    read: Callable[[], bytes]
    entry: str = ""
    role: Role = DATASET


def open_archive(path: Path, uri: str) -> tuple[ImageFile, ...]:
    """Return the images of a zip archive, sorted by name.

    Raises:
        Failure: ``CalibrationInvalid`` if it is no archive or has no image, ``CalibrationTooLarge`` for a zip bomb.
    """
    files = open_files(path, uri)
    chosen = sorted((file for file in files if is_image(file.entry)), key=lambda file: file.entry)
    require_images(chosen, [file.entry for file in files], uri)
    return tuple(chosen)


def open_files(path: Path, uri: str, role: Role = DATASET) -> tuple[ImageFile, ...]:
    """Return all regular files of a zip archive, whatever they are, in its order.

    Raises:
        Failure: it is no archive, or a zip bomb, with the reasons of the role.
    """
    archive = _open_zip(path, uri, role)
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_bounds(entries, uri, role)
    _check_entries(entries, path.stat().st_size, uri, role)
    # An archive can hold a name twice, so an entry is read by its record and not by its name.
    return tuple(
        ImageFile(
            f"{clean(entry.filename, SHOWN)} in {uri}", partial(_read_entry, archive, entry), entry.filename, role
        )
        for entry in entries
        if not stat.S_ISLNK(entry.external_attr >> 16)
    )


class _Bounded(io.FileIO):
    """An archive file that limits the central directory before ``zipfile`` parses it into records of about a KiB each.

    It closes when the last image that reads from it is gone.
    """

    is_open = False

    def __del__(self) -> None:
        self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as ``io.FileIO`` does; ``zipfile`` reads the whole directory before the archive is open.

        Raises:
            Excessive: the directory has too many bytes or too many files.
        """
        left = os.fstat(self.fileno()).st_size - self.tell()
        if not self.is_open and min(left, left if size is None or size < 0 else size) > DIRECTORY_LIMIT:
            raise Excessive(f"a directory of more than {DIRECTORY_LIMIT // MIB:,} MiB")
        content = super().read(size) or b""
        if not self.is_open and (count := content.count(_IN_DIRECTORY)) > ENTRY_LIMIT:
            raise Excessive(f"{count:,} files, the limit is {ENTRY_LIMIT:,}")
        return content


def _open_zip(path: Path, uri: str, role: Role) -> zipfile.ZipFile:
    file = _Bounded(path)
    try:
        archive = zipfile.ZipFile(file)
    except Excessive as error:
        file.close()
        raise Failure(role.too_large, f"{uri} holds {error}; {role.fewer}") from error
    except MemoryError:
        file.close()
        raise
    except Exception as error:
        # zipfile raises many other exceptions than BadZipFile on broken files.
        file.close()
        problem = clean(str(error), BRIEF) or type(error).__name__
        message = f"{uri} is not a zip archive ({problem}); give a zip of images or a folder"
        raise Failure(role.invalid, message) from error
    file.is_open = True
    return archive


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read at most the declared size: without a size, ``zipfile`` unpacks everything."""
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _check_bounds(entries: Sequence[zipfile.ZipInfo], uri: str, role: Role) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    for found, limit, what in (
        (-(-largest // MIB), IMAGE_LIMIT // MIB, "MiB in one file"),
        (-(-total // MIB), TOTAL_LIMIT // MIB, "MiB unpacked"),
        (total // max(packed, 1), RATIO_LIMIT, "times its packed size"),
    ):
        if found > limit:
            raise Failure(role.too_large, f"{uri} holds {found:,} {what}, the limit is {limit:,}; {role.fewer}")


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int, uri: str, role: Role) -> None:
    """Refuse unreadable entries, and entries that share bytes: a small archive can hold any number of those."""
    end = size
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        if entry.flag_bits & _ENCRYPTED:
            problem = "is encrypted; give an archive without a password"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = f"is packed by method {entry.compress_type}; pack it by deflate, as zip does, or not at all"
        elif entry.header_offset + _HEADER_BYTES + entry.compress_size > end:
            problem = "shares bytes with another file or reaches beyond the archive; zip it again"
        else:
            end = entry.header_offset
            continue
        raise Failure(role.invalid, f"{clean(entry.filename, SHOWN)} in {uri} {problem}")


def decode(image: ImageFile, *, alpha: bool = False) -> Image.Image:
    """Return an image in RGB, rotated upright by its EXIF orientation; of an animation the first frame.

    With ``alpha``, return RGBA unless the image is opaque throughout.

    Raises:
        Failure: ``CalibrationInvalid`` for a broken image, ``CalibrationTooLarge`` for one above a limit; for labelled
            images the reasons of their role.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about images that decoders can read
            return _decode(image.read(), alpha=alpha)
    except (Excessive, Image.DecompressionBombError) as error:
        message = f"{image.name} has {clean(str(error), BRIEF)}; make it smaller, save it again, or remove it"
        raise Failure(image.role.too_large, message) from error
    except (Failure, MemoryError):
        raise
    except Exception as error:
        # Decoders raise all kinds of exceptions on broken data.
        problem = clean(str(error), BRIEF) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            problem = f"it is not of the kinds {', '.join(DECODERS)}"
        message = f"{image.name} cannot be read as an image ({problem}); repair or remove it"
        raise Failure(image.role.invalid, message) from error


def _decode(content: bytes, *, alpha: bool) -> Image.Image:
    check_bytes(content)
    image: Image.Image = Image.open(io.BytesIO(content), formats=DECODERS)
    check_pixels(*image.size)
    ImageOps.exif_transpose(image, in_place=True)
    if alpha and image.has_transparency_data and not image.mode.startswith("I"):
        whole = image.convert("RGBA")
        return whole if whole.getchannel("A").getextrema() != (OPAQUE, OPAQUE) else whole.convert("RGB")
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which a conversion to RGB would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class PreparedImages(Sequence[Array]):
    """Images as model inputs, each (1, channels, height, width) float32, prepared on access.

    Ten thousand of them would not fit into memory at once. With several input sizes, the images have them in turns.
    """

    def __init__(
        self, images: Sequence[ImageFile], preprocessing: "Preprocessing", *input_sizes: tuple[int, int]
    ) -> None:
        self._images = images
        self._preprocessing = preprocessing
        self._input_sizes = input_sizes

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> "PreparedImages": ...
    def __getitem__(self, index: int | slice) -> "Array | PreparedImages":
        if isinstance(index, slice):
            sizes = [self._input_sizes[i % len(self._input_sizes)] for i in range(len(self))[index]]
            return PreparedImages(self._images[index], self._preprocessing, *sizes)
        image = decode(self._images[index], alpha=self._preprocessing.has_alpha)
        return prepare(image, self._preprocessing, self._input_sizes[index % len(self._input_sizes)])


def prepare(image: Image.Image, preprocessing: "Preprocessing", input_size: tuple[int, int]) -> Array:
    """Turn an image in RGB or RGBA into an input (1, channels, height, width), float32, by the model's preprocessing.

    Grey is the luma of ITU-R 601, as OpenCV and Pillow read an image in grey. An image in RGB is opaque.
    """
    resized = _RESIZERS[preprocessing.resize](_in(image, "RGBA" if preprocessing.has_alpha else "RGB"), input_size)
    pixels = np.atleast_3d(np.asarray(_in(resized, _MODES[preprocessing.channels]))).transpose(2, 0, 1)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    # Transposed as bytes and then changed in place, this takes a quarter of the time.
    values = pixels.astype(np.float32, order="C")
    values /= np.float32(255)
    values -= mean
    values /= std
    return values[None]


def _in(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _scale(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Scale each channel to (width, height) independently, as OpenCV does; Pillow would weight colours by alpha."""
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
    """Scale to cover (height, width) and cut out the centre, as torchvision's ``Resize`` and ``CenterCrop`` do."""
    height, width = input_size
    scale = max(height / image.height, width / image.width)
    size = (max(width, math.floor(image.width * scale)), max(height, math.floor(image.height * scale)))
    left, top = (round((inner - outer) / 2) for inner, outer in zip(size, (width, height), strict=True))
    if size[0] * size[1] > PIXEL_LIMIT:  # a strip: scale only the part that is kept
        across, down = image.width / size[0], image.height / size[1]
        kept = (left * across, top * down, (left + width) * across, (top + height) * down)
        return _scale(image, (width, height), kept)
    return _scale(image, size).crop((left, top, left + width, top + height))


def stretch(image: Image.Image, input_size: tuple[int, int]) -> Image.Image:
    """Scale to (height, width) without keeping the aspect ratio."""
    return _scale(image, (input_size[1], input_size[0]))


_RESIZERS = {"letterbox": letterbox, "centre_crop": centre_crop, "stretch": stretch}
