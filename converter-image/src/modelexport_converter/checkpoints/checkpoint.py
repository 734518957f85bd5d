"""Reads a local checkpoint without running anything in it.

The content of a file decides its kind, never its name. Everything is read as data: pickles by an interpreter that can
neither import nor call (``checkpoints.pickles``), ``.pt2`` archives as a graph of known operators (``programs``).
"""

import io
import json
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modelexport.api.reasons import Reason
from modelexport.text import clean
from modelexport_converter.checkpoints.archive import MIB, PICKLE_LIMIT, TorchArchive
from modelexport_converter.checkpoints.errors import Unreadable, Unsafe
from modelexport_converter.checkpoints.file_kinds import (
    HEAD,
    ONE_FILE,
    TAR,
    TAR_AT,
    TEXT,
    explain_kind,
    explain_members,
    explain_tar,
    is_text,
)
from modelexport_converter.checkpoints.lazy_weights import LazyWeights, check_finite, read_one, read_stored
from modelexport_converter.checkpoints.module_tree import Module
from modelexport_converter.checkpoints.network_search import find_network, strip_wrapper_prefixes
from modelexport_converter.checkpoints.pickles import PickledObject, harmful_names, read_pickle
from modelexport_converter.failures import Failure
from modelexport_converter.programs.graph import Program
from modelexport_converter.programs.reader import read_program

Facts = Mapping[str, Any]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first object, a number, of files by torch.save before 1.6, after the protocol mark."""
_DISTRIBUTED = b"torch.distributed.checkpoint"
_EARLIER_PROGRAM = "serialized_exported_program.json"
"""A record of early torch.export.save, which wrote a plain zip file of separate parts."""
_CUT = ("incomplete metadata", "invalid header length")
"""Messages of safetensors about a file that ends within its header or its tensors."""
HEADER_LIMIT = 32 * MIB
"""Bytes of a ``.safetensors`` header; its library accepts three times as much, which takes a GiB of memory."""
FACT_LIMIT, FACT_DEPTH, TEXT_LIMIT = 20_000, 8, 10_000
"""Limits of one fact: its parts, their nesting, and the characters of a text; a thousand classes have names."""

LARGEST_FACT = 1 << 63
"""Smaller integers have few enough digits to print."""

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        tensors: the state dict; floating-point values are float32 and finite.
        facts: plain data of the checkpoint, for example ``names``, ``imgsz``, ``kpt_shape``.
        program: the network of a ``.pt2`` archive.
        module: the tree of a pickled module, which describes its layers.
        part: the part of the file that holds the network, e.g. ``ema``; empty for the whole file.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Facts = field(default_factory=dict)
    program: Program | None = None
    module: Module | None = None
    part: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an ultralytics ``.pt``, a state dict, a ``.safetensors`` or a ``.pt2`` file.

    Raises:
        Failure: ``CheckpointUnreadable``, ``CheckpointUnsafe`` or, for a program, ``WeightsNotFinite``. Weights of
            other files are checked when they are read from ``tensors``.
    """
    with _open(path) as file:
        head = file.read(HEAD)
    try:
        if head.startswith(_ZIP):
            return _read_zip(path)
        if head[5:9] == b"\0\0\0{":  # a length, whose first bytes can be those of a pickle, and JSON
            return _read_safetensors(path)
        if kind := explain_kind(head):
            raise Unreadable(kind)
        if head.startswith(_PICKLE) or _is_tar(head) or _looks_like_text_pickle(head):
            raise _explain_legacy(path, head)
        raise Unreadable(
            TEXT if is_text(head) else "it is not a .pt, .safetensors or .pt2 file; check the uploaded file"
        )
    except Unreadable as error:
        raise _unreadable(path, str(error)) from error
    except Unsafe as error:
        message = (
            f"the checkpoint's pickle asks for {clean(str(error), 300)}, which no network needs and which can harm "
            "anyone who loads it; nothing of it was run. Do not load it; if it is your own, save only the model's "
            "state_dict"
        )
        raise Failure(Reason.CHECKPOINT_UNSAFE, message) from error


def _open(path: Path) -> io.BufferedReader:
    try:
        if path.stat().st_size == 0:
            raise _unreadable(path, "it is empty")
        return path.open("rb")
    except OSError as error:
        raise Failure(Reason.CHECKPOINT_UNREADABLE, f"the checkpoint cannot be opened: {error.strerror}") from error


def _read_zip(path: Path) -> Checkpoint:
    archive = TorchArchive(path)
    if "archive_format" in archive.names:
        program = read_program(path)
        for name, tensor in program.tensors.items():
            if tensor.is_floating_point():  # masks, which are no parameters, may be infinite
                check_finite(name, torch.isfinite(tensor) if name in program.parameters else ~torch.isnan(tensor))
        return Checkpoint(program.tensors, program=program)
    if "constants.pkl" in archive.names:
        raise Unreadable("it is a TorchScript archive; save the model with torch.export.save as .pt2 instead")
    if "data.pkl" not in archive.names:
        raise Unreadable(_explain_zip(path))
    if "byteorder" in archive.names and archive.read("byteorder") != b"little":
        raise Unreadable("its numbers have the byte order of another kind of machine; save it again on a usual one")
    return _interpret(archive, read_pickle(archive.read("data.pkl")))


