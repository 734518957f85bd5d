"""Which pictures calibrate and which verify: the user's where the request names some, else a few of our own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelexport.reasons import Reason
from modelexport.spec import Calibration
from modelexport_converter.failures import Failure
from modelexport_converter.fetch import DATASET, check_source, fetch, sha256_of
from modelexport_converter.pictures import PICTURE_LIMIT, Picture, check_found, is_picture, open_archive
from modelexport_converter.stores import ObjectMissing, Store, TooLarge

VERIFICATION_COUNT = 4
"""Pictures on which a file is compared with the original model first; each costs up to a second at 640 pixels."""
VERIFICATION_LIMIT = 64
"""Pictures on which it is compared at most, where it falls short on the first ones."""
PACKAGED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Dataset:
    """The pictures of one conversion. ``digest`` names their content, ``None`` where the user gave none."""

    calibration: tuple[Picture, ...]
    verification: tuple[Picture, ...]
    digest: str | None = None


def open_dataset(
    store: Store, environ: Mapping[str, str], calibration: Calibration | None, folder: Path, *, calibrates: bool = True
) -> Dataset:
    """Bring the pictures of a request to ``folder``; ``calibrates`` says whether its scheme has a use for them.

    Raises:
        Failure: they are not there, or not what they should be.
    """
    if calibration is None:
        return Dataset((), tuple(_on_disk(path.name, path) for path in sorted(PACKAGED.glob("*.jpg"))))
    reference, needed = calibration.dataset, calibration.samples + VERIFICATION_COUNT
    if reference.uri.endswith("/"):
        check_source(environ, reference.uri, DATASET)
        pictures, digest = _download_folder(store, reference.uri, needed, folder)
    else:
        archive = folder / "pictures.zip"
        digest = fetch(store, environ, reference, DATASET, archive)
        pictures = open_archive(archive, reference.uri)
    return _divide(pictures, calibration.samples if calibrates else 0, digest)


def _divide(pictures: Sequence[Picture], samples: int, digest: str) -> Dataset:
    """Verify on pictures that did not calibrate, where there are enough of them."""
    chosen, rest = tuple(pictures[:samples]), tuple(pictures[samples:])
    unseen = rest if len(rest) >= VERIFICATION_COUNT or not chosen else chosen
    return Dataset(chosen, unseen[:VERIFICATION_LIMIT], digest)


def _download_folder(store: Store, uri: str, needed: int, folder: Path) -> tuple[tuple[Picture, ...], str]:
    """Return the first pictures below a folder, and the digest of the lines that ``sha256sum`` would print for them."""
    names = store.list_names(uri)
    if not names:
        raise Failure(
            Reason.CALIBRATION_NOT_FOUND, f"{uri} holds nothing; upload pictures or correct {DATASET.field_path}.uri"
        )
    chosen = [name for name in names if is_picture(name)]
    check_found(chosen, names, uri)
    digest, pictures = hashlib.sha256(), []
    for index, name in enumerate(chosen[:needed]):
        path = folder / f"{index:05d}"
        _download_picture(store, uri + name, path)
        digest.update(f"{sha256_of(path)}  {name}\n".encode(errors="surrogateescape"))
        pictures.append(_on_disk(uri + name, path))
    return tuple(pictures), digest.hexdigest()


def _download_picture(store: Store, uri: str, path: Path) -> None:
    try:
        store.download(uri, path, PICTURE_LIMIT)
    except ObjectMissing as error:
        raise Failure(
            Reason.CALIBRATION_NOT_FOUND, f"{uri} was listed and is gone: {error}; do not change data while it is read"
        ) from error
    except TooLarge as error:
        raise Failure(Reason.CALIBRATION_TOO_LARGE, f"{uri} {error}; make it smaller or remove it") from error


def _on_disk(name: str, path: Path) -> Picture:
    return Picture(name, path.read_bytes)
