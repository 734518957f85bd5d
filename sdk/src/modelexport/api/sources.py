"""From which folders an export may read, and whether a URI lies within them. Pure.

A folder is a URI that ends with a slash. What a server makes of ``..``, of an empty part of a path or of an encoding of
them is its own affair, so no URI with one lies within anything.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from modelexport.text import is_clean

PLACEHOLDER = "{namespace}"
"""Stands for the namespace of the export in a class's prefix and sources."""

_HARMFUL = re.compile(r"[\\\x00-\x1f\x7f\ufffd]")
"""A second way to write a slash, what cuts a text off, and what is left of bytes that are no UTF-8."""

PORT_LIMIT = 65535

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_AUTHORITY = re.compile(
    rf"(?P<host>\[[0-9A-Fa-f:.]+\]|(?=.{{1,253}}(:|$)){_LABEL}([.]{_LABEL})*)(:(?P<port>[0-9]{{1,5}}))?"
)
_NUMERIC = re.compile(r"[0-9]+([.][0-9]+){3}")
_ENDS_IN_NUMBER = re.compile(r"(^|[.])([0-9]+|0[xX][0-9A-Fa-f]*)$")
"""Hosts that many programs take for an IPv4 address in other words: 127.1, 0x7f.1, 2130706433 (WHATWG URL, 3.5)."""


def expand(template: str, namespace: str) -> str:
    """Put a namespace in the place of the placeholder; a name of Kubernetes can neither hold a slash nor be ``..``."""
    return template.replace(PLACEHOLDER, namespace)


def is_plain(uri: str) -> bool:
    """Whether the path of a URI means the same to everybody: no ``.``, ``..`` or empty part, however it is encoded."""
    return not {"", ".", ".."} & _parts(uri)


def _parts(uri: str) -> set[str]:
    """The parts of a path, decoded as often as anybody may do it; ``..`` too where a character is harmful."""
    path = uri.partition("://")[2]
    if uri.startswith("https://"):
        path = re.split("[?#]", path, maxsplit=1)[0]
    while (decoded := unquote(path)) != path:
        path = decoded
    *folders, last = path.split("/")[1:] or [""]
    # Some servers take what follows a semicolon for parameters of that part of the path.
    parts = {part.partition(";")[0] for part in (*folders, *([last] if last else []))}
    return parts | {".."} if _HARMFUL.search(path) or not is_clean(path) else parts


def explain_unreadable(uri: str) -> str | None:
    """Say why a URI is read by nobody, because programs differ in what it means; ``None`` when it is plain enough.

    Args:
        uri: of a scheme that is read.
    """
    if not is_clean(uri):
        return "holds a character that cannot be seen; type it anew"
    if uri.startswith("https://"):
        return _explain_web(uri)
    bucket = uri.removeprefix("s3://").partition("/")[0] if uri.startswith("s3://") else ""
    if ".." in bucket or ".-" in bucket or "-." in bucket or _NUMERIC.fullmatch(bucket):
        return "names no S3 bucket; correct the part behind s3://"
    path = uri.partition("://")[2]
    # What has no file of its name on this machine is looked for decoded.
    if {".", ".."} & {*path.split("/"), *(unquote(path).split("/") if uri.startswith("file://") else ())}:
        return "has a '.' or a '..' in its path; write the path without"
    return None


def _explain_web(uri: str) -> str | None:
    authority = re.split(r"[/?#\\]", uri.removeprefix("https://"), maxsplit=1)[0]
    problems = {
        "carries credentials, which everybody could read; use s3://bucket/key, or a link with a signature": (
            "@" in authority
        ),
        "has a host with letters beyond ASCII; write it as DNS does (xn--…)": not authority.isascii(),
        "names no host and port, for example https://models.example:8443/best.pt; correct it": (
            not _is_authority(authority)
        ),
        "has a host that is nearly an address; write four decimal numbers, or a name": not _is_host(authority),
        "holds a space or a backslash; write %20, or a slash": bool(re.search(r"[\s\\]", uri)),
        "has a fragment, which no server is sent; remove it, or write %23 where the name has a #": "#" in uri,
        "has a '.', a '..' or a control character in its path, or an encoding of one; write the path without": (
            bool({".", ".."} & _parts(uri))
        ),
    }
    return next((problem for problem, found in problems.items() if found), None)


def _is_authority(authority: str) -> bool:
    found = _AUTHORITY.fullmatch(authority)
    return found is not None and (not found["port"] or 1 <= int(found["port"]) <= PORT_LIMIT)


def _is_host(authority: str) -> bool:
    """Whether a host is an address to everybody, or to nobody."""
    found = _AUTHORITY.fullmatch(authority)
    host = found["host"] if found else ""
    if not host.startswith("[") and not _ENDS_IN_NUMBER.search(host):
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def explain_outside(uri: str, folders: Sequence[str]) -> str | None:
    """Say why a URI must not be read; ``None`` when it lies within one of the folders, or when there are none."""
    if not folders:
        return None
    if not any(uri.startswith(folder) for folder in folders):
        return f"is not within {' or '.join(folders)}; put the file there"
    if not is_plain(uri):
        return "has a '.', a '..' or an empty part in its path, or an encoding of one; write the path without"
    return None


def public_uri(uri: str) -> str:
    """Return a URI as it may be shown: without the credentials and the query of a web address."""
    if not uri.startswith(("http://", "https://")):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return f"{uri.partition('://')[0]}://…"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
