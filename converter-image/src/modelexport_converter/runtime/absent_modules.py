"""Keeps libraries from importing others that they can do without."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def absent(names: Sequence[str]) -> Iterator[None]:
    """Let imports of modules fail within the block as if they were not installed; those already imported stay."""
    hidden = [name for name in names if name not in sys.modules]
    # The import system refuses a name whose module is None.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
