"""Where checkpoints and pictures come from and artifacts go: an S3 server, or a directory with a folder per bucket."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from modelexport import names
from modelexport.reasons import Reason
from modelexport.sources import public_uri
from modelexport_converter.failures import Failure

CHUNK = 1 << 20
"""Bytes that are read at a time."""
TEXT_LIMIT = 8 << 20
"""Bytes of what is read as a text: a report takes a hundredth of it."""


NAMES_LIMIT, NAME_BYTES_LIMIT = 100_000, 16 << 20
"""Objects that a listing of a folder may have, and the bytes of their names: fetching has 256 MiB of memory."""


class ObjectMissing(Exception):  # noqa: N818 - it names what is the case
    """A URI names nothing; ``str()`` says what was looked for. The caller knows what it was meant to be."""


class Store(Protocol):
    """What both kinds of store offer. URIs are ``s3://bucket/key``; a directory also reads ``file:///path``.

    All raise ``Failure``: ``BucketNotFound``, ``StorageDenied``, ``StorageFull`` or ``StorageUnavailable``.
    """

    def download(self, uri: str, path: Path, limit: int) -> None:
        """Write an object of at most ``limit`` bytes to ``path``.

        Raises:
            ObjectMissing: there is no such object.
            TooLarge: it has more bytes than ``limit``.
        """

    def read_text(self, uri: str) -> str | None:
        """Return a UTF-8 object of at most ``TEXT_LIMIT`` bytes, or ``None`` where there is none."""

    def size_of(self, uri: str) -> int | None:
        """Return the bytes of an object, or ``None`` where there is none."""

    def list_names(self, uri: str) -> tuple[str, ...]:
        """Return the names below a folder (``uri`` ends with a slash), relative to it and sorted.

        Raises:
            TooMany: there are more of them than ``bounded`` lets through.
        """

    def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        """Write a file to a URI so that it is there whole or not at all."""


class TooLarge(Exception):  # noqa: N818 - it names what is the case
    """An object has more bytes than it may have; ``str()`` gives both numbers."""

    def __init__(self, found: int, limit: int) -> None:
        super().__init__(f"has at least {found:,} bytes, the limit is {limit:,}")


class TooMany(Exception):  # noqa: N818 - it names what is the case
    """A folder holds more than is listed; ``str()`` says which bound it exceeds."""


def bounded(names: Iterable[str]) -> Iterator[str]:
    """Pass on the names of a listing while they are neither too many nor too long, all of them together.

    Raises:
        TooMany: they are.
    """
    length = 0
    for count, name in enumerate(names, 1):
        length += len(name.encode(errors="surrogateescape"))
        if count > NAMES_LIMIT:
            raise TooMany(f"holds more than {NAMES_LIMIT:,} objects")
        if length > NAME_BYTES_LIMIT:
            raise TooMany(f"holds names of more than {NAME_BYTES_LIMIT >> 20} MiB")
        yield name


def open_store(environ: Mapping[str, str]) -> Store:
    """Open the store that the environment names; see ``modelexport.names``.

    Raises:
        Failure: ``ClassInvalid`` where the environment names none, ``StorageUnavailable`` for a missing directory.
    """
    address = environ.get(names.STORE_ENV, "")
    if address.startswith(("http://", "https://")):
        # The S3 client costs a quarter of a second to import, which a local run need not pay.
        from modelexport_converter.stores.s3 import S3Store

        return S3Store.connect(environ)
    if not address:
        raise Failure(Reason.CLASS_INVALID, f"{names.STORE_ENV} is not set; name an S3 endpoint or a directory")
    from modelexport_converter.stores.directory import DirectoryStore

    return DirectoryStore(Path(address))


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty.

    Raises:
        Failure: ``InvalidSpec``, the URI is of another scheme.
    """
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash:
        raise Failure(Reason.INVALID_SPEC, f"{public_uri(uri)} cannot be read from this store; use s3://bucket/key")
    return bucket, key
