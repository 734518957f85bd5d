from collections.abc import Iterator

import pytest

from integration import fixtures
from testplane.control_plane import ControlPlane
from testplane.process import Operator

plane, proxy, api = fixtures.plane, fixtures.proxy, fixtures.api


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a module, which share an operator, in one process, unless they name groups of their own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


@pytest.fixture(scope="module")
def operator(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator that runs for all tests of a module."""
    operator = Operator(plane.address, tmp_path_factory.mktemp("operator"), plane.certificate)
    with operator.running():
        yield operator
