"""Brings the pictures of a request onto the disk as bytes: an archive as it is, or files of a folder. Opens none.

Which pictures of a data set are used follows from their names alone, so that it can be decided from a listing: in the
order of ``place_of``, the SHA-256 of the name. That is as good as drawing lots, for whoever named the pictures did not
choose the digests: night shots, cameras, days and the frames of a video, which sort together by name, are drawn in
proportion. And it is the same on every machine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelexport.reasons import Reason
from modelexport.spec import Calibration
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.fetch import DATASET, check_source, fetch, sha256_of
from modelexport_converter.stores import ObjectMissing, Store, TooLarge, TooMany

PACKED = (".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
PICTURE_LIMIT = 64 << 20
"""Bytes of one picture, packed or not."""
TOTAL_LIMIT = 8192 << 20
"""Bytes of all pictures, unpacked."""
VERIFICATION_LIMIT = 64
"""Pictures on which a file is compared with the original model at most."""
ARCHIVE = "pictures.zip"
SHOWN = 200
"""Characters of a name that are shown."""


@dataclass(frozen=True)
class Found:
    """What lies on the disk: the archive, where ``names`` is ``None``, else a file for each name, in order of choice.

    ``digest`` names the content: the SHA-256 of the archive, or of the lines that ``sha256sum`` would print for the
    files. With the numbers of the request, which pictures are used follows from what it names. ``count`` is how many
    pictures the folder has, with those that were not chosen.
    """

    digest: str
    names: tuple[str, ...] | None = None
    count: int = 0


def place_of(name: str) -> bytes:
    """By what pictures are ordered to choose some: the SHA-256 of a name within its archive or folder, in UTF-8."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


def file_of(index: int) -> str:
    """The name on the disk of a folder's picture, by its place in ``Found.names``."""
    return f"{index:05d}"


def fetch_dataset(
    store: Store, environ: Mapping[str, str], calibration: Calibration | None, folder: Path, *, calibrates: bool = True
) -> Found | None:
    """Download the pictures of a request to ``folder``; ``None`` where it names none.

    Of a folder no more are downloaded than can be used: ``calibrates`` says whether the scheme has a use for samples.

    Raises:
        Failure: they are not there, or the store holds something else than pictures by their names.
    """
    if calibration is None:
        return None
    reference = calibration.dataset
    if not reference.uri.endswith("/"):
        return Found(fetch(store, environ, reference, DATASET, folder / ARCHIVE))
    check_source(environ, reference.uri, DATASET)
    return _fetch_folder(store, reference.uri, count_candidates(calibration, calibrates=calibrates), folder)


def count_candidates(calibration: Calibration, *, calibrates: bool) -> int:
    """How many pictures are looked at, of those that come first in the order of choice."""
    return (calibration.samples if calibrates else 0) + VERIFICATION_LIMIT


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
    if chosen:
        return
    held = ", ".join(clean(name, SHOWN) for name in names[:5]) + (", ..." if len(names) > 5 else "") or "nothing"
    packed = any(name.lower().endswith(PACKED) for name in names)
    way_out = "; unpack archives within it" if packed else ""
    message = f"{uri} holds no picture ({', '.join(SUFFIXES)}); it holds {len(names)} files: {held}{way_out}"
    raise Failure(Reason.CALIBRATION_INVALID, message)


def _fetch_folder(store: Store, uri: str, needed: int, folder: Path) -> Found:
    try:
        names = store.list_names(uri)
    except TooMany as error:
        message = f"{uri} {error}; name a folder of fewer, or a zip archive of the pictures"
        raise Failure(Reason.CALIBRATION_TOO_LARGE, message) from error
    if not names:
        raise Failure(
            Reason.CALIBRATION_NOT_FOUND, f"{uri} holds nothing; upload pictures or correct {DATASET.field_path}.uri"
        )
    chosen = sorted(filter(is_picture, names), key=place_of)
    check_found(chosen, names, uri)
    digest, kept, left = hashlib.sha256(), tuple(chosen[:needed]), TOTAL_LIMIT
    for index, name in enumerate(kept):
        path = folder / file_of(index)
        _fetch_picture(store, uri, name, path, left)
        left -= path.stat().st_size
        digest.update(f"{sha256_of(path)}  {name}\n".encode(errors="surrogateescape"))
    return Found(digest.hexdigest(), kept, len(chosen))


def _fetch_picture(store: Store, uri: str, name: str, path: Path, left: int) -> None:
    shown = f"{uri}{clean(name, SHOWN)}"
    try:
        store.download(uri + name, path, min(left, PICTURE_LIMIT))
    except ObjectMissing as error:
        problem = f"{shown} was listed and is gone: {clean(str(error), SHOWN)}; do not change data while it is read"
        raise Failure(Reason.CALIBRATION_NOT_FOUND, problem) from error
    except TooLarge as error:
        if left < PICTURE_LIMIT:
            problem = f"the chosen pictures below {uri} have more than {TOTAL_LIMIT >> 20:,} MiB; ask for fewer samples"
        else:
            problem = f"{shown} {error}; make it smaller or remove it"
        raise Failure(Reason.CALIBRATION_TOO_LARGE, problem) from error
