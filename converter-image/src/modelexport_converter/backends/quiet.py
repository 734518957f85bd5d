"""Keeps libraries from drawing progress bars into the converter's log."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Discard writes to ``sys.stderr``, where some libraries always draw progress bars; exceptions still propagate."""
    with redirect_stderr(io.StringIO()):
        yield
