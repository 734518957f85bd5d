"""Looks at the treespecs of an archive, which say how inputs and outputs are packed in tuples and dicts.

A program here takes and gives tensors in a row, so nothing is made of a treespec. One that asks torch to import enums
or factories of defaults was not written for a network, and is refused rather than passed over.
"""

import json
from collections.abc import Iterator
from typing import Any

from modelexport import untrusted
from modelexport_converter.programs.fields import NAME_LIMIT, Json, check, take, take_objects
from modelexport_converter.programs.refusals import shown, unreadable, unsafe

LIMIT = 4 << 20
"""Characters of a treespec."""
_FACTORIES = frozenset(("bool", "dict", "float", "int", "list", "set", "str", "tuple"))


def check_specs(graph_module: Json) -> None:
    """Look at every treespec of a program.

    Raises:
        Failure: ``CheckpointUnsafe``: one names what torch would import; ``CheckpointUnreadable``: it is no treespec.
    """
    for entry in take_objects(graph_module, "module_call_graph", "the program"):
        signature = entry.get("signature")
        if signature is not None:
            for kind in ("in_spec", "out_spec"):
                _check(take(check(signature, dict, kind), kind, str, "a treespec"))


def _check(text: str) -> None:
    try:
        content = untrusted.parse(text) if len(text) <= LIMIT else None
    except ValueError as error:
        raise unreadable("a treespec is no JSON") from error
    if type(content) is not list or len(content) != 2:
        raise unreadable("a treespec is no pair of a version and a tree")
    for kind, context in _nodes(content[1]):
        if not _is_plain(kind, context):
            raise unsafe(f"treespecs that are not accepted: {shown(kind)} of {shown(context)}")


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """The type and the context of every node of a tree, which may be as deep as JSON is."""
    waiting = [tree]
    while waiting:
        node = check(waiting.pop(), dict, "a node of a treespec")
        yield node.get("type"), node.get("context")
        waiting += check(node.get("children_spec"), list, "children of a treespec")


def _is_plain(kind: Any, context: Any) -> bool:
    """Whether a context is nothing, or text of keys that are numbers, names, or tuples of these."""
    if not isinstance(kind, str | None) or len(kind or "") > NAME_LIMIT:
        return False
    if kind == "collections.defaultdict" and isinstance(context, dict):
        place, factory = (context.get(f"default_factory_{part}") for part in ("module", "name"))
        return factory is None or (place == "builtins" and factory in _FACTORIES)
    if not isinstance(context, str | None):
        return False
    try:
        json.loads(context or "null", object_hook=_refuse_object)
    except (RecursionError, ValueError):
        return False
    return True


def _refuse_object(content: Any) -> Any:
    raise ValueError("an object among keys")
