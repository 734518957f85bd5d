"""Downloads the images of a request as bytes: an archive as it is, one image, or files of a folder. Opens none of them.

The selection of images depends on their names alone, so a listing is enough to decide it: images are taken in the order
of ``sort_key``, the SHA-256 of the name. This is as good as a random sample, since the author of the names did not
choose the digests: night shots, cameras, days and the frames of a video, which sort together by name, are drawn in
proportion. And it is the same on every machine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from modelexport.api.spec import Calibration
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.fetch import DATASET, Role, check_source, fetch, sha256_of
from modelexport_converter.stores import ObjectMissing, Store, TooLarge, TooMany

PACKED = (".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
IMAGE_LIMIT = 64 << 20
"""Bytes of one image, packed or unpacked."""
TOTAL_LIMIT = 8192 << 20
"""Bytes of all images, unpacked."""
VERIFICATION_LIMIT = 64
"""Images on which a file is compared with the original model at most."""
ARCHIVE = "images.zip"
SHOWN = 200
URI_LIMIT = 2 * SHOWN
"""Characters of a name in a message."""


@dataclass(frozen=True)
class FetchedImages:
    """The downloaded images: an archive if ``names`` is ``None``, else one file per name, in the order of ``sort_key``.

    ``digest`` identifies the content: the SHA-256 of the archive, or of the lines that ``sha256sum`` would print for
    the files. Together with the numbers of the request it determines the selected images. ``count`` is the number of
    images in the folder, with those that were not selected.
    """

    digest: str
    names: tuple[str, ...] | None = None
    count: int = 0


def sort_key(name: str) -> bytes:
    """Return the key that orders images for selection: the SHA-256 of the UTF-8 name within its archive or folder."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


def file_of(index: int) -> str:
    """Return the local file name of a folder's image, by its index in ``FetchedImages.names``."""
    return f"{index:05d}"


def fetch_dataset(
    store: Store, environ: Mapping[str, str], calibration: Calibration | None, folder: Path, *, calibrates: bool = True
) -> FetchedImages | None:
    """Download the images of a request to ``folder``. Return ``None`` if it names none.

    Downloads only as many files of a folder as can be used; ``calibrates`` says whether the recipe needs samples.

    Raises:
        Failure: the images are missing, or no name in the folder is that of an image.
    """
    if calibration is None:
        return None
    reference = calibration.dataset
    name = urlsplit(reference.uri).path.rpartition("/")[2]
    if is_image(name):
        digest = fetch(store, environ, reference, replace(DATASET, limit=IMAGE_LIMIT), folder / file_of(0))
        return FetchedImages(digest, (name,), 1)
    if not reference.uri.endswith("/"):
        return FetchedImages(fetch(store, environ, reference, DATASET, folder / ARCHIVE))
    check_source(environ, reference.uri, DATASET)
    uri = reference.uri
    needed = count_candidates(calibration, calibrates=calibrates)
    names = list_folder(store, uri, DATASET)
    chosen = sorted(filter(is_image, names), key=sort_key)
    require_images(chosen, names, uri)
    kept = tuple(chosen[:needed])
    return FetchedImages(fetch_files(store, uri, kept, folder, DATASET), kept, len(chosen))


def count_candidates(calibration: Calibration, *, calibrates: bool) -> int:
    """Return how many images are read at most, in the order of ``sort_key``."""
    return (calibration.samples if calibrates else 0) + VERIFICATION_LIMIT


def is_image(name: str) -> bool:
    """Return whether a name is that of an image; hidden files and the entries that macOS adds to archives are not."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden or one of those that macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in PurePosixPath(name).parts)


def require_images(chosen: Sequence[object], names: Sequence[str], uri: str, role: Role = DATASET) -> None:
    """Refuse a dataset without images and list its content instead.

    Raises:
        Failure: the ``invalid`` reason of the role.
    """
    if chosen:
        return
    held = list_names(names)
    packed = any(name.lower().endswith(PACKED) for name in names)
    way_out = "; unpack archives within it" if packed else ""
    message = f"{uri} holds no image ({', '.join(SUFFIXES)}); it holds {len(names)} files: {held}{way_out}"
    raise Failure(role.invalid, message)


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a dataset for a message."""
    return ", ".join(clean(name, SHOWN) for name in names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def list_folder(store: Store, uri: str, role: Role) -> list[str]:
    """Return the names of the files in a folder.

    Raises:
        Failure: there are none or too many, with the reasons of the role.
    """
    try:
        names = store.list_names(uri)
    except TooMany as error:
        message = f"{uri} {error}; name a folder of fewer, or a zip archive of the images"
        raise Failure(role.too_large, message) from error
    if not names:
        raise Failure(role.missing, f"{uri} holds nothing; upload images or correct {role.field_path}.uri")
    return list(names)


def fetch_files(store: Store, uri: str, names: Sequence[str], folder: Path, role: Role) -> str:
    """Download files of a folder as ``file_of`` names them. Return the digest of all of them (64 hex digits).

    Raises:
        Failure: one is gone or too large, with the reasons of the role.
    """
    digest, left = hashlib.sha256(), TOTAL_LIMIT
    for index, name in enumerate(names):
        path = folder / file_of(index)
        _fetch_file(store, uri + name, path, left, role)
        left -= path.stat().st_size
        digest.update(f"{sha256_of(path)}  {name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _fetch_file(store: Store, uri: str, path: Path, left: int, role: Role) -> None:
    shown = clean(uri, URI_LIMIT)
    try:
        store.download(uri, path, min(left, IMAGE_LIMIT))
    except ObjectMissing as error:
        problem = f"{shown} was listed and is gone: {clean(str(error), SHOWN)}; do not change data while it is read"
        raise Failure(role.missing, problem) from error
    except TooLarge as error:
        if left < IMAGE_LIMIT:
            problem = f"the chosen files have more than {TOTAL_LIMIT >> 20:,} MiB; ask for fewer samples"
        else:
            problem = f"{shown} {error}; make it smaller or remove it"
        raise Failure(role.too_large, problem) from error
