"""Reports at the end how many tests of hostile inputs ran and passed, by kind."""

from collections import Counter
from pathlib import PurePosixPath

from _pytest.terminal import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Count the tests of this folder by their file; nearly each is one input."""
    tried: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            kind = (
                PurePosixPath(report.nodeid.partition("::")[0])
                .stem.removeprefix("test_")
                .removeprefix("hostile_")
                .replace("_", " ")
            )
            tried[kind] += 1
            held[kind] += outcome == "passed"
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(tried.items()))
    terminalreporter.write_line(f"{tried.total()} tests of hostile inputs, {held.total()} held: {kinds}")
