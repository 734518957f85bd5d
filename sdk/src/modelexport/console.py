"""The console for progress and tables, the same in a terminal, in a notebook and in a log."""

from importlib.util import find_spec

from rich.console import Console

PLAIN_WIDTH = 140


def open_console(*, error_stream: bool) -> Console:
    """Open the console for progress and tables; without a terminal, lines are wide and have no colour."""
    console = Console(stderr=error_stream)
    return console if is_live(console) else Console(stderr=error_stream, width=PLAIN_WIDTH, force_jupyter=False)


def is_live(console: Console) -> bool:
    """Return whether a table on the console can be drawn anew: on a terminal, or in a notebook with ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
