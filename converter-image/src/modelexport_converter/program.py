"""Reads a ``.pt2`` archive of ``torch.export.save`` that may come from anybody.

``torch.export.load`` unpickles parts of an archive, loads shared libraries from it, evaluates symbolic expressions and
resolves any dotted name below ``torch`` into a callable of the graph. So before torch sees it, an archive has to
consist of nothing but raw tensors and a graph of ATen operators with static shapes. Records are read by the same reader
that torch uses, so that there is no second reading of a crafted zip file.
"""

import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from modelexport.reasons import Reason
from modelexport_converter.failures import Failure

_GRAPH = "models/model.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_RECORDS = re.compile(
    rf"{re.escape(_GRAPH)}|{re.escape(_SAMPLE_INPUTS)}|{'|'.join(map(re.escape, _CONFIGS))}"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|extra/[^/]+"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+"
)
_OPERATORS = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.getitem")
_PAYLOADS = re.compile(r"(weight|tensor)_\d+")


def read_program(path: Path) -> torch.export.ExportedProgram:
    """Check a ``.pt2`` archive and load it.

    Raises:
        Failure: with reason ``CheckpointUnsafe`` when the archive holds more than tensors and static ATen operators,
            ``CheckpointMismatch`` when they are for a device, or ``CheckpointUnreadable`` when torch cannot load it.
    """
    from torch.export.pt2_archive._package import (
        load_pt2,  # brings torch's compiler, seconds that no other checkpoint needs
    )

    try:
        _check_archive(torch._C.PyTorchFileReader(str(path)))
        program: torch.export.ExportedProgram = load_pt2(path).exported_programs["model"]
    except Failure:
        raise
    except Exception as error:
        # torch names no errors for a damaged archive; any that is left over means that it cannot be read.
        message = (
            f"the .pt2 archive ({path.stat().st_size} bytes) cannot be read: {type(error).__name__}: {str(error)[:200]}"
        )
        raise Failure(Reason.CHECKPOINT_UNREADABLE, message) from error
    return program


def _check_archive(reader: Any) -> None:
    names = reader.get_all_records()
    _refuse("records", (name for name in names if not _RECORDS.fullmatch(name)))
    graph = json.loads(reader.get_record(_GRAPH))
    _refuse("operators", (target for target in _values(graph, "target") if not _OPERATORS.fullmatch(str(target))))
    _refuse("symbolic shapes", (text for text in _values(graph, "expr_str")))
    _refuse("guards", graph.get("guards_code") or ())
    configs = [json.loads(reader.get_record(name)) for name in _CONFIGS]
    _check_devices([graph, *configs])
    for config in configs:
        _check_payloads(config)
    _check_sample_inputs(reader.get_record(_SAMPLE_INPUTS))


def _check_devices(contents: list[Any]) -> None:
    """Stop at a program that lies on a device: torch would look for the like of it here."""
    named = (*_values(contents, "device"), *_values(contents, "as_device"))
    devices = (device for device in named if isinstance(device, dict))
    kinds = sorted({str(device.get("type")) for device in devices} - {"cpu"})
    if kinds:
        where = ", ".join(kinds)[:100]
        message = (
            f"the .pt2 archive was exported on {where}; move the model and its example input to the CPU before "
            "torch.export.export"
        )
        raise Failure(Reason.CHECKPOINT_MISMATCH, message)


def _check_payloads(config: Any) -> None:
    _refuse("pickled tensors", (name for name, item in config["config"].items() if item.get("use_pickle")))
    _refuse("objects", (path for path in _values(config, "path_name") if not _PAYLOADS.fullmatch(str(path))))


def _check_sample_inputs(record: bytes) -> None:
    """Read the example inputs, a pickle, as torch does first; it reads them without restrictions where that fails."""
    try:
        torch.load(io.BytesIO(record), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _refuse("example inputs", [str(error).splitlines()[0]])


def _values(content: Any, key: str) -> Iterator[Any]:
    """Every value that stands under ``key``, at any depth."""
    if isinstance(content, dict):
        if key in content:
            yield content[key]
        for value in content.values():
            yield from _values(value, key)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value, key)


def _refuse(what: str, found: Any) -> None:
    names = sorted({str(name)[:100] for name in found})
    if names:
        message = (
            f"the .pt2 archive has {what} that are not accepted: {', '.join(names[:5])}; "
            "export the model with torch.export.export with static shapes, without custom operators or guards"
        )
        raise Failure(Reason.CHECKPOINT_UNSAFE, message)
