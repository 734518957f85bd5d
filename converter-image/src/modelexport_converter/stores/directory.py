"""A directory as store: ``s3://bucket/key`` is the file ``<root>/bucket/key``.

A file appears complete or not at all: it is written under a hidden name first. A writer locks that file, so the next
writer can recognise and remove what a killed one left behind.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO
from urllib.parse import unquote

from modelexport.api.reasons import Reason
from modelexport_converter.failures import Failure
from modelexport_converter.stores import CHUNK, TEXT_LIMIT, ObjectMissing, TooLarge, bounded, split_uri

PARTIAL_SUFFIX = ".partial"
FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class DirectoryStore:
    """Implements ``Store``. A file system has no place for metadata; the report holds it."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise Failure(
                Reason.STORAGE_UNAVAILABLE, f"the store {root} is not a directory; create it or name another one"
            )
        self._root = root.resolve()

    def download(self, uri: str, path: Path, limit: int) -> None:
        """Copy an object to ``path``; see ``Store``."""
        source = self._path(uri)
        if not source.is_file():
            self._check_bucket(uri)
            if source.is_dir():
                raise ObjectMissing(f"{source} is a folder, and the URI of a folder of images ends with a slash")
            raise ObjectMissing(f"there is no file {source}")
        with _translated(f"{source} (from {uri})"):
            if (size := source.stat().st_size) > limit:
                raise TooLarge(size, limit)
            reader = source.open("rb")
        with reader, path.open("wb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK)

    def read_text(self, uri: str) -> str | None:
        """Return a small text object, or ``None``; see ``Store``."""
        path = self._path(uri)
        with _translated(str(path)):
            if not path.is_file() or path.stat().st_size > TEXT_LIMIT:
                return None
            return path.read_text(encoding="utf-8", errors="replace")

    def size_of(self, uri: str) -> int | None:
        """Return the bytes of an object, or ``None``; see ``Store``."""
        path = self._path(uri)
        with _translated(str(path)):
            return path.stat().st_size if path.is_file() else None

    def list_names(self, uri: str) -> tuple[str, ...]:
        """Return the names below a folder; see ``Store``."""
        folder = self._path(uri)
        self._check_bucket(uri)
        with _translated(str(folder)):
            found = bounded(str(path.relative_to(folder)) for path in folder.rglob("*"))
            files = [PurePath(name) for name in found if (folder / name).is_file()]
        return tuple(sorted(str(name) for name in files if not any(part.startswith(".") for part in name.parts)))

    def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        """Write a file to a URI, complete or not at all; see ``Store``."""
        target = self._path(uri)
        with _translated(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target)
            with _replacing(target) as writer, path.open("rb") as reader:
                shutil.copyfileobj(reader, writer, CHUNK)

    def _check_bucket(self, uri: str) -> None:
        if uri.startswith("file://"):
            return
        bucket, _ = split_uri(uri)
        if not (self._root / bucket).is_dir():
            found = f"bucket {bucket} of {uri} does not exist: there is no folder {self._root / bucket}"
            raise Failure(Reason.BUCKET_NOT_FOUND, f"{found}; create it or correct the URI")

    def _path(self, uri: str) -> Path:
        if uri.startswith("file://"):
            path = Path(uri.removeprefix("file://"))
            with _translated(uri):  # decodes ``%20`` and the like, unless a file has this literal name
                return path if path.exists() else Path(unquote(str(path)))
        bucket, key = split_uri(uri)
        path = (self._root / bucket / key).resolve()
        if not path.is_relative_to(self._root / bucket):
            raise Failure(
                Reason.INVALID_SPEC, f"{uri} leads out of its bucket; use a key without '..' and symbolic links"
            )
        return path


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=PARTIAL_SUFFIX)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            yield writer
            writer.flush()
            os.fchmod(writer.fileno(), 0o644)
            os.fsync(writer.fileno())
            Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename survives a power cut
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".{target.name}.*{PARTIAL_SUFFIX}"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process is writing it
            path.unlink(missing_ok=True)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Failure(
                Reason.STORAGE_FULL, f"no space left in the store for {what}; free space or name another store"
            ) from error
        if error.errno in DENIED:
            raise Failure(Reason.STORAGE_DENIED, f"{what}: {error.strerror}; give this user access to it") from error
        raise
