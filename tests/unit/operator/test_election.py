import asyncio
from collections.abc import Callable

import pytest

from modelexport_operator.kube.client import ClusterError, ConflictError, NotFoundError, RejectedError, UnavailableError
from modelexport_operator.leadership.election import Election, LeaseLostError, NoElection
from modelexport_operator.settings import Settings
from testplane.objects import Body

pytestmark = pytest.mark.usefixtures("virtual_time")

SETTINGS = Settings(lease_seconds=15, lease_renew_seconds=10, lease_retry_seconds=0.001)


class FakeCluster:
    """Holds one Lease as the API server does; fails where the test wants it."""

    token = ""

    def __init__(self) -> None:
        self.lease: Body | None = None
        self.fail: Callable[[str], ClusterError | None] = lambda _: None
        self.hang = False

    async def _call(self, what: str) -> Body:
        if self.hang:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        if error := self.fail(what):
            raise error
        if self.lease is None and what != "create":
            raise NotFoundError("no lease")
        return self.lease or {}

    async def read_lease(self, namespace: str, name: str) -> Body:
        return await self._call("get")

    async def create_lease(self, lease: Body) -> Body:
        await self._call("create")
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": "1"}}
        return self.lease

    async def write_lease(self, lease: Body) -> Body:
        known = await self._call("update")
        if known["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        version = str(int(known["metadata"]["resourceVersion"]) + 1)
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": version}}
        return self.lease


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def first(cluster: FakeCluster, clock: Clock) -> Election:
    return Election(cluster, SETTINGS, clock)  # type: ignore[arg-type]


@pytest.fixture
def second(cluster: FakeCluster, clock: Clock) -> Election:
    return Election(cluster, SETTINGS, clock)  # type: ignore[arg-type]


async def try_to_win(election: Election, seconds: float = 0.05) -> bool:
    try:
        await asyncio.wait_for(election.acquire(), seconds)
    except TimeoutError:
        return False
    return True


async def test_first_candidate_leads_and_second_waits(first: Election, second: Election) -> None:
    assert await try_to_win(first)
    assert not await try_to_win(second)
    assert (first.is_leading, second.is_leading) == (True, False)
    assert second.problem == ""


async def test_one_of_two_simultaneous_candidates_wins(first: Election, second: Election) -> None:
    outcomes = await asyncio.gather(try_to_win(first), try_to_win(second))
    assert sorted(outcomes) == [False, True]


async def test_silent_leader_stops_before_next_one_starts(first: Election, second: Election, clock: Clock) -> None:
    await first.acquire()
    assert not await try_to_win(second)
    clock.now += 9.9
    assert first.is_leading
    clock.now += 0.1
    assert not first.is_leading
    assert not await try_to_win(second)
    clock.now += 5.1
    assert await try_to_win(second)


async def test_renewing_leader_keeps_leading(first: Election, second: Election, clock: Clock) -> None:
    await first.acquire()
    holding = asyncio.create_task(first.renew_forever())
    for _ in range(10):
        clock.now += 5
        assert not await try_to_win(second, 0.02)
    assert first.is_leading
    assert not holding.done()
    holding.cancel()


async def test_released_lease_is_acquired_at_once(first: Election, second: Election) -> None:
    await first.acquire()
    await first.release()
    assert not first.is_leading
    assert await try_to_win(second)


async def test_deposed_leader_exits_without_releasing_lease(first: Election, cluster: FakeCluster) -> None:
    await first.acquire()
    assert cluster.lease is not None
    taken = {**cluster.lease["spec"], "holderIdentity": "robber"}
    cluster.lease = {"metadata": {"resourceVersion": "99"}, "spec": taken}
    with pytest.raises(LeaseLostError, match="another operator is the leader"):
        await asyncio.wait_for(first.renew_forever(), 5)
    await first.release()
    assert cluster.lease["spec"] == taken


async def test_leader_paused_too_long_exits(first: Election, clock: Clock, cluster: FakeCluster) -> None:
    await first.acquire()
    cluster.fail = lambda _: UnavailableError("down")
    clock.now += 60
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(first.renew_forever(), 5)


async def test_leader_without_renewal_response_exits_in_time(cluster: FakeCluster) -> None:
    quick = Settings(lease_seconds=15, lease_renew_seconds=0.1, lease_retry_seconds=0.01)
    # A fake cluster, as in the fixtures above: it has only the methods that an Election calls.
    election = Election(cluster, quick, asyncio.get_running_loop().time)  # type: ignore[arg-type]
    await election.acquire()
    cluster.hang = True
    with pytest.raises(LeaseLostError, match="not renewed in time"):
        await asyncio.wait_for(election.renew_forever(), 5)


async def test_lost_lease_is_known_and_never_regained(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    assert not first.is_lost
    await first.acquire()
    assert not first.is_lost
    clock.now += 10
    assert first.is_lost
    await first._try()
    assert (first.is_lost, first.is_leading) == (True, False)


async def test_deposed_leader_stops_writing_at_once(first: Election, cluster: FakeCluster) -> None:
    await first.acquire()
    assert cluster.lease is not None
    cluster.lease["spec"]["holderIdentity"] = "robber"
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(first.renew_forever(), 5)
    assert (first.is_lost, first.seconds_left) == (True, 0)


async def test_released_lease_is_not_lost(first: Election) -> None:
    await first.acquire()
    await first.release()
    assert not first.is_lost


async def test_too_slow_acquisition_does_not_count(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    def delay(what: str) -> None:
        clock.now += 10 if what == "update" and cluster.lease and not cluster.lease["spec"] else 0

    cluster.fail = delay
    assert await try_to_win(first)
    assert first.seconds_left == 10


async def test_leader_stops_at_renew_deadline(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(lease_retry_seconds=3), loop.time)  # type: ignore[arg-type]
    await election.acquire()
    cluster.fail = lambda _: UnavailableError("down")
    began = loop.time()
    with pytest.raises(LeaseLostError):
        await election.renew_forever()
    assert loop.time() - began == pytest.approx(Settings.lease_renew_seconds)


async def test_candidate_respects_busy_server(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    failures = iter([UnavailableError("busy", retry_after=30)])
    cluster.fail = lambda _: next(failures, None)
    began = loop.time()
    await election.acquire()
    assert loop.time() - began >= 30


async def test_long_retry_after_does_not_cost_lease(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    await election.acquire()
    began, tries = loop.time(), []

    def refuse(_: str) -> UnavailableError:
        tries.append(loop.time() - began)
        return UnavailableError("busy", retry_after=60)

    cluster.fail = refuse
    with pytest.raises(LeaseLostError):
        await election.renew_forever()
    assert tries == pytest.approx([2, 6, 8])


async def test_release_is_given_up_after_lease_expiry(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    await election.acquire()
    cluster.hang = True
    await asyncio.wait_for(election.release(), Settings.lease_renew_seconds + 1)


async def test_transient_failure_keeps_lease(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    await first.acquire()
    failures = iter([UnavailableError("down"), ConflictError("changed"), UnavailableError("down")])
    cluster.fail = lambda _: next(failures, None)
    holding = asyncio.create_task(first.renew_forever())
    for _ in range(4):
        clock.now += 4
        await asyncio.sleep(0.02)
    assert first.is_leading
    assert first.problem == ""
    holding.cancel()


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_acquisition_error_is_reported(first: Election, cluster: FakeCluster, verb: str) -> None:
    cluster.fail = lambda what: RejectedError(f"you may not {what}") if what == verb else None
    assert not await try_to_win(first)
    assert first.problem == f"cannot acquire or renew the Lease: you may not {verb}"


async def test_deleted_lease_is_recreated(first: Election, cluster: FakeCluster) -> None:
    await first.acquire()
    cluster.lease = None
    holding = asyncio.create_task(first.renew_forever())
    await asyncio.sleep(0.05)
    assert cluster.lease is not None
    assert cluster.lease["spec"]["holderIdentity"] == first.identity
    holding.cancel()


async def test_failed_release_is_no_error(first: Election, cluster: FakeCluster) -> None:
    await first.release()
    await first.acquire()
    cluster.fail = lambda _: UnavailableError("down")
    await first.release()
    assert not first.is_leading


async def test_single_operator_leads_at_once_and_forever() -> None:
    alone = NoElection()
    await alone.acquire()
    assert alone.is_leading
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(alone.renew_forever(), 0.01)
    await alone.release()
