"""Keeps libraries from drawing progress bars into the converter's log."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Discard what is written to ``sys.stderr``, where bars are drawn that no option turns off; errors still rise."""
    with redirect_stderr(io.StringIO()):
        yield
