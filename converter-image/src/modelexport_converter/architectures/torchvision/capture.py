"""Detects whether a network is being exported, for a file of fixed shapes, or only run."""

import torch


def is_exporting() -> bool:
    """Return whether ``torch.jit.trace`` or ``torch.export`` records the calls, which must not depend on the image."""
    return bool(torch.jit._trace.is_tracing() or torch.compiler.is_exporting())  # type: ignore[no-untyped-call]
