"""Loads a checkpoint that must be refused."""

from pathlib import Path
from typing import Any

import pytest

from converter.cells import ask, load
from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure


def refusal(found: Checkpoint | Path, architecture: str, **parameters: Any) -> str:
    """Return the message that a checkpoint, or the file of one, does not match the export."""
    with pytest.raises(Failure) as caught:
        load(read_checkpoint(found) if isinstance(found, Path) else found, ask(architecture, **parameters))
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    return str(caught.value)
