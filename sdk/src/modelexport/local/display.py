"""What a local run shows: a live table while it runs, plain lines where nobody watches, and the table of results."""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelexport.cli.conversions import FAILED, REUSED, SUCCEEDED, WAITING, Conversion
from modelexport.text import clean

PLAIN_WIDTH = 140
PHASE_LIMIT = 40
"""Characters of a phase: a converter names it, and what it opens may have made it say anything."""
STYLES = {WAITING: "dim", SUCCEEDED: "green", REUSED: "green", FAILED: "bold red"}


class Display:
    """Shows the conversions of a run on a console; use it as a context manager."""

    def __init__(self, console: Console, conversions: Sequence[Conversion]) -> None:
        self._console = console
        self._conversions = conversions
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def changed(self, conversion: Conversion) -> None:
        """Show that a conversion came to another phase."""
        if self._console.is_terminal:
            return  # the live table reads the conversions by itself
        seconds = f"{conversion.elapsed:6.1f} s"
        line = f"{seconds}  {conversion.label:<14} {clean(conversion.phase, PHASE_LIMIT)}"
        self._console.print(line, highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table("Target", "Stage", "Seconds", box=None, pad_edge=False)
        for conversion in self._conversions:
            seconds = "" if conversion.phase == WAITING else f"{conversion.elapsed:.0f}"
            phase = Text(clean(conversion.phase, PHASE_LIMIT), STYLES.get(conversion.phase, "cyan"))
            table.add_row(Text(conversion.label), phase, seconds)
        return table


def open_console(*, error_stream: bool) -> Console:
    """Open the console of progress and tables; a stream that is no terminal gets wide lines without colour."""
    console = Console(stderr=error_stream)
    return console if console.is_terminal else Console(stderr=error_stream, width=PLAIN_WIDTH)
