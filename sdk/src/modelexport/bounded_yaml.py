"""Reads YAML of strangers as the plain data of JSON, bounded: what expands, nests, repeats or is no JSON is refused.

``yaml.SafeLoader`` makes no objects, yet it follows aliases as far as they multiply, recurses as deep as a text nests,
lets the last of two equal keys win, and reads dates, sets and bytes, which no Kubernetes object can hold.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

DEPTH_LIMIT = 64
EXPANDED_LIMIT = 4 << 20
"""Characters and nodes of a document when every alias is written out: four times what a whole file may have."""
DOCUMENTS_LIMIT = 1000
NODES_LIMIT = 20_000
"""Keys and values of a text; about 500 exports, which take two seconds to read."""
NUMBER_LIMIT = 64
"""Characters of a number; the time to read one grows with their square."""
INTEGER_LIMIT = 1 << 63

_PREFIX = "tag:yaml.org,2002:"
_MERGE = f"{_PREFIX}merge"
_PLAIN = {f"{_PREFIX}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_JSON = (f"{_PREFIX}timestamp", f"{_PREFIX}value")


class NotPlain(ValueError):  # noqa: N818 - it names what is the case
    """A text is no YAML that can be read; ``str()`` says where, why, and the way out."""


def load_documents(text: str) -> list[Any]:
    """Return every document of a text, ``None`` for an empty one.

    Raises:
        NotPlain: the text is no YAML, or more than plain and bounded data.
    """
    try:
        return list(_load(text))
    except _Refusal as error:
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
            raise NotPlain(f"holds more than {DOCUMENTS_LIMIT} documents; write several files")
    finally:
        loader.dispose()


def _place(words: str, mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}" if mark else words


class _Refusal(yaml.MarkedYAMLError):
    """What is YAML and is not read; its problem names the way out."""


class _Loader(yaml.SafeLoader):
    """Checks every node when it is composed, before anything is made of it."""

    # Dates stay the texts that JSON has for them, and so does a lone "=".
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
            raise _refuse(f"nested deeper than {DEPTH_LIMIT} levels; write it flatter", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._measure(node, mark)
        return node

    def _measure(self, node: yaml.Node, mark: yaml.Mark) -> None:
        if node not in self._sizes:
            if node.start_mark.index < mark.index:
                raise _refuse("an alias stands within what it names; write it out", mark)
            _check_tag(node)
            _check_text(node)
            _check_keys(node)
            self._count += 1
            self._sizes[node] = 1 + sum(map(self._size_of, _parts(node)))
        if self._count > NODES_LIMIT:
            raise _refuse(f"more than {NODES_LIMIT:,} keys and values; write several files", mark)
        if self._sizes[node] > EXPANDED_LIMIT:
            raise _refuse(f"more than {EXPANDED_LIMIT:,} characters with its aliases; write less", mark)

    def _size_of(self, part: yaml.Node | str) -> int:
        return len(part) if isinstance(part, str) else self._sizes[part]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        if kind in ("int", "float") and len(node.value) > NUMBER_LIMIT:
            raise _refuse(f"a number of {len(node.value)} characters; write it as text, in quotes", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError) as error:
            raise _refuse(f"{node.value[:40]!r} is no {kind}; write it as text, in quotes", node.start_mark) from error
        is_large = isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT
        if is_large or (isinstance(value, float) and not math.isfinite(value)):
            problem = f"{node.value!r} is no number that JSON or 64 bits can hold; write it as text, in quotes"
            raise _refuse(problem, node.start_mark)
        return value


def _parts(node: yaml.Node) -> Iterator[yaml.Node | str]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    else:
        yield from [node.value] if isinstance(node, yaml.ScalarNode) else node.value


def _check_tag(node: yaml.Node) -> None:
    if node.tag not in _PLAIN and not (node.tag == _MERGE and isinstance(node, yaml.ScalarNode)):
        shown = node.tag[:60].replace(_PREFIX, "!!")
        raise _refuse(f"the tag {shown!r} has no place in a Kubernetes object; remove it", node.start_mark)


def _check_text(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
        raise _refuse("an escaped half of a character; write the character itself", node.start_mark)


def _check_keys(node: yaml.Node) -> None:
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise _refuse("a key has to be a text; write one", key.start_mark)
        if key.value in seen:
            raise _refuse(f"the key {key.value[:60]!r} is there twice; remove one", key.start_mark)
        seen.add(key.value)


def _refuse(problem: str, mark: yaml.Mark) -> _Refusal:
    return _Refusal(problem=problem, problem_mark=mark)
