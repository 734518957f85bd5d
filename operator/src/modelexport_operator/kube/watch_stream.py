"""Reads the pages of a list and the events of a watch in limited memory.

Anyone who may create a Pod decides how long its line in the watch is, and a line that the reader cannot take would end
a watch for all namespaces. So a line is read to its end, whatever its length; if it is longer than any object can be,
only its head is kept, which identifies the object. A page with one such object is skipped in the same way.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from modelexport_operator.kube.encoding import decode
from modelexport_operator.kube.objects import JsonObject, KubeObject

OBJECT_LIMIT = 18 << 20
"""Bytes of a line that are kept. The API server accepts 3 MiB (MaxRequestBodyBytes of kubernetes,
staging/src/k8s.io/apiserver/pkg/server/config.go), etcd half of that by default (--max-request-bytes), and JSON may
spell a byte in six, such as ``\\u003c``."""
HEAD = 4096
CHANGES = ("ADDED", "MODIFIED", "DELETED")
BOOKMARK, ERROR = "BOOKMARK", "ERROR"

_KIND = rb'"kind":"\w+","apiVersion":"[\w./-]+",'
_METADATA = (
    rb'"metadata":\{"name":"(?P<name>[^"\\]+)",(?:"generateName":"[^"\\]*",)?'
    rb'(?:"namespace":"(?P<namespace>[^"\\]+)",)?(?:"uid":"[^"\\]*",)?"resourceVersion":"(?P<version>[0-9]{1,19})"'
)
_EVENT_HEAD = re.compile(rb'\{"type":"[A-Z]+","object":\{' + _KIND + _METADATA)
"""The head of a line for a Pod, a Job or a Node (the field order of ObjectMeta in kubernetes,
staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go); only the server chooses what precedes the version."""
_VERSION = re.compile("[0-9]{1,19}")
_PAGE_HEAD = re.compile(
    rb"\{" + _KIND + rb'"metadata":\{"resourceVersion":"(?P<listed>[0-9]{1,19})"(?:,"continue":"(?P<token>[^"\\]*)")?'
    rb'(?:,"remainingItemCount":[0-9]+)?\},"items":\[\{(?:' + _KIND + rb")?" + _METADATA
)
"""The head of a page: the field order of ListMeta, in the same file."""


@dataclass(frozen=True)
class Line:
    """A line without its end; if ``is_whole`` is false, only its head."""

    content: bytes
    is_whole: bool = True


class LineReader:
    """Assembles lines from pieces of any size."""

    def __init__(self, limit: int = OBJECT_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._is_whole = True

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Add a piece and yield the lines that end in it."""
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

    Attributes:
        version: the version of the whole list.
        items: the objects of this part.
        token: requests the next part; empty for the last one.
        skipped: name and version of an object that cannot be read.
    """

    version: str
    items: Sequence[KubeObject] = ()
    token: str = ""
    skipped: KubeObject | None = None


class UnreadableError(Exception):
    """One object cannot be read, and the stream continues; ``stub`` identifies the object, if possible."""

    def __init__(self, problem: str, stub: KubeObject | None) -> None:
        super().__init__(problem)
        self.stub = stub


class WatchEndedError(Exception):
    """The server reports that the watch cannot go on; ``status`` is its explanation, unchecked."""

    def __init__(self, status: JsonObject) -> None:
        super().__init__("the server has ended the watch")
        self.status = status


async def read_lines(pieces: AsyncIterator[bytes], limit: int = OBJECT_LIMIT) -> AsyncIterator[Iterator[Line]]:
    """Yield the lines of a stream, those that end in one piece together.

    A partial line at its end is dropped: a resumed watch sends the object again.
    """
    reader = LineReader(limit)
    async for piece in pieces:
        yield reader.feed(piece)


def parse_event(line: Line, decode_event: Callable[[bytes], object] = decode) -> tuple[str, KubeObject]:
    """Return the type and the object of a watch event; name, namespace and version of the object are valid.

    Args:
        line: of the stream of a watch.
        decode_event: decodes it, and may leave out fields of the object that nobody reads.

    Raises:
        UnreadableError: the object is too large or too deeply nested.
        WatchEndedError: the event is an error.
        ValueError: the line is not an event: something between here and the API server has changed the stream.
    """
    if not line.is_whole:
        raise UnreadableError("exceeds the size limit", _stub_of(line))
    try:
        event = decode_event(line.content)
    except RecursionError as error:
        raise UnreadableError("is nested too deeply", _stub_of(line)) from error
    kind, body = (event.get("type"), event.get("object")) if isinstance(event, Mapping) else (None, None)
    if not isinstance(body, Mapping) or kind not in (*CHANGES, BOOKMARK, ERROR):
        raise ValueError("a line is not a watch event")
    if kind == ERROR:
        raise WatchEndedError(body)
    if not is_object(body, is_named=kind != BOOKMARK):
        raise ValueError(f"the object of an event {kind} has no name or no version")
    return str(kind), body


def parse_page(answer: JsonObject) -> Page:
    """Parse a response as a page of a list.

    Raises:
        ValueError: it is none: something between here and the API server has changed it.
    """
    metadata, items = answer.get("metadata") or {}, answer.get("items") or ()
    if not isinstance(metadata, Mapping) or not isinstance(items, Sequence):
        raise ValueError("the response is not a list")
    version, token = (metadata.get(key) or "" for key in ("resourceVersion", "continue"))
    if not isinstance(version, str) or not isinstance(token, str):
        raise ValueError("the list has no version")
    if not all(isinstance(item, Mapping) and isinstance(item.get("metadata"), Mapping) for item in items):
        raise ValueError("an item of the list is not an object")
    return Page(version, items, token)


def skip_page(head: bytes) -> Page | None:
    """Return a page with one unreadable object from its head, or ``None`` if the head does not identify it."""
    found = _PAGE_HEAD.match(head)
    if found is None:
        return None
    return Page(found["listed"].decode(), token=(found["token"] or b"").decode(), skipped=_stub(found))


def is_object(body: JsonObject, *, is_named: bool = True) -> TypeGuard[KubeObject]:
    """Return whether an object has a valid name, namespace and version."""
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return False
    version, words = metadata.get("resourceVersion"), (metadata.get("name"), metadata.get("namespace", ""))
    is_versioned = isinstance(version, str) and _VERSION.fullmatch(version) is not None
    return is_versioned and (not is_named or all(isinstance(word, str) for word in words))


def _stub_of(line: Line) -> KubeObject | None:
    found = _EVENT_HEAD.match(line.content)
    return _stub(found) if found else None


def _stub(found: re.Match[bytes]) -> KubeObject:
    name, namespace, version = (found[key].decode() if found[key] else "" for key in ("name", "namespace", "version"))
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": version}}
