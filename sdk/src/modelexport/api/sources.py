"""Checks of source URIs: their form, and whether they lie in the folders that an export may read.

A folder is a URI that ends with a slash. Servers differ in how they resolve ``..``, empty path segments and encodings
of either, so a URI with one of them lies in no folder.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from modelexport.text import is_clean

PLACEHOLDER = "{namespace}"
"""Stands for the namespace of the export in a class's prefix and sources."""

_HARMFUL = re.compile(r"[\\\x00-\x1f\x7f\ufffd]")
"""Backslashes (a second way to write a slash), control characters, and the replacement of invalid UTF-8."""

PORT_LIMIT = 65535

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_AUTHORITY = re.compile(
    rf"(?P<host>\[[0-9A-Fa-f:.]+\]|(?=.{{1,253}}(:|$)){_LABEL}([.]{_LABEL})*)(:(?P<port>[0-9]{{1,5}}))?"
)
_NUMERIC = re.compile(r"[0-9]+([.][0-9]+){3}")
_ENDS_IN_NUMBER = re.compile(r"(^|[.])([0-9]+|0[xX][0-9A-Fa-f]*)$")
"""Hosts that many programs read as an IPv4 address: 127.1, 0x7f.1, 2130706433 (WHATWG URL, 3.5)."""


def expand(template: str, namespace: str) -> str:
    """Replace the placeholder by a namespace; a Kubernetes name can neither contain a slash nor be ``..``."""
    return template.replace(PLACEHOLDER, namespace)


def is_plain(uri: str) -> bool:
    """Return whether all programs resolve a path alike: no ``.``, ``..`` or empty segment, in any encoding."""
    return not {"", ".", ".."} & _parts(uri)


def _parts(uri: str) -> set[str]:
    """Return the segments of a path, decoded until nothing changes; ``..`` is added if a character is harmful."""
    path = uri.partition("://")[2]
    if uri.startswith("https://"):
        path = re.split("[?#]", path, maxsplit=1)[0]
    while (decoded := unquote(path)) != path:
        path = decoded
    *folders, last = path.split("/")[1:] or [""]
    # Some servers read the text after a semicolon as parameters of the segment.
    parts = {part.partition(";")[0] for part in (*folders, *([last] if last else []))}
    return parts | {".."} if _HARMFUL.search(path) or not is_clean(path) else parts


def explain_unreadable(uri: str) -> str | None:
    """Return why a URI is ambiguous, that is, why programs may read it differently; ``None`` if it is not.

    Args:
        uri: a URI of a supported scheme.
    """
    if not is_clean(uri):
        return "contains an invisible character; retype it"
    if uri.startswith("https://"):
        authority = re.split(r"[/?#\\]", uri.removeprefix("https://"), maxsplit=1)[0]
        found = _AUTHORITY.fullmatch(authority)
        host, port = (found["host"], found["port"]) if found else ("", None)
        is_valid = found is not None and (not port or 1 <= int(port) <= PORT_LIMIT)
        problems = {
            "contains credentials, which would be public; use s3://bucket/key, or a signed link": ("@" in authority),
            "has a host with letters beyond ASCII; write it as DNS does (xn--…)": not authority.isascii(),
            "has an invalid host or port; correct it, for example https://models.example:8443/best.pt": not is_valid,
            "has a malformed IP address; write four decimal numbers, or a host name": not _is_host(host),
            "contains a space or a backslash; write %20, or a slash": bool(re.search(r"[\s\\]", uri)),
            "has a fragment, which clients do not send; remove it, or write %23 for a # in the name": "#" in uri,
            "has a '.', a '..' or a control character in its path, or an encoding of one; write the path without": (
                bool({".", ".."} & _parts(uri))
            ),
        }
        return next((problem for problem, is_so in problems.items() if is_so), None)
    bucket = uri.removeprefix("s3://").partition("/")[0] if uri.startswith("s3://") else ""
    if ".." in bucket or ".-" in bucket or "-." in bucket or _NUMERIC.fullmatch(bucket):
        return "has an invalid S3 bucket; correct the part after s3://"
    path = uri.partition("://")[2]
    # If no local file has the name as written, the decoded name is tried.
    if {".", ".."} & {*path.split("/"), *(unquote(path).split("/") if uri.startswith("file://") else ())}:
        return "has a '.' or a '..' in its path; write the path without"
    return None


def _is_host(host: str) -> bool:
    """Return whether all programs agree if a host is an IP address."""
    if not host.startswith("[") and not _ENDS_IN_NUMBER.search(host):
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def explain_outside(uri: str, folders: Sequence[str]) -> str | None:
    """Return why a URI is not allowed; ``None`` if it lies in one of the folders, or if there are none."""
    if not folders:
        return None
    if not any(uri.startswith(folder) for folder in folders):
        return f"is not within {' or '.join(folders)}; move the file there"
    if not is_plain(uri):
        return "has a '.', a '..' or an empty part in its path, or an encoding of one; write the path without"
    return None


def public_uri(uri: str) -> str:
    """Return a URI without the credentials and the query of a web address, safe to show."""
    if not uri.startswith(("http://", "https://")):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return f"{uri.partition('://')[0]}://…"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
