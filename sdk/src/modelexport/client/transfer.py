"""Downloads one file: resumable, checked by its digest, and complete or absent."""

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

from modelexport.api.result import Artifact
from modelexport.errors import TransferError

ATTEMPTS = 4
"""Maximum consecutive attempts without progress."""
DELAY_SECONDS = 1.0
TIMEOUT_SECONDS = 60
CHUNK = 1 << 20
PART_SUFFIX = ".part"
SET_ENDPOINT = "set --endpoint (endpoint= in Python)"
SET_CA_FILE = "set --ca-file (ca_file= in Python) to the certificate authority of the store"
PASSING = (http.client.HTTPException, ConnectionError, TimeoutError, urllib.error.URLError)

Opener = Callable[[int], tuple[BinaryIO, int]]
"""Opens a file at an offset; returns the stream and its real offset, which is 0 if a server ignores the range."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Rejects redirects: a link is signed for one host."""

    def redirect_request(self, *_: object) -> None:
        return None


def open_url(url: str, trust: ssl.SSLContext | None) -> Opener:
    """Return the opener of a link; its query is secret and appears in no message. ``trust`` counts for https only."""
    shown = url.partition("?")[0]
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.HTTPSHandler(context=trust if url.startswith("https://") else None)
    )

    def open_at(offset: int) -> tuple[BinaryIO, int]:
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310
        try:
            response = opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"{shown}: the store answered {error.code} {error.reason}"
            if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise ConnectionError(problem) from error
            raise TransferError(problem) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                words = f"{shown}: {error.reason.verify_message}; {SET_CA_FILE}"
                raise TransferError(words) from error
            raise ConnectionError(
                f"{shown} is unreachable: {error.reason}; {SET_ENDPOINT} to a URL that this machine can reach"
            ) from error
        return response, offset if response.status == HTTPStatus.PARTIAL_CONTENT else 0

    return open_at


def open_file(path: Path) -> Opener:
    """Return the opener of a file in a directory store."""

    def open_at(offset: int) -> tuple[BinaryIO, int]:
        try:
            stream = path.open("rb")
        except OSError as error:
            raise TransferError(f"{path}: {error.strerror}; run the export again") from error
        stream.seek(offset)
        return stream, offset

    return open_at


def fetch(artifact: Artifact, path: Path, opener: Opener, report: Callable[[int], None]) -> None:
    """Download a file to ``path``.

    Args:
        artifact: digest and size of the file.
        path: the complete file; until then, the data is in ``path`` with the suffix ``.part``.
        opener: the source.
        report: called with the number of bytes received.

    Raises:
        TransferError: the file cannot be downloaded, or is not the one that the export published.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    resumed = _size(part) > 0
    _fill(part, artifact.size_bytes, opener, report)
    if resumed and not matches(part, artifact):
        part.unlink()  # the partial download was of another file of this name
        _fill(part, artifact.size_bytes, opener, report)
    if not matches(part, artifact):
        part.unlink()
        problem = f"{artifact.uri} does not have the published SHA-256 {artifact.sha256}"
        raise TransferError(f"{problem}; it was replaced or damaged, so it was discarded. Export it again")
    part.replace(path)


def matches(path: Path, artifact: Artifact) -> bool:
    """Return whether a file has the published digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fill(part: Path, size: int, opener: Opener, report: Callable[[int], None]) -> None:
    if _size(part) > size:
        part.unlink()
    idle, problem = 0, "the store ended the file too early"
    while (have := _size(part)) < size:
        try:
            stream, begin = opener(_size(part))
            with stream, part.open("r+b" if begin else "wb") as writer:
                writer.seek(begin)
                while (left := size - writer.tell()) > 0 and (chunk := stream.read(min(CHUNK, left))):
                    writer.write(chunk)
                    report(writer.tell())
        except PASSING as error:
            problem = str(error)
        idle = 0 if _size(part) > have else idle + 1
        if idle == ATTEMPTS:
            raise TransferError(
                f"{problem} ({have:,} of {size:,} bytes received; run the same command again to resume)"
            )
        time.sleep(DELAY_SECONDS * idle)
