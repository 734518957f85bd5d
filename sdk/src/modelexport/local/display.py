"""Display of a local run: a live table on a terminal and in a notebook, plain lines elsewhere."""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelexport.console import is_live
from modelexport.local.conversions import FAILED, REUSED, SUCCEEDED, WAITING, Conversion
from modelexport.text import clean

PHASE_LIMIT = 60
"""Maximum characters of a phase, which comes from the converter and may depend on untrusted input."""
STYLES = {WAITING: "dim", SUCCEEDED: "green", REUSED: "green", FAILED: "bold red"}


class Display:
    """Shows the conversions of a run on a console; use it as a context manager."""

    def __init__(self, console: Console, conversions: Sequence[Conversion]) -> None:
        self._console = console
        self._conversions = conversions
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if is_live(self._console):
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def changed(self, conversion: Conversion) -> None:
        """Print the new phase of a conversion, unless the live table shows it."""
        if is_live(self._console):
            return
        seconds = f"{conversion.elapsed:6.1f} s"
        line = f"{seconds}  {conversion.label:<14} {clean(conversion.shown, PHASE_LIMIT)}"
        self._console.print(line, highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table("Target", "Stage", "Seconds", "Done", "Left", box=None, pad_edge=False)
        for conversion in self._conversions:
            seconds = "" if conversion.phase == WAITING else f"{conversion.elapsed:.0f}"
            phase = Text(clean(conversion.shown, PHASE_LIMIT), STYLES.get(conversion.phase, "cyan"))
            estimate = conversion.estimate
            done = f"{estimate.percentage}%" if estimate else ""
            left = f"{estimate.remaining_seconds} s" if estimate else ""
            table.add_row(Text(conversion.label), phase, seconds, done, left)
        return table
