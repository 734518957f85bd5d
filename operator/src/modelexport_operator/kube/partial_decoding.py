"""Decodes the Jobs and Pods of events and lists, but only the fields that the operator reads. Pure.

A Job or a Pod has 8 KB, of which the operator reads a tenth. Decoding everything was the largest single cost of a Job;
msgspec skips what its type does not name, in a third of the time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import msgspec

from modelexport_operator.kube.encoding import decode
from modelexport_operator.kube.pruning import READ_OF_JOB, READ_OF_POD, Shape
from modelexport_operator.kube.resources import JOBS, PODS, Resource
from modelexport_operator.kube.watch_stream import CHANGES

Decode: TypeAlias = Callable[[bytes | bytearray], object]


@dataclass(frozen=True)
class Decoders:
    """Functions that decode a watch event and a page of a list; they raise what ``kube.encoding.decode`` raises."""

    event: Decode = decode
    page: Decode = decode


def decoders_of(resource: Resource) -> Decoders:
    """Return the decoders of a kind; of most kinds everything is decoded, as they are few."""
    return _DECODERS.get(resource, WHOLE)


def _build(shape: Shape) -> Decoders:
    """Build decoders that keep the fields of a shape, in the form that pruning uses.

    Anything unexpected is decoded in full, for the caller to judge: an error, a bookmark, a field of another type than
    in the shape, a text that only the standard library reads.
    """
    events = msgspec.json.Decoder(_type_of({"type": None, "object": shape}))
    pages = msgspec.json.Decoder(_type_of({"metadata": None, "items": [shape]}))

    def decode_event(line: bytes | bytearray) -> object:
        event = _decode_or_none(events, line)
        return event if event is not None and event.get("type") in CHANGES else decode(line)

    def decode_page(content: bytes | bytearray) -> object:
        page = _decode_or_none(pages, content)
        return decode(content) if page is None else page

    return Decoders(decode_event, decode_page)


def _decode_or_none(decoder: msgspec.json.Decoder[Any], content: bytes | bytearray) -> Any:
    try:
        return decoder.decode(content)
    except (msgspec.MsgspecError, ValueError):
        return None


def _type_of(shape: Shape) -> Any:
    """Return the type of the values that a shape prunes; msgspec leaves out the keys that a ``TypedDict`` lacks."""
    if isinstance(shape, Mapping):
        make_type: Any = TypedDict
        return make_type("Part", {key: _type_of(part) for key, part in shape.items()}, total=False)
    if isinstance(shape, list):
        make_list: Any = list
        return make_list[_type_of(shape[0])]
    return Any


WHOLE = Decoders()
"""Decoders that leave out nothing."""
_DECODERS: Mapping[Resource, Decoders] = {JOBS: _build(READ_OF_JOB), PODS: _build(READ_OF_POD)}
VERSIONS = _build({"metadata": dict.fromkeys(("name", "namespace", "resourceVersion"))})
"""Decoders that keep which object it is, in which version."""
