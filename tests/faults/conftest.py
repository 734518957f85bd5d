from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.catalogue import FAULTS
from faults.page import write_page
from faults.runner import Row, build_table
from faults.world import LONG, SHORT, Stage
from integration import fixtures
from integration.proxy import Proxy
from testcluster.chart import NAMESPACE
from testplane.api import Api
from testplane.control_plane import ControlPlane

plane, proxy, api = fixtures.plane, fixtures.proxy, fixtures.api


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run every fault at full size, and write docs/faults.md")


@pytest.fixture
def stage(
    plane: ControlPlane, proxy: Proxy, api: Api, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """The stage of a fault; no Lease is left for the next one."""
    yield Stage(plane, proxy, api, tmp_path, LONG if request.config.getoption("--long") else SHORT)
    plane.kubectl("delete", "leases", "--all", f"--namespace={NAMESPACE}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print all outcomes as one table; those of the long form are a page, too."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [dict(report.user_properties) for report in reports]
    rows = [Row.of(properties["row"]) for properties in found if "row" in properties]
    rows.sort(key=lambda row: [fault.name for fault in FAULTS].index(row.fault))
    if rows:
        terminalreporter.write_line(build_table(rows))
    if rows and config.getoption("--long"):
        write_page(rows)
