"""Imports large libraries without looking for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Turn garbage collection off for the imports in the block, and exempt what they made from later collections.

    torch and a backend make 270,000 objects that stay, and Python would go through all of them again and again: that is
    a quarter of the processor time of these imports. If everything is imported already, nothing is set aside.
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if enabled:
            gc.enable()
