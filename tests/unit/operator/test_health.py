from types import SimpleNamespace

import aiohttp
import pytest

from modelexport_operator.leadership.election import NoElection
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.health import serve_http
from testcluster.ports import free_port


@pytest.mark.parametrize(("is_lost", "status"), [(False, 200), (True, 503)])
async def test_health_fails_once_lease_is_lost(is_lost: bool, status: int) -> None:
    leadership, port = NoElection(), free_port()
    leadership.is_lost = is_lost
    # The server uses only these attributes of a WatchCheck.
    watch_check = SimpleNamespace(lagging={}, is_stale=False, synced=SimpleNamespace(is_set=lambda: True))
    async with (
        serve_http(watch_check, leadership, Metrics(), "127.0.0.1", port),  # type: ignore[arg-type]
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as answer:
                assert answer.status == status
                assert ("the Lease is lost" in await answer.text()) is is_lost
