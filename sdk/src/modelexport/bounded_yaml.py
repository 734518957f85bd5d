"""Reads untrusted YAML as plain JSON data within limits of size, depth and alias expansion.

``yaml.SafeLoader`` creates no objects, but it expands aliases without limit, recurses as deep as the text nests, lets
the last of two equal keys win, and reads dates, sets and bytes, which no Kubernetes object can hold.
"""

import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import yaml

DEPTH_LIMIT = 64
EXPANDED_LIMIT = 4 << 20
"""Maximum characters and nodes of a document after alias expansion: four times the size limit of a file."""
DOCUMENTS_LIMIT = 1000
NODES_LIMIT = 20_000
"""Maximum keys and values of a file: about 500 exports, which take two seconds to read."""
NUMBER_LIMIT = 64
"""Maximum characters of a number; the time to read one grows with the square of its length."""
INTEGER_LIMIT = 1 << 63

_PREFIX = "tag:yaml.org,2002:"
_MERGE = f"{_PREFIX}merge"
_PLAIN = {f"{_PREFIX}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_JSON = (f"{_PREFIX}timestamp", f"{_PREFIX}value")


class NotPlain(ValueError):  # noqa: N818 - named for the cause
    """A text is not YAML, or exceeds a limit; ``str()`` has the position, the cause and the remedy."""


def load_documents(text: str) -> list[Any]:
    """Return every document of a text, ``None`` for an empty one.

    Raises:
        NotPlain: the text is not YAML, is not plain data, or exceeds a limit.
    """
    try:
        return list(_load(text))
    except _Rejection as error:
        raise NotPlain(_place(str(error.problem), error.problem_mark)) from error
    except yaml.MarkedYAMLError as error:
        words = " ".join(filter(None, (error.context, error.problem))).partition(";")[0]
        way_out = "indent with spaces" if "'\\t'" in words else "correct it there"
        raise NotPlain(_place(f"{words}; {way_out}", error.problem_mark or error.context_mark)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        problem = f"line {line}, column {column}: the character U+{ord(text[error.position]):04X} is not allowed"
        raise NotPlain(f"{problem}; remove it") from error


def _load(text: str) -> Iterator[Any]:
    loader = _Loader(text)
    try:
        for _ in range(DOCUMENTS_LIMIT):
            if not loader.check_data():  # type: ignore[no-untyped-call]
                return
            yield loader.get_data()
        if loader.check_data():  # type: ignore[no-untyped-call]
            raise NotPlain(f"has more than {DOCUMENTS_LIMIT} documents; split it into several files")
    finally:
        loader.dispose()


def _place(words: str, mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}" if mark else words


class _Rejection(yaml.MarkedYAMLError):
    """Valid YAML that is rejected; ``problem`` names the remedy."""


class _Loader(yaml.SafeLoader):
    """Loader that checks every node when it is composed, before values are constructed."""

    # Dates stay strings, as in JSON, and so does a lone "=".
    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_JSON]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_document(self) -> yaml.Node | None:
        self._sizes.clear()
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth >= DEPTH_LIMIT:
            raise _reject(f"nested deeper than {DEPTH_LIMIT} levels; write it flatter", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._measure(node, mark)
        return node

    def _measure(self, node: yaml.Node, mark: yaml.Mark) -> None:
        if node not in self._sizes:
            if node.start_mark.index < mark.index:
                raise _reject("an alias is inside the node that it refers to; write the value out", mark)
            _check_node(node)
            self._count += 1
            parts = [node.value] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                parts = chain.from_iterable(node.value)
            self._sizes[node] = 1 + sum(len(part) if isinstance(part, str) else self._sizes[part] for part in parts)
        if self._count > NODES_LIMIT:
            raise _reject(f"more than {NODES_LIMIT:,} keys and values; split the file", mark)
        if self._sizes[node] > EXPANDED_LIMIT:
            raise _reject(f"more than {EXPANDED_LIMIT:,} characters with its aliases expanded; shorten it", mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        if kind in ("int", "float") and len(node.value) > NUMBER_LIMIT:
            raise _reject(f"a number of {len(node.value)} characters; quote it to make it a string", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError) as error:
            raise _reject(
                f"{node.value[:40]!r} is not a valid {kind}; quote it to make it a string", node.start_mark
            ) from error
        is_large = isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT
        if is_large or (isinstance(value, float) and not math.isfinite(value)):
            problem = f"{node.value!r} does not fit into JSON or 64 bits; quote it to make it a string"
            raise _reject(problem, node.start_mark)
        return value


def _check_node(node: yaml.Node) -> None:
    """Reject tags and strings that JSON does not have, and keys that are duplicated or not strings."""
    if node.tag not in _PLAIN and not (node.tag == _MERGE and isinstance(node, yaml.ScalarNode)):
        shown = node.tag[:60].replace(_PREFIX, "!!")
        raise _reject(f"the tag {shown!r} is not allowed in a Kubernetes object; remove it", node.start_mark)
    if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
        raise _reject("an escaped surrogate; write the character itself", node.start_mark)
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise _reject("a key must be a string", key.start_mark)
        if key.value in seen:
            raise _reject(f"the key {key.value[:60]!r} is duplicated; remove one", key.start_mark)
        seen.add(key.value)


def _reject(problem: str, mark: yaml.Mark) -> _Rejection:
    return _Rejection(problem=problem, problem_mark=mark)
