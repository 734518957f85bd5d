"""Decodes watch events of Jobs and Pods without the fields that nobody reads. Pure.

An event carries the whole object, 8 KB of which the operator reads a tenth. Decoding everything was the largest single
cost of a Job; msgspec skips what its type does not name, in a third of the time.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict

import msgspec

from modelexport_operator.kube.encoding import decode
from modelexport_operator.kube.pruning import Shape
from modelexport_operator.kube.watch_stream import CHANGES

Decode: TypeAlias = Callable[[bytes], object]


def build_event_decoder(shape: Shape) -> Decode:
    """Build a function that decodes a watch event to the fields of a shape.

    It raises what ``kube.encoding.decode`` raises. Anything unexpected is decoded in full, for the caller to judge: an
    error, a bookmark, a field of another type than in the shape, a text that only the standard library reads.

    Args:
        shape: the fields of the object that are read, in the form that pruning uses.
    """
    typed = msgspec.json.Decoder(_type_of({"type": None, "object": shape}))

    def decode_event(line: bytes) -> object:
        try:
            event = typed.decode(line)
        except (msgspec.MsgspecError, ValueError):
            return decode(line)
        return event if event.get("type") in CHANGES else decode(line)

    return decode_event


def _type_of(shape: Shape) -> Any:
    """Return the type of the values that a shape prunes; msgspec leaves out the keys that a ``TypedDict`` lacks."""
    if isinstance(shape, Mapping):
        make_type: Any = TypedDict
        return make_type("Part", {key: _type_of(part) for key, part in shape.items()}, total=False)
    return list[_type_of(shape[0])] if isinstance(shape, list) else Any  # type: ignore[misc]
