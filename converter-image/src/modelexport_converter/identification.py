"""Finds the architecture of a checkpoint, for users who do not want to name it.

A row of the support matrix fits if its own loader takes the checkpoint: every weight has the name and the shape that
its network needs, so no second row does.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.api.spec import DataRef, Model
from modelexport.logs import announce
from modelexport.matrix.support import ARCHITECTURES
from modelexport.text import clean
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel

CUSTOM = "Custom"
NAMED_CLASSES, NAME_LIMIT = 100, 60
"""Number and characters of the class names in the answer."""


def identify(environ: Mapping[str, str]) -> ConversionResult:
    """Announce the architecture of the checkpoint in the environment, with its input size and classes.

    Raises:
        Failure: the checkpoint cannot be read, or is of no known architecture or not of the named one.
    """
    path = Path(environ[names.CHECKPOINT_ENV])
    checkpoint = read_checkpoint(path)
    asked = environ.get(names.ARCHITECTURE_ENV)
    name, model = (asked, _load(checkpoint, asked, path)) if asked else _find(checkpoint, path)
    announce("identified", **_describe(name, model))
    return ConversionResult(Reason.SUCCEEDED, f"{path.name} is a checkpoint of {name}")


def _load(checkpoint: Checkpoint, name: str, path: Path) -> LoadedModel:
    module = importlib.import_module(ARCHITECTURES[name].impl)
    model: LoadedModel = module.load(checkpoint, Model(name, DataRef(f"file://{path}")))
    return model


def _find(checkpoint: Checkpoint, path: Path) -> tuple[str, LoadedModel]:
    if checkpoint.program is not None:  # its graph has no name, and outputs of one shape can mean several things
        return CUSTOM, _load(checkpoint, CUSTOM, path)
    refusals: list[Failure] = []
    for name in ARCHITECTURES:
        try:
            return name, _load(checkpoint, name, path)
        except Failure as failure:
            if failure.reason is not Reason.CHECKPOINT_MISMATCH:
                raise
            refusals.append(failure)
    if checkpoint.module is not None:
        raise refusals[0]  # the loader of ultralytics' networks names the class and whose network it is
    known = ", ".join(name for name in ARCHITECTURES if name != CUSTOM)
    raise Failure(
        Reason.CHECKPOINT_MISMATCH,
        f"the weights are those of none of {known}; name the architecture to see what differs, or save the network "
        f"with torch.export.save as .pt2, which is exported as {CUSTOM}",
    )


def _describe(name: str, model: LoadedModel) -> Mapping[str, Any]:
    return {
        "architecture": name,
        "variant": model.metadata.get("variant"),
        "inputSize": list(model.input_size),
        "numClasses": len(model.class_names),
        "classNames": [clean(one, NAME_LIMIT) for one in model.class_names[:NAMED_CLASSES]],
        "reference": model.reference,
        "assumptions": list(model.assumptions),
    }
