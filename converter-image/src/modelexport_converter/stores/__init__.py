"""Stores of checkpoints, images and artifacts: an S3 server, or a directory with a folder per bucket."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from modelexport.api.reasons import Reason
from modelexport.api.sources import public_uri
from modelexport_converter.failures import Failure

CHUNK = 1 << 20
"""Bytes read at a time."""
TEXT_LIMIT = 8 << 20
"""Bytes of an object that is read as text; a report takes a hundredth of it."""


NAMES_LIMIT, NAME_BYTES_LIMIT = 100_000, 16 << 20
"""Objects in a listing of a folder, and bytes of their names; the fetch step has 256 MiB of memory."""


class ObjectMissing(Exception):  # noqa: N818 - it names what is the case
    """A URI names no object; ``str()`` names what was looked for. The caller knows the object's role."""


class Store(Protocol):
    """The interface of both stores. URIs are ``s3://bucket/key``; a directory also reads ``file:///path``.

    All methods raise ``Failure``: ``BucketNotFound``, ``StorageDenied``, ``StorageFull`` or ``StorageUnavailable``.
    """

    def download(self, uri: str, path: Path, limit: int) -> None:
        """Write an object of at most ``limit`` bytes to ``path``.

        Raises:
            ObjectMissing: there is no such object.
            TooLarge: it has more bytes than ``limit``.
        """

    def read_text(self, uri: str) -> str | None:
        """Return a UTF-8 object of at most ``TEXT_LIMIT`` bytes, or ``None`` if it does not exist or is larger."""

    def size_of(self, uri: str) -> int | None:
        """Return the size of an object in bytes, or ``None`` if it does not exist."""

    def list_names(self, uri: str) -> tuple[str, ...]:
        """Return the names below a folder (``uri`` ends with a slash), relative to it and sorted.

        Raises:
            TooMany: the listing exceeds a limit of ``bounded``.
        """

    def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        """Write a file to a URI; readers see it complete or not at all."""


class TooLarge(Exception):  # noqa: N818 - it names what is the case
    """An object exceeds its size limit; ``str()`` gives both numbers."""

    def __init__(self, found: int, limit: int) -> None:
        super().__init__(f"has at least {found:,} bytes, the limit is {limit:,}")


class TooMany(Exception):  # noqa: N818 - it names what is the case
    """A folder exceeds a limit of listings; ``str()`` names it."""


def bounded(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of a listing up to the limits on their number and total length.

    Raises:
        TooMany: the listing exceeds a limit.
    """
    length = 0
    for count, name in enumerate(names, 1):
        length += len(name.encode(errors="surrogateescape"))
        if count > NAMES_LIMIT:
            raise TooMany(f"holds more than {NAMES_LIMIT:,} objects")
        if length > NAME_BYTES_LIMIT:
            raise TooMany(f"holds names of more than {NAME_BYTES_LIMIT >> 20} MiB")
        yield name


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty.

    Raises:
        Failure: ``InvalidSpec``, the URI has another scheme.
    """
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash:
        raise Failure(Reason.INVALID_SPEC, f"{public_uri(uri)} cannot be read from this store; use s3://bucket/key")
    return bucket, key
