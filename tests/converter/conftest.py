"""Settings for every test of the converter, and the S3 servers for the tests of the stores."""

import os
from collections.abc import Iterator

import pytest
from PIL import Image

from s3_servers import PROGRAMS, S3Server, serve

# Two test processes share two cores; one thread per process is faster than four that wait for each other. Libraries
# read the variable at import, so it is set here and not in a fixture.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The numbers in tests are those of a CPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Only tests that compare with ultralytics import it; without this it would look for updates.
os.environ.setdefault("YOLO_OFFLINE", "true")

PILLOW_OPEN = Image.open


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cells", action="store_true", help="convert and measure every cell")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "all_cells: runs with --all-cells only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in () if config.getoption("--all-cells") else items:
        if item.get_closest_marker("all_cells"):
            item.add_marker(pytest.mark.skip(reason="takes long: make test-converter ALL=1 runs it"))


@pytest.fixture(autouse=True)
def _pillow_as_in_the_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore Pillow's ``Image.open``, which ultralytics replaces at import; the converter never runs beside it."""
    monkeypatch.setattr(Image, "open", PILLOW_OPEN)


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Each S3 server in turn, with a bucket ``exports``."""
    with serve(request.param, tmp_path_factory.mktemp("store") / "data") as server:
        server.client.make_bucket("exports")
        yield server
