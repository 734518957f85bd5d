"""Fetches one file: resumed where it stopped, checked by its digest, and there whole or not at all."""

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from modelexport.result import Artifact

ATTEMPTS = 4
"""Attempts in a row that may bring nothing."""
DELAY_SECONDS = 1.0
TIMEOUT_SECONDS = 60
CHUNK = 1 << 20
PART_SUFFIX = ".part"
PASSING = (http.client.HTTPException, ConnectionError, TimeoutError, urllib.error.URLError)

Opener = Callable[[int], tuple[BinaryIO, int]]
"""Opens a file at an offset; returns the stream and the offset at which it really begins: a server may start anew."""


class TransferError(Exception):
    """A file could not be fetched; ``str()`` says why, and the way out."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A link is signed for one host; what leads elsewhere is no answer of the store."""

    def redirect_request(self, *_: object) -> None:
        return None


def open_url(url: str, trust: ssl.SSLContext | None) -> Opener:
    """Return the opener of a link; its query is a secret and in no message."""
    shown = url.partition("?")[0]
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=trust))

    def open_at(offset: int) -> tuple[BinaryIO, int]:
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310
        try:
            response = opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"{shown}: the store answers {error.code} {error.reason}"
            if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise ConnectionError(problem) from error
            raise TransferError(problem) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                words = (
                    f"{shown}: {error.reason.verify_message}; name the authority that signs for the store by --ca-file"
                )
                raise TransferError(words) from error
            raise ConnectionError(
                f"{shown} cannot be reached: {error.reason}; name the store as you reach it by --endpoint"
            ) from error
        return response, offset if response.status == HTTPStatus.PARTIAL_CONTENT else 0

    return open_at


def open_file(path: Path) -> Opener:
    """Return the opener of a file of a directory store."""

    def open_at(offset: int) -> tuple[BinaryIO, int]:
        try:
            stream = path.open("rb")
        except OSError as error:
            raise TransferError(f"{path}: {error.strerror}; run the export again") from error
        stream.seek(offset)
        return stream, offset

    return open_at


def fetch(artifact: Artifact, path: Path, opener: Opener, tell: Callable[[int], None]) -> None:
    """Fetch a file to ``path``.

    Args:
        artifact: its digest and its size.
        path: where it is when all is well; until then it grows under the same name with ``.part``.
        opener: where it comes from.
        tell: is called with the bytes that are there.

    Raises:
        TransferError: it cannot be fetched, or is another than the export published.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    resumed = _size(part) > 0
    _fill(part, artifact.size_bytes, opener, tell)
    if resumed and not matches(part, artifact):
        part.unlink()  # its beginning was of another file of this name
        _fill(part, artifact.size_bytes, opener, tell)
    if not matches(part, artifact):
        part.unlink()
        problem = f"{artifact.uri} does not have the SHA-256 {artifact.sha256} with which it was published"
        raise TransferError(f"{problem}; it was replaced or damaged, so nothing of it was kept. Export it again")
    part.replace(path)


def matches(path: Path, artifact: Artifact) -> bool:
    """Whether a file is the published one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fill(part: Path, size: int, opener: Opener, tell: Callable[[int], None]) -> None:
    if _size(part) > size:
        part.unlink()
    idle, problem = 0, "the store ends the file too early"
    while (have := _size(part)) < size:
        try:
            _append(part, size, opener, tell)
        except PASSING as error:
            problem = str(error)
        idle = 0 if _size(part) > have else idle + 1
        if idle == ATTEMPTS:
            raise TransferError(f"{problem} ({have:,} of {size:,} bytes are here; the same command goes on from there)")
        time.sleep(DELAY_SECONDS * idle)


def _append(part: Path, size: int, opener: Opener, tell: Callable[[int], None]) -> None:
    stream, begin = opener(_size(part))
    with stream, part.open("r+b" if begin else "wb") as writer:
        writer.seek(begin)
        while (left := size - writer.tell()) > 0 and (chunk := stream.read(min(CHUNK, left))):
            writer.write(chunk)
            tell(writer.tell())
