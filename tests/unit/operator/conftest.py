import pytest

from modelexport.measured import Measured


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions stay the same when `make matrix` measures memory anew."""
    monkeypatch.setattr("modelexport.matrix.last_run", Measured)
