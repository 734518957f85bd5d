"""Checks the treespecs of an archive, which describe how inputs and outputs are packed in tuples and dicts.

A program here has flat inputs and outputs, so treespecs are not used. One that makes torch import enums or default
factories was not written for a network, and is refused rather than ignored.
"""

import json
from typing import Any

from modelexport import untrusted
from modelexport_converter.programs.errors import shown, unreadable, unsafe
from modelexport_converter.programs.json_fields import NAME_LIMIT, Json, check, take, take_objects

LIMIT = 4 << 20
"""Characters of a treespec."""
_FACTORIES = frozenset(("bool", "dict", "float", "int", "list", "set", "str", "tuple"))


def check_specs(graph_module: Json) -> None:
    """Check every treespec of a program.

    Raises:
        Failure: ``CheckpointUnsafe``: torch would import a name in it; ``CheckpointUnreadable``: it is no treespec.
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
        raise unreadable("a treespec is not JSON") from error
    if type(content) is not list or len(content) != 2:
        raise unreadable("a treespec is not a pair of a version and a tree")
    waiting = [content[1]]
    while waiting:  # without recursion: a tree may be as deep as JSON allows
        node = check(waiting.pop(), dict, "a node of a treespec")
        kind, context = node.get("type"), node.get("context")
        if not _is_plain(kind, context):
            raise unsafe(f"treespecs that are not accepted: {shown(kind)} of {shown(context)}")
        waiting += check(node.get("children_spec"), list, "children of a treespec")


def _is_plain(kind: Any, context: Any) -> bool:
    """Return whether a context is empty, or text of keys that are numbers, names, or tuples of these."""
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
