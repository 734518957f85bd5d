"""Brings the pictures of a request onto the disk as bytes: an archive as it is, or files of a folder. Opens none."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelexport.reasons import Reason
from modelexport.spec import Calibration
from modelexport_converter.failures import Failure
from modelexport_converter.fetch import DATASET, check_source, fetch, sha256_of
from modelexport_converter.stores import ObjectMissing, Store, TooLarge

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
PICTURE_LIMIT = 64 << 20
"""Bytes of one picture, packed or not."""
VERIFICATION_COUNT = 4
"""Pictures on which a file is compared with the original model first; each costs up to a second at 640 pixels."""
ARCHIVE = "pictures.zip"


@dataclass(frozen=True)
class Found:
    """What lies on the disk: the archive, where ``names`` is ``None``, else a file for each name of the folder.

    ``digest`` names the content: the SHA-256 of the archive, or of the lines that ``sha256sum`` would print.
    """

    digest: str
    names: tuple[str, ...] | None = None


def file_of(index: int) -> str:
    """The name on the disk of a folder's picture, by its place in ``Found.names``."""
    return f"{index:05d}"


def fetch_dataset(
    store: Store, environ: Mapping[str, str], calibration: Calibration | None, folder: Path
) -> Found | None:
    """Download the pictures of a request to ``folder``; ``None`` where it names none.

    Raises:
        Failure: they are not there, or the store holds something else than pictures by their names.
    """
    if calibration is None:
        return None
    reference = calibration.dataset
    if not reference.uri.endswith("/"):
        return Found(fetch(store, environ, reference, DATASET, folder / ARCHIVE))
    check_source(environ, reference.uri, DATASET)
    return _fetch_folder(store, reference.uri, calibration.samples + VERIFICATION_COUNT, folder)


def is_picture(name: str) -> bool:
    """Whether a name is that of a picture; hidden files and what macOS adds to archives are not."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def check_found(chosen: Sequence[object], names: Sequence[str], uri: str) -> None:
    """Refuse a data set without a picture and say what it holds instead.

    Raises:
        Failure: ``CalibrationInvalid``.
    """
    if not chosen:
        held = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
        message = f"{uri} holds no picture ({', '.join(SUFFIXES)}); it holds {len(names)} files: {held}"
        raise Failure(Reason.CALIBRATION_INVALID, message)


def _fetch_folder(store: Store, uri: str, needed: int, folder: Path) -> Found:
    names = store.list_names(uri)
    if not names:
        raise Failure(
            Reason.CALIBRATION_NOT_FOUND, f"{uri} holds nothing; upload pictures or correct {DATASET.field_path}.uri"
        )
    chosen = [name for name in names if is_picture(name)]
    check_found(chosen, names, uri)
    digest, kept = hashlib.sha256(), tuple(chosen[:needed])
    for index, name in enumerate(kept):
        path = folder / file_of(index)
        _fetch_picture(store, uri + name, path)
        digest.update(f"{sha256_of(path)}  {name}\n".encode(errors="surrogateescape"))
    return Found(digest.hexdigest(), kept)


def _fetch_picture(store: Store, uri: str, path: Path) -> None:
    try:
        store.download(uri, path, PICTURE_LIMIT)
    except ObjectMissing as error:
        raise Failure(
            Reason.CALIBRATION_NOT_FOUND, f"{uri} was listed and is gone: {error}; do not change data while it is read"
        ) from error
    except TooLarge as error:
        raise Failure(Reason.CALIBRATION_TOO_LARGE, f"{uri} {error}; make it smaller or remove it") from error