def _explain_zip(path: Path) -> str:
    """Describe a zip file that torch cannot read."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if _EARLIER_PROGRAM in names:
        return "an earlier torch wrote this .pt2; export the model again with torch 2.8 or newer"
    return explain_members(names)


def _interpret(archive: TorchArchive, content: Any) -> Checkpoint:
    """Return the network in the content of ``torch.save``, and the plain data beside it."""
    found = find_network(content)
    beside = content if isinstance(content, dict) else {}
    facts = {**_plain(beside), **_plain(beside.get("train_args"))}
    weights = read_stored(archive, found.stored)
    if found.module is None:
        return Checkpoint(weights, facts, part=found.part)
    # A whole ``YOLO`` object has no names and sizes; the network within it has.
    within = found.module.state["_modules"].get("model")
    for node in [found.module, *([within] if isinstance(within, PickledObject) else [])]:
        facts = {**_plain(node.state.get("args")), **facts, **_plain(node.state.get("yaml")), **_plain(node)}
    module = Module("", found.module, weights, partial(read_one, archive))
    return Checkpoint(weights, facts, module=module, part=found.part)


def _looks_like_text_pickle(head: bytes) -> bool:
    """Return whether a file begins with known pickle instructions; pickles of protocols 0 and 1 have no mark."""
    try:
        return len(list(islice(pickletools.genops(head), 3))) == 3
    except ValueError:
        return False


def _is_tar(head: bytes) -> bool:
    return head[TAR_AT:].startswith(TAR)


def _explain_legacy(path: Path, head: bytes) -> Exception:
    """Return the error for a bare pickle, the format of torch before 1.6 and of most attacks."""
    with path.open("rb") as file:
        if harmful := harmful_names(file.read(PICKLE_LIMIT)):
            return Unsafe(", ".join(harmful))
    if _is_tar(head) and (archive := explain_tar(head)):
        return Unreadable(archive)
    if _DISTRIBUTED in head:
        return Unreadable(f"it is the index of a checkpoint of torch.distributed; make one file of it: {ONE_FILE}")
    if _is_tar(head) or head[2:].startswith(_LEGACY):
        return Unreadable("it has the format of torch before 1.6; load and save it again with a newer torch")
    if is_text(head):
        return Unreadable(TEXT)
    return Unreadable("it is a pickle that torch.save did not write; load it, and save the state_dict with torch.save")


def _read_safetensors(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER_LIMIT:
        raise Unreadable(f"its header has {length:,} bytes, the limit is {HEADER_LIMIT:,}")
    try:
        opened: Any = safe_open(path, framework="pt", device="cpu")
        facts = {key: _decoded(value) for key, value in (opened.metadata() or {}).items()}
        names = list(opened.keys())
    except SafetensorError as error:
        is_cut = any(words in str(error) for words in _CUT)
        way_out = "; it was probably cut while it was copied: upload it again" if is_cut else ""
        raise Unreadable(f"{clean(str(error), 300)}{way_out}") from error
    readers = {name: partial(_read_tensor, path, opened, name) for name in names}
    return Checkpoint(LazyWeights(strip_wrapper_prefixes(readers)), _plain(facts))


def _read_tensor(path: Path, file: Any, name: str) -> torch.Tensor:
    try:
        tensor: torch.Tensor = file.get_tensor(name)
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # The format has numbers of four and six bits, which not every torch knows.
        raise _unreadable(path, f"{clean(name, 100)} is a tensor of a kind that torch does not know") from error
    return tensor


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, numbers of thousands of digits, endless nesting
        return text


def _plain(content: Any) -> dict[str, Any]:
    """Return the plain data in the attributes of an object or the items of a dict, up to the limits of a fact."""
    items = {**content.items, **content.state} if isinstance(content, PickledObject) else content
    if not isinstance(items, dict):
        return {}
    facts = {}
    for key, value in items.items():
        if isinstance(key, str) and len(key) <= TEXT_LIMIT and _count(value, FACT_LIMIT, FACT_DEPTH) is not None:
            facts[key] = value
    return facts


def _count(value: Any, left: int, depth: int) -> int | None:
    """Return the number of parts left after a value; ``None`` if it is not plain, too deep or too large."""
    if isinstance(value, str):
        return left - 1 if len(value) <= TEXT_LIMIT else None
    if isinstance(value, _PLAIN):
        return left - 1 if not isinstance(value, int) or abs(value) < LARGEST_FACT else None
    if not isinstance(value, dict | list | tuple) or not depth or len(value) > left:
        return None
    for part in [*value, *value.values()] if isinstance(value, dict) else value:
        counted = _count(part, left, depth - 1)
        if counted is None or counted < 0:
            return None
        left = counted
    return left - 1


def _unreadable(path: Path, problem: str) -> Failure:
    message = f"the checkpoint ({path.stat().st_size} bytes) cannot be read: {problem}"
    return Failure(Reason.CHECKPOINT_UNREADABLE, message)
