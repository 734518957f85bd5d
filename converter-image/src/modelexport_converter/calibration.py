"""Which pictures calibrate and which verify: the user's where the request names some, else a few of our own.

Of a data set those are looked at that come first in the order of choice, see ``datasets``: all are decoded once, so
that a broken one is told before minutes are spent on a conversion. What cannot be read is left out, and what shows the
same as another is not counted twice, so that no file is verified on what it was calibrated on. The first that are left
calibrate, those after them verify, in an order that is spread over their names.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from modelexport.logs import announce
from modelexport.spec import Calibration
from modelexport.text import clean
from modelexport_converter.datasets import (
    ARCHIVE,
    SHOWN,
    VERIFICATION_LIMIT,
    Found,
    count_candidates,
    file_of,
    place_of,
)
from modelexport_converter.failures import Failure
from modelexport_converter.pictures import Picture, decode, open_archive

VERIFICATION_COUNT = 8
"""Pictures with evidence on which a file is compared with the original model first.

As they are spread over the names, a kind of pictures that sorts together and makes a quarter of the data set is among
them. Each costs 0.15 to 0.25 seconds for a YOLOv8n of 640 x 640 pixels, on one core.
"""
SPARE = 4
"""A data set of fewer than SPARE times VERIFICATION_COUNT pictures is too small to keep some from the calibration."""
MANY = 100
"""Pictures of a data set from which on one in a hundred may be unreadable, and one in any case."""
NAMED = 3
"""Pictures that a refusal names."""
BUILT_IN, OWN = "built-in", "spec.calibration.dataset"
PACKAGED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Dataset:
    """The pictures of one conversion; ``is_own`` says that the user gave them.

    ``unreadable`` are messages that name pictures which were left out, ``repeated`` is how many showed the same as
    another one, ``opaque`` how many of the others have no alpha, or none that lets anything through.
    """

    calibration: tuple[Picture, ...]
    verification: tuple[Picture, ...]
    is_own: bool = False
    unreadable: tuple[str, ...] = ()
    repeated: int = 0
    opaque: int = 0

    def describe(self) -> dict[str, Any]:
        """What the report says of the choice."""
        calibrating = {id(picture) for picture in self.calibration}
        return {
            "source": OWN if self.is_own else BUILT_IN,
            "calibrated": len(self.calibration),
            "apart": not any(id(picture) in calibrating for picture in self.verification),
            "unreadable": self.unreadable,
            "repeated": self.repeated,
        }

    def remark(self) -> str:
        """What the user is told of pictures that were left out; empty where none was."""
        if not self.unreadable:
            return ""
        return f"left out {len(self.unreadable)} of the pictures: {'; '.join(self.unreadable[:NAMED])}"


def open_dataset(
    calibration: Calibration | None, found: Found | None, folder: Path, *, calibrates: bool = True
) -> Dataset:
    """Open the pictures that were downloaded to ``folder``; ``calibrates`` says whether a scheme has a use for them.

    Raises:
        Failure: they are not what they should be.
    """
    if calibration is None or found is None:
        packaged = tuple(Picture(path.name, path.read_bytes) for path in sorted(PACKAGED.glob("*.jpg")))
        return Dataset((), packaged, opaque=len(packaged))
    uri = calibration.dataset.uri
    if found.names is None:
        pictures = sorted(open_archive(folder / ARCHIVE, uri), key=lambda picture: place_of(picture.entry))
    else:
        pictures = [
            Picture(f"{uri}{clean(name, SHOWN)}", (folder / file_of(index)).read_bytes, name)
            for index, name in enumerate(found.names)
        ]
    candidates = pictures[: count_candidates(calibration, calibrates=calibrates)]
    is_large = max(found.count, len(pictures)) >= MANY
    readable = _read(candidates, max(1, len(candidates) // 100) if is_large else 0)
    for message in readable.unreadable:
        announce("picture left out", message=message)
    return _divide(readable, calibration.samples if calibrates else 0)


@dataclass(frozen=True)
class _Readable:
    """The pictures that can be read, each once, in the order of choice."""

    pictures: tuple[Picture, ...]
    unreadable: tuple[str, ...]
    repeated: int
    opaque: int


def _read(pictures: Sequence[Picture], allowed: int) -> _Readable:
    """Decode every picture, of which some may be unreadable.

    Raises:
        Failure: more are, by the reason of the first.
    """
    seen: dict[bytes, Picture] = {}
    opaque = set()
    failures: list[Failure] = []
    for picture in pictures:
        try:
            image = decode(picture, alpha=True)
            seen.setdefault(digest := _digest(image), picture)
            if image.mode == "RGB":
                opaque.add(digest)
        except Failure as failure:
            failures.append(failure)
            if len(failures) > allowed:
                raise _refuse(failures, len(pictures)) from failure
    repeated = len(pictures) - len(failures) - len(seen)
    return _Readable(tuple(seen.values()), tuple(map(str, failures)), repeated, len(opaque))


def _refuse(failures: Sequence[Failure], count: int) -> Failure:
    first = failures[0]
    if len(failures) == 1:
        return first
    named = "; ".join(str(failure) for failure in failures[:NAMED])
    return Failure(first.reason, f"more of {count} pictures than one in a hundred cannot be used: {named}")


def _digest(image: Image.Image) -> bytes:
    """Name what a picture shows: the SHA-256 of its size and its pixels; of one colour, of that."""
    if image.getcolors(maxcolors=1):
        image = image.crop((0, 0, 1, 1))
    digest = hashlib.sha256(f"{image.width} x {image.height}".encode())
    digest.update(image.tobytes())
    return digest.digest()


def _divide(readable: _Readable, samples: int) -> Dataset:
    """Verify on pictures that did not calibrate, where there are enough, and on the others after them where not."""
    pictures = readable.pictures
    kept = VERIFICATION_COUNT if len(pictures) >= SPARE * VERIFICATION_COUNT else 0
    chosen = pictures[: min(samples, len(pictures) - kept)]
    rest = pictures[len(chosen) :]
    verifying = _spread(rest[:VERIFICATION_LIMIT])
    if len(rest) < VERIFICATION_COUNT:
        verifying += _spread(chosen[: VERIFICATION_LIMIT - len(rest)])
    return Dataset(chosen, verifying, True, readable.unreadable, readable.repeated, readable.opaque)


def _spread(pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Order pictures so that the first few, however many, are spread over their names: halves, quarters, eighths.

    The order is that of van der Corput's sequence: by the bits of the rank, the lowest first.
    """
    bits = max(1, (len(pictures) - 1).bit_length())
    ranked = enumerate(sorted(pictures, key=lambda picture: picture.entry))
    return tuple(picture for _, picture in sorted(ranked, key=lambda item: f"{item[0]:0{bits}b}"[::-1]))
