"""Files from the web: ``https://`` only, redirects to ``https://`` and to allowed folders only, bounded in size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urljoin

import urllib3

from modelexport import names
from modelexport.reasons import Reason
from modelexport.sources import explain_outside, public_uri
from modelexport_converter.failures import Failure
from modelexport_converter.stores import CHUNK, ObjectMissing, TooLarge
from modelexport_converter.stores.retry import attempt
from modelexport_converter.stores.tls import trust_arguments

REDIRECT_LIMIT = 5
REDIRECTS = (301, 302, 303, 307, 308)
GONE = (401, 403, 404, 410)


def download(uri: str, path: Path, limit: int, environ: Mapping[str, str]) -> None:
    """Write what an ``https://`` URI answers to ``path``.

    Raises:
        ObjectMissing: the server does not give it out.
        TooLarge: it has more bytes than ``limit``.
        Failure: ``StorageUnavailable``; ``InvalidSpec`` for a redirect to another scheme; ``SourceNotAllowed`` for one
            that leaves the folders from which the export's class lets it read.
    """
    # Without urllib3's own retries: its log would show the query of a URI, and with it a user's secret.
    timeout = urllib3.Timeout(connect=10, read=60)
    with urllib3.PoolManager(timeout=timeout, retries=False, **trust_arguments(environ)) as pool:
        sources = environ.get(names.SOURCES_ENV, "").split()
        attempt(lambda: _download(pool, uri, path, limit, sources))


def _download(pool: urllib3.PoolManager, uri: str, path: Path, limit: int, sources: Sequence[str]) -> None:
    try:
        with _follow(pool, uri, sources) as response:
            _write(response, path, limit)
    except urllib3.exceptions.HTTPError as error:
        raise Failure(Reason.STORAGE_UNAVAILABLE, f"{public_uri(uri)} cannot be read: {error}") from error


def _follow(pool: urllib3.PoolManager, uri: str, sources: Sequence[str]) -> urllib3.BaseHTTPResponse:
    for _ in range(REDIRECT_LIMIT + 1):
        if not uri.startswith("https://"):
            raise Failure(
                Reason.INVALID_SPEC,
                f"{public_uri(uri)} is reached by a redirect and is not https://; name a URI that stays on https://",
            )
        if problem := explain_outside(uri, sources):
            raise Failure(Reason.SOURCE_NOT_ALLOWED, f"{public_uri(uri)} is reached by a redirect and {problem}")
        response = pool.request("GET", uri, preload_content=False, redirect=False)
        if response.status not in REDIRECTS:
            return response
        response.close()
        uri = urljoin(uri, response.headers.get("location", ""))
    raise Failure(
        Reason.INVALID_SPEC, f"{public_uri(uri)} redirects more than {REDIRECT_LIMIT} times; name the last address"
    )


def _write(response: urllib3.BaseHTTPResponse, path: Path, limit: int) -> None:
    if response.status in GONE:
        raise ObjectMissing(f"the server answered {response.status}")
    if response.status != 200:
        raise urllib3.exceptions.HTTPError(f"status {response.status}")
    written = 0
    with path.open("wb") as writer:
        for chunk in response.stream(CHUNK, decode_content=False):
            written += writer.write(chunk)
            if written > limit:
                raise TooLarge(written, limit)
