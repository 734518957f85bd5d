"""Selects the images for calibration and verification: the user's if the request names some, else built-in ones.

Reads the first images of a dataset in the order of ``dataset.sort_key``. All of them are decoded once, so that a broken
one is reported before minutes are spent on a conversion. Unreadable images are left out, and images with equal pixels
count once, so that no file is verified on its calibration images. The first images calibrate, the following ones
verify, in an order that spreads over their names.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from modelexport.api.spec import Calibration
from modelexport.logs import announce
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.dataset import (
    ARCHIVE,
    SHOWN,
    VERIFICATION_LIMIT,
    FetchedImages,
    count_candidates,
    file_of,
    sort_key,
)
from modelexport_converter.inputs.images import ImageFile, decode, open_archive

VERIFICATION_COUNT = 8
"""Number of informative images (see ``verification.informative_images``) after which the comparison first stops.

As they are spread over the names, they include every kind of images that sorts together and makes up a quarter of the
dataset. Each costs 0.15 to 0.25 seconds for a YOLOv8n of 640 x 640 pixels, on one core.
"""
SPARE = 4
"""A dataset of fewer than SPARE times VERIFICATION_COUNT images is too small to keep some from the calibration."""
MANY = 100
"""From this number of images on, one in a hundred (at least one) may be unreadable."""
NAMED = 3
"""Images that a failure names."""
BUILT_IN, OWN = "built-in", "spec.calibration.dataset"
PACKAGED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Dataset:
    """The images of one conversion; ``is_own`` says that the user provided them.

    ``unreadable`` holds messages about images that were left out, ``repeated`` counts images with the pixels of another
    one, ``opaque`` counts the others that have no alpha channel or are opaque throughout. ``calibrating`` holds the
    ``pixel_digest`` of the images that calibrate.
    """

    calibration: tuple[ImageFile, ...]
    verification: tuple[ImageFile, ...]
    is_own: bool = False
    unreadable: tuple[str, ...] = ()
    repeated: int = 0
    opaque: int = 0
    calibrating: frozenset[bytes] = frozenset()

    def describe(self) -> dict[str, Any]:
        """Return the section of the report about the selection."""
        calibrating = {id(image) for image in self.calibration}
        return {
            "source": OWN if self.is_own else BUILT_IN,
            "calibrated": len(self.calibration),
            "apart": not any(id(image) in calibrating for image in self.verification),
            "unreadable": self.unreadable,
            "repeated": self.repeated,
        }

    def remark(self) -> str:
        """Return a remark about images that were left out; empty if there are none."""
        if not self.unreadable:
            return ""
        return f"left out {len(self.unreadable)} of the images: {'; '.join(self.unreadable[:NAMED])}"


def open_dataset(
    calibration: Calibration | None, found: FetchedImages | None, folder: Path, *, calibrates: bool = True
) -> Dataset:
    """Open the images that were downloaded to ``folder``; ``calibrates`` says whether the recipe needs samples.

    Raises:
        Failure: the images cannot be used.
    """
    if calibration is None or found is None:
        packaged = tuple(ImageFile(path.name, path.read_bytes) for path in sorted(PACKAGED.glob("*.jpg")))
        return Dataset((), packaged, opaque=len(packaged))
    uri = calibration.dataset.uri
    if found.names is None:
        images = sorted(open_archive(folder / ARCHIVE, uri), key=lambda image: sort_key(image.entry))
    else:
        images = [
            ImageFile(f"{uri.rpartition('/')[0]}/{clean(name, SHOWN)}", (folder / file_of(index)).read_bytes, name)
            for index, name in enumerate(found.names)
        ]
    candidates = images[: count_candidates(calibration, calibrates=calibrates)]
    is_large = max(found.count, len(images)) >= MANY
    readable = _read(candidates, max(1, len(candidates) // 100) if is_large else 0)
    for message in readable.unreadable:
        announce("image left out", message=message)
    return _divide(readable, calibration.samples if calibrates else 0)


@dataclass(frozen=True)
class _Readable:
    """The readable images without repetitions, in selection order, and the digests of their pixels."""

    images: tuple[ImageFile, ...]
    digests: tuple[bytes, ...]
    unreadable: tuple[str, ...]
    repeated: int
    opaque: int


def _read(images: Sequence[ImageFile], allowed: int) -> _Readable:
    """Decode every image; up to ``allowed`` of them may be unreadable.

    Raises:
        Failure: more are unreadable, with the reason of the first.
    """
    seen: dict[bytes, ImageFile] = {}
    opaque = set()
    failures: list[Failure] = []
    for image in images:
        try:
            decoded = decode(image, alpha=True)
            seen.setdefault(digest := pixel_digest(decoded), image)
            if decoded.mode == "RGB":
                opaque.add(digest)
        except Failure as failure:
            failures.append(failure)
            if len(failures) > allowed:
                if len(failures) == 1:
                    raise
                named = "; ".join(str(failure) for failure in failures[:NAMED])
                message = f"more of {len(images)} images than one in a hundred cannot be used: {named}"
                raise Failure(failures[0].reason, message) from failure
    repeated = len(images) - len(failures) - len(seen)
    return _Readable(tuple(seen.values()), tuple(seen), tuple(map(str, failures)), repeated, len(opaque))


def pixel_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of an image's size and pixels; of one pixel if the image has a single colour."""
    if image.getcolors(maxcolors=1):
        image = image.crop((0, 0, 1, 1))
    digest = hashlib.sha256(f"{image.width} x {image.height}".encode())
    digest.update(image.tobytes())
    return digest.digest()


def _divide(readable: _Readable, samples: int) -> Dataset:
    """Verify on images that did not calibrate if there are enough of them; else add calibration images after them."""
    images = readable.images
    kept = VERIFICATION_COUNT if len(images) >= SPARE * VERIFICATION_COUNT else 0
    chosen = images[: min(samples, len(images) - kept)]
    rest = images[len(chosen) :]
    verifying = _spread(rest[:VERIFICATION_LIMIT])
    if len(rest) < VERIFICATION_COUNT:
        verifying += _spread(chosen[: VERIFICATION_LIMIT - len(rest)])
    calibrating = frozenset(readable.digests[: len(chosen)])
    return Dataset(chosen, verifying, True, readable.unreadable, readable.repeated, readable.opaque, calibrating)


def _spread(images: Sequence[ImageFile]) -> tuple[ImageFile, ...]:
    """Order images so that any first few are spread over their names: halves, quarters, eighths.

    This is the order of van der Corput's sequence: by the reversed bits of the rank.
    """
    bits = max(1, (len(images) - 1).bit_length())
    ranked = enumerate(sorted(images, key=lambda image: image.entry))
    return tuple(image for _, image in sorted(ranked, key=lambda item: f"{item[0]:0{bits}b}"[::-1]))
