"""Downloads from the web: ``https://`` only, redirects to ``https://`` and to allowed folders only, limited in size.

A name is resolved once. The resolved address is checked, and the connection goes to that very address, under the name
of the URI (SNI, certificate, ``Host``): a name that resolves to another address the next time changes nothing. Proxies
are not used, even if ``HTTPS_PROXY`` is set: a proxy resolves names itself, without the check of the address.
"""

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import urllib3

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.sources import explain_outside, explain_unreadable, public_uri
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.stores import CHUNK, ObjectMissing, TooLarge
from modelexport_converter.stores.addresses import Network, is_allowed, parse_networks
from modelexport_converter.stores.retry import RetryPolicy
from modelexport_converter.stores.tls import trust_arguments

REDIRECT_LIMIT = 5
REDIRECTS = (301, 302, 303, 307, 308)
GONE = (401, 403, 404, 410)
CONNECT_SECONDS = 10
TIMEOUT = urllib3.Timeout(connect=CONNECT_SECONDS, read=60)
TOTAL_SECONDS = 3600.0
"""Limit of one download: a server may send a byte a minute forever."""
SHOWN_LIMIT = 200
RETRY_POLICY = RetryPolicy()
"""Always short, whatever the retry policy of the store: an address that does not answer may as well be wrong."""


def download(uri: str, path: Path, limit: int, environ: Mapping[str, str]) -> None:
    """Write the response of an ``https://`` URI to ``path``.

    Raises:
        ObjectMissing: the server refuses or does not have it.
        TooLarge: it has more bytes than ``limit``.
        Failure: ``StorageUnavailable``; ``InvalidSpec`` for a redirect to another scheme; ``SourceNotAllowed`` for an
            address, or a redirect out of the folders, that the export's class does not allow.
    """
    rules = _Rules(
        tuple(environ.get(names.SOURCES_ENV, "").split()),
        parse_networks(environ.get(names.HTTPS_NETWORKS_ENV, "")),
        trust_arguments(environ),
    )
    RETRY_POLICY.attempt(lambda: _download(rules, uri, path, limit))


@dataclass(frozen=True)
class _Rules:
    """Limits on sources: allowed folders, networks allowed beside public addresses, and trusted authorities."""

    sources: Sequence[str]
    networks: Sequence[Network]
    trust: Mapping[str, Any]


class _Connection(urllib3.connection.HTTPSConnection):
    """Connects to an address that passed the check, and to no other address of the name."""

    def __init__(self, *arguments: Any, networks: Sequence[Network], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._networks = networks

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise urllib3.exceptions.HTTPError(f"the name {self.host} cannot be resolved: {error}") from error
        allowed = [(family, address) for family, *_, address in found if is_allowed(str(address[0]), self._networks)]
        if not allowed:
            problem = f"{self.host} resolves to an address that is not public and that the ExportClass does not allow"
            way_out = "put the file into the store, or have its network added to spec.https.allowedNetworks"
            raise Failure(Reason.SOURCE_NOT_ALLOWED, f"{problem}; {way_out}")
        failed = None
        for family, address in allowed:
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(address)
            except OSError as error:
                connection.close()
                failed = error
            else:
                return connection
        raise urllib3.exceptions.HTTPError(f"{self.host} does not answer: {failed}") from failed


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


def _download(rules: _Rules, uri: str, path: Path, limit: int) -> None:
    try:
        with contextlib.ExitStack() as stack:
            response = _follow(rules, uri, stack)
            if response.status in GONE:
                raise ObjectMissing(f"the server answered {response.status}")
            if response.status != 200:
                raise urllib3.exceptions.HTTPError(f"status {response.status}")
            written, end = 0, time.monotonic() + TOTAL_SECONDS
            with path.open("wb") as writer:
                while chunk := response.read1(CHUNK, decode_content=False):
                    written += writer.write(chunk)
                    if written > limit:
                        raise TooLarge(written, limit)
                    if time.monotonic() > end:
                        raise urllib3.exceptions.HTTPError(
                            f"{written:,} bytes came in {TOTAL_SECONDS:.0f} s; that is too slow"
                        )
    except urllib3.exceptions.HTTPError as error:
        problem = clean(str(error), SHOWN_LIMIT)
        raise Failure(Reason.STORAGE_UNAVAILABLE, f"{public_uri(uri)} cannot be read: {problem}") from error


def _follow(rules: _Rules, uri: str, stack: contextlib.ExitStack) -> urllib3.BaseHTTPResponse:
    """Follow redirects and return the final response; ``stack`` closes its connections."""
    for _ in range(REDIRECT_LIMIT + 1):
        url = urllib3.util.parse_url(uri)
        # Without urllib3's own retries: its log would show the query of a URI, and with it a user's secret.
        pool = stack.enter_context(
            _Pool(url.host or "", url.port, timeout=TIMEOUT, retries=False, networks=rules.networks, **rules.trust)
        )
        response = stack.enter_context(pool.urlopen("GET", url.request_uri, preload_content=False, redirect=False))
        if response.status not in REDIRECTS:
            return response
        response.close()
        uri = _next_of(rules, uri, response.headers.get("location", ""))
    raise Failure(
        Reason.INVALID_SPEC, f"{_shown(uri)} redirects more than {REDIRECT_LIMIT} times; name the last address"
    )


def _next_of(rules: _Rules, uri: str, location: str) -> str:
    """Return the target of a redirect.

    Raises:
        Failure: it is not allowed.
    """
    try:
        found = urldefrag(urljoin(uri, location)).url
    except ValueError:
        found = location
    if not found.startswith("https://"):
        problem = "is reached by a redirect and is not https://; name a URI that stays on https://"
        raise Failure(Reason.INVALID_SPEC, f"{_shown(found)} {problem}")
    if problem := explain_unreadable(found) or "":
        raise Failure(Reason.INVALID_SPEC, f"{_shown(found)} is reached by a redirect and {problem}")
    if problem := explain_outside(found, rules.sources) or "":
        raise Failure(Reason.SOURCE_NOT_ALLOWED, f"{_shown(found)} is reached by a redirect and {problem}")
    return found


def _shown(uri: str) -> str:
    return clean(public_uri(uri), SHOWN_LIMIT)
