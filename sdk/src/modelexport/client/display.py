"""Display of an export on a cluster: a live table on a terminal and in a notebook, plain lines elsewhere."""

from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelexport.client.status import ExportStatus
from modelexport.console import is_live
from modelexport.planning.progress import Progress
from modelexport.untrusted import moment


class StatusDisplay:
    """Shows the targets of an export on a console while it is waited for; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: ExportStatus | None = None
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)
        self._states: dict[str, str] = {}

    def __enter__(self) -> "StatusDisplay":
        if is_live(self._console):
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, status: ExportStatus) -> None:
        """Show a status; without a live table, print each target whose state or stage has changed."""
        self._status = status
        if is_live(self._console):
            return
        for one in status.targets:
            state = f"{one.state} ({one.progress.stage})" if one.progress else one.state
            if self._states.get(one.target) != state:
                self._states[one.target] = state
                self._console.print(f"{one.target:<14} {state}", highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table("Target", "State", "Progress", "Message", box=None, pad_edge=False)
        now = datetime.now(UTC)
        for one in self._status.targets if self._status else ():
            progress = describe(one.progress, now) if one.progress else ""
            table.add_row(*map(Text, (one.target, one.state, progress, "" if one.artifact else one.message)))
        return table


def describe(progress: Progress, now: datetime) -> str:
    """Return the running container and the estimated seconds left at ``now``."""
    updated = moment(progress.last_updated_time)
    if progress.estimated_remaining_seconds is None or updated is None:
        return progress.stage
    left = progress.estimated_remaining_seconds - round((now - updated).total_seconds())
    return f"{progress.stage}, {f'about {left} s left' if left > 0 else 'longer than measured'}"
