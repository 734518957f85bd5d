"""How a ``.pt2`` archive is refused; every text of the archive is cleaned before it is shown."""

from modelexport.reasons import Reason
from modelexport.text import clean
from modelexport_converter.failures import Failure

SHOWN = 100
"""Characters of a name of the archive that are shown."""

EXPORT_AGAIN = "export the model again with torch.export.export and torch.export.save of torch 2.9 or newer"


def unreadable(problem: str) -> Failure:
    """The failure of an archive that is damaged, or that torch did not write."""
    return Failure(Reason.CHECKPOINT_UNREADABLE, f"the .pt2 archive cannot be read: {problem}; {EXPORT_AGAIN}")


def unsafe(problem: str) -> Failure:
    """The failure of an archive that asks for what could harm."""
    message = (
        f"the .pt2 archive has {problem}, which could run code or reach files or memory, so nothing of it was run; "
        "export the model with torch.export.export, without custom operators or objects"
    )
    return Failure(Reason.CHECKPOINT_UNSAFE, message)


def unfit(problem: str, way_out: str) -> Failure:
    """The failure of a sound program that no file can be made of."""
    return Failure(Reason.CHECKPOINT_MISMATCH, f"the .pt2 archive does not fit: {problem}; {way_out}")


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""How the names end of what a normalisation changes in training."""


def trained(problem: str) -> Failure:
    """The failure of a program in training mode."""
    return unfit(f"it was exported in training mode: {problem}", "call model.eval() before torch.export.export")


def shown(text: object) -> str:
    """A name of the archive, as it may be shown."""
    return clean(str(text), SHOWN)
