"""Loads checkpoints that must be refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from trained.cells import ask, load


def failure_of(action: Callable[..., object], *arguments: Any, **named: Any) -> Failure:
    """Return the failure in which a call must end."""
    with pytest.raises(Failure) as caught:
        action(*arguments, **named)
    return caught.value


def refuse_file(path: Path) -> Failure:
    """Return the failure of a file that cannot be read as a checkpoint."""
    return failure_of(read_checkpoint, path)


def refuse(
    found: Checkpoint | Path | Mapping[str, torch.Tensor],
    architecture: str,
    *,
    reason: Reason = Reason.CHECKPOINT_MISMATCH,
    **parameters: Any,
) -> str:
    """Return the message that a checkpoint, its file or its weights do not match the export."""

    def load_it() -> None:
        if isinstance(found, Path):
            checkpoint = read_checkpoint(found)
        else:
            checkpoint = found if isinstance(found, Checkpoint) else Checkpoint(found)
        load(checkpoint, ask(architecture, **parameters))

    failure = failure_of(load_it)
    assert failure.reason is reason
    return str(failure)
