"""The pages of a list and the events of a watch, read from their bytes in bounded memory.

Whoever may make a Pod decides how long the line is that tells of it, and one that a reader cannot take would be the end
of a watch for all namespaces. So a line is read to its end, whatever its length; of one that is longer than an object
can be only the beginning is kept, which says which object it was. A page of one object is skipped in the same way.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelexport_operator.encoding import decode

Object = Mapping[str, Any]

OBJECT_LIMIT = 18 << 20
"""Bytes of a line that are kept. The API server takes 3 MiB (MaxRequestBodyBytes of kubernetes,
staging/src/k8s.io/apiserver/pkg/server/config.go), etcd half of that unless told otherwise (--max-request-bytes), and
JSON may spell a byte in six, such as ``\\u003c``."""
HEAD = 4096
CHANGES = ("ADDED", "MODIFIED", "DELETED")
BOOKMARK, ERROR = "BOOKMARK", "ERROR"

_KIND = rb'"kind":"\w+","apiVersion":"[\w./-]+",'
_METADATA = (
    rb'"metadata":\{"name":"(?P<name>[^"\\]+)",(?:"generateName":"[^"\\]*",)?'
    rb'(?:"namespace":"(?P<namespace>[^"\\]+)",)?(?:"uid":"[^"\\]*",)?"resourceVersion":"(?P<version>[0-9]{1,19})"'
)
_UNREAD = re.compile(rb'\{"type":"[A-Z]+","object":\{' + _KIND + _METADATA)
"""How the API server begins the line of a Pod, a Job or a Node (the order of the fields of ObjectMeta in kubernetes,
staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go); the server alone chooses what stands before the version."""
_UNREAD_PAGE = re.compile(
    rb"\{" + _KIND + rb'"metadata":\{"resourceVersion":"(?P<listed>[0-9]{1,19})"(?:,"continue":"(?P<token>[^"\\]*)")?'
    rb'(?:,"remainingItemCount":[0-9]+)?\},"items":\[\{(?:' + _KIND + rb")?" + _METADATA
)
"""How it begins a page: the order of the fields of ListMeta, in the same file."""


@dataclass(frozen=True)
class Line:
    """A line without its end; of one that is not whole only the beginning."""

    content: bytes
    is_whole: bool = True


class LineReader:
    """Puts lines together from whatever pieces they come in."""

    def __init__(self, limit: int = OBJECT_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._is_whole = True

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Take a piece and return the lines that end in it."""
        *ends, rest = piece.split(b"\n")
        for end in ends:
            self._add(end)
            line = Line(bytes(self._kept), self._is_whole)
            self._kept, self._is_whole = bytearray(), True
            if line.content:
                yield line
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        if self._is_whole and len(self._kept) + len(piece) > self._limit:
            self._kept, self._is_whole = self._kept[:HEAD] + piece[:HEAD], False
        elif self._is_whole:
            self._kept += piece


@dataclass(frozen=True)
class Page:
    """A part of a list.

    ``version`` is that of the whole list, ``token`` asks for the next part (empty: this is the last one), and
    ``left_out`` names an object that cannot be read, as an ``UnreadableError`` does.
    """

    version: str
    items: Sequence[Object] = ()
    token: str = ""
    left_out: Object | None = None


class UnreadableError(Exception):
    """One object cannot be read, and the stream goes on; ``stub`` says which it is, as far as that is known."""

    def __init__(self, problem: str, stub: Object | None) -> None:
        super().__init__(problem)
        self.stub = stub


async def read_lines(pieces: AsyncIterator[bytes], limit: int = OBJECT_LIMIT) -> AsyncIterator[Line]:
    """Return the lines of a stream. Half a line at its end is none: whoever resumes is told of the object again."""
    reader = LineReader(limit)
    async for piece in pieces:
        for line in reader.feed(piece):
            yield line


def parse_event(line: Line) -> tuple[str, Object]:
    """Return what kind of event a line tells, and its object, of which name, namespace and version are right.

    Raises:
        UnreadableError: the object is too large, or nested too deeply.
        ValueError: the line is no event: something between here and the API server has changed the stream.
    """
    if not line.is_whole:
        raise UnreadableError("is larger than what is read", _stub_of(line))
    try:
        event = decode(line.content)
    except RecursionError as error:
        raise UnreadableError("is nested too deeply", _stub_of(line)) from error
    kind, body = (event.get("type"), event.get("object")) if isinstance(event, Mapping) else (None, None)
    if not isinstance(body, Mapping) or kind not in (*CHANGES, BOOKMARK, ERROR):
        raise ValueError("a line is no event")
    if kind != ERROR and not is_object(body, is_named=kind != BOOKMARK):
        raise ValueError(f"the object of an event {kind} has no name or no version")
    return str(kind), body


def parse_page(answer: Object) -> Page:
    """Return the page of a list that an answer is.

    Raises:
        ValueError: it is none: something between here and the API server has changed it.
    """
    metadata, items = answer.get("metadata") or {}, answer.get("items") or ()
    if not isinstance(metadata, Mapping) or not isinstance(items, Sequence):
        raise ValueError("the answer is no list")
    version, token = (metadata.get(key) or "" for key in ("resourceVersion", "continue"))
    if not isinstance(version, str) or not isinstance(token, str):
        raise ValueError("the list has no version")
    if not all(isinstance(item, Mapping) and isinstance(item.get("metadata"), Mapping) for item in items):
        raise ValueError("an item of the list is no object")
    return Page(version, items, token)


def skip_page(head: bytes) -> Page | None:
    """Return a page of one object that cannot be read, from its beginning; ``None`` if that does not tell enough."""
    found = _UNREAD_PAGE.match(head)
    if found is None:
        return None
    return Page(found["listed"].decode(), token=(found["token"] or b"").decode(), left_out=_stub(found))


def is_object(body: Object, *, is_named: bool = True) -> bool:
    """Whether name, namespace and version of an object can be relied on."""
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return False
    version, words = metadata.get("resourceVersion"), (metadata.get("name"), metadata.get("namespace", ""))
    is_versioned = isinstance(version, str) and re.fullmatch("[0-9]{1,19}", version) is not None
    return is_versioned and (not is_named or all(isinstance(word, str) for word in words))


def _stub_of(line: Line) -> Object | None:
    found = _UNREAD.match(line.content)
    return _stub(found) if found else None


def _stub(found: re.Match[bytes]) -> Object:
    name, namespace, version = (found[key].decode() if found[key] else "" for key in ("name", "namespace", "version"))
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": version}}
