"""Failures of ``.pt2`` archives; every text of the archive is cleaned before it is shown."""

from modelexport.api.reasons import Reason
from modelexport.text import clean
from modelexport_converter.failures import Failure

SHOWN = 100
"""Characters of an archive's name in a message."""

EXPORT_AGAIN = "export the model again with torch.export.export and torch.export.save of torch 2.9 or newer"


def unreadable(problem: str) -> Failure:
    """Return the failure of an archive that is damaged, or that torch did not write."""
    return Failure(Reason.CHECKPOINT_UNREADABLE, f"the .pt2 archive cannot be read: {problem}; {EXPORT_AGAIN}")


def unsafe(problem: str) -> Failure:
    """Return the failure of an archive that could do harm."""
    message = (
        f"the .pt2 archive has {problem}, which could run code or reach files or memory, so nothing of it was run; "
        "export the model with torch.export.export, without custom operators or objects"
    )
    return Failure(Reason.CHECKPOINT_UNSAFE, message)


def unfit(problem: str, way_out: str) -> Failure:
    """Return the failure of a sound program that cannot be converted."""
    return Failure(Reason.CHECKPOINT_MISMATCH, f"the .pt2 archive does not fit: {problem}; {way_out}")


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Suffixes of the buffers that a normalisation changes in training."""


def trained(problem: str) -> Failure:
    """Return the failure of a program in training mode."""
    return unfit(f"it was exported in training mode: {problem}", "call model.eval() before torch.export.export")


def shown(text: object) -> str:
    """Return a text of the archive in a form that is safe to show."""
    return clean(str(text), SHOWN)
