"""From which folders an export may read, and whether a URI lies within them. Pure.

A folder is a URI that ends with a slash. What a server makes of ``..``, of an empty part of a path or of an encoding of
them is its own affair, so no URI with one lies within anything.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

PLACEHOLDER = "{namespace}"
"""Stands for the namespace of the export in a class's prefix and sources."""

_HARMFUL = re.compile(r"[\\\x00-\x1f\x7f\ufffd]")
"""A second way to write a slash, what cuts a text off, and what is left of bytes that are no UTF-8."""


def expand(template: str, namespace: str) -> str:
    """Put a namespace in the place of the placeholder; a name of Kubernetes can neither hold a slash nor be ``..``."""
    return template.replace(PLACEHOLDER, namespace)


def is_plain(uri: str) -> bool:
    """Whether the path of a URI means the same to everybody: no ``.``, ``..`` or empty part, however it is encoded."""
    path = uri.partition("://")[2]
    if uri.startswith("https://"):
        path = re.split("[?#]", path, maxsplit=1)[0]
    while (decoded := unquote(path)) != path:
        path = decoded
    *folders, last = path.split("/")[1:] or [""]
    # Some servers take what follows a semicolon for parameters of that part of the path.
    parts = [part.partition(";")[0] for part in (*folders, *([last] if last else []))]
    return not _HARMFUL.search(path) and not {"", ".", ".."} & set(parts)


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
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
