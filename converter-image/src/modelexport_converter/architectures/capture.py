"""Whether a network is being captured for a file of fixed shapes, or only run."""

import torch


def is_captured() -> bool:
    """Whether an exporter looks on, by tracing or by ``torch.export``; what it sees must not depend on the picture."""
    return bool(torch.jit._trace.is_tracing() or torch.compiler.is_exporting())  # type: ignore[no-untyped-call]
