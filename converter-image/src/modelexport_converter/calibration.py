"""Which pictures calibrate and which verify: the user's where the request names some, else a few of our own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelexport.spec import Calibration
from modelexport_converter.datasets import ARCHIVE, VERIFICATION_COUNT, Found, file_of
from modelexport_converter.pictures import Picture, open_archive

VERIFICATION_LIMIT = 64
"""Pictures on which a file is compared at most, where it falls short on the first ones."""
PACKAGED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Dataset:
    """The pictures of one conversion."""

    calibration: tuple[Picture, ...]
    verification: tuple[Picture, ...]


def open_dataset(
    calibration: Calibration | None, found: Found | None, folder: Path, *, calibrates: bool = True
) -> Dataset:
    """Open the pictures that were downloaded to ``folder``; ``calibrates`` says whether a scheme has a use for them.

    Raises:
        Failure: they are not what they should be.
    """
    if calibration is None or found is None:
        return Dataset((), tuple(_on_disk(path.name, path) for path in sorted(PACKAGED.glob("*.jpg"))))
    uri = calibration.dataset.uri
    if found.names is None:
        pictures = open_archive(folder / ARCHIVE, uri)
    else:
        pictures = tuple(_on_disk(uri + name, folder / file_of(index)) for index, name in enumerate(found.names))
    return _divide(pictures, calibration.samples if calibrates else 0)


def _divide(pictures: Sequence[Picture], samples: int) -> Dataset:
    """Verify on pictures that did not calibrate, where there are enough of them."""
    chosen, rest = tuple(pictures[:samples]), tuple(pictures[samples:])
    unseen = rest if len(rest) >= VERIFICATION_COUNT or not chosen else chosen
    return Dataset(chosen, unseen[:VERIFICATION_LIMIT])


def _on_disk(name: str, path: Path) -> Picture:
    return Picture(name, path.read_bytes)
