from types import SimpleNamespace

import aiohttp
import pytest

from modelexport_operator.election import Alone
from modelexport_operator.health import serve_http
from modelexport_operator.metrics import Metrics
from ports import free_port


@pytest.mark.parametrize(("is_lost", "status"), [(False, 200), (True, 503)])
async def test_health_fails_once_the_lease_is_lost(is_lost: bool, status: int) -> None:
    leadership, port = Alone(), free_port()
    leadership.is_lost = is_lost
    # Of an Audit the server asks just this.
    audit = SimpleNamespace(lagging={}, is_blind=False, primed=SimpleNamespace(is_set=lambda: True))
    async with (
        serve_http(audit, leadership, Metrics(), "127.0.0.1", port),  # type: ignore[arg-type]
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as answer:
                assert answer.status == status
                assert ("the Lease is lost" in await answer.text()) is is_lost
