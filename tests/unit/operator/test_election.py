import asyncio
from collections.abc import Callable

import pytest

from modelexport_operator.cluster import ClusterError, ConflictError, GoneError, RefusedError, UnavailableError
from modelexport_operator.election import Alone, Election, LostLeaseError
from modelexport_operator.settings import Settings
from unit.operator.objects import Body

pytestmark = pytest.mark.usefixtures("virtual_time")

SETTINGS = Settings(lease_seconds=15, lease_renew_seconds=10, lease_retry_seconds=0.001)


class FakeCluster:
    """One Lease, kept as the API server keeps it; fails where it is told to."""

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
            raise GoneError("no lease")
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
        await asyncio.wait_for(election.win(), seconds)
    except TimeoutError:
        return False
    return True


async def test_the_first_one_leads_and_the_second_one_waits(first: Election, second: Election) -> None:
    assert await try_to_win(first)
    assert not await try_to_win(second)
    assert (first.is_leading, second.is_leading) == (True, False)
    assert second.problem == ""


async def test_of_two_at_once_one_wins(first: Election, second: Election) -> None:
    outcomes = await asyncio.gather(try_to_win(first), try_to_win(second))
    assert sorted(outcomes) == [False, True]


async def test_a_leader_that_is_silent_stops_before_another_one_begins(
    first: Election, second: Election, clock: Clock
) -> None:
    await first.win()
    assert not await try_to_win(second)
    clock.now += 9.9
    assert first.is_leading
    clock.now += 0.1
    assert not first.is_leading
    assert not await try_to_win(second)
    clock.now += 5.1
    assert await try_to_win(second)


async def test_a_leader_that_renews_goes_on(first: Election, second: Election, clock: Clock) -> None:
    await first.win()
    holding = asyncio.create_task(first.hold())
    for _ in range(10):
        clock.now += 5
        assert not await try_to_win(second, 0.02)
    assert first.is_leading
    assert not holding.done()
    holding.cancel()


async def test_a_lease_that_was_given_back_is_taken_at_once(first: Election, second: Election) -> None:
    await first.win()
    await first.release()
    assert not first.is_leading
    assert await try_to_win(second)


async def test_a_leader_that_was_robbed_ends_and_gives_nothing_back(first: Election, cluster: FakeCluster) -> None:
    await first.win()
    assert cluster.lease is not None
    taken = {**cluster.lease["spec"], "holderIdentity": "robber"}
    cluster.lease = {"metadata": {"resourceVersion": "99"}, "spec": taken}
    with pytest.raises(LostLeaseError, match="another operator leads"):
        await asyncio.wait_for(first.hold(), 5)
    await first.release()
    assert cluster.lease["spec"] == taken


async def test_a_leader_that_slept_too_long_ends(first: Election, clock: Clock, cluster: FakeCluster) -> None:
    await first.win()
    cluster.fail = lambda _: UnavailableError("down")
    clock.now += 60
    with pytest.raises(LostLeaseError):
        await asyncio.wait_for(first.hold(), 5)


async def test_a_leader_whose_renewal_is_not_answered_ends_in_time(cluster: FakeCluster) -> None:
    quick = Settings(lease_seconds=15, lease_renew_seconds=0.1, lease_retry_seconds=0.01)
    # The cluster is a fake, as for the fixtures above: of the real one an Election calls just what that has.
    election = Election(cluster, quick, asyncio.get_running_loop().time)  # type: ignore[arg-type]
    await election.win()
    cluster.hang = True
    with pytest.raises(LostLeaseError, match="not renewed in time"):
        await asyncio.wait_for(election.hold(), 5)


async def test_a_lost_lease_is_known_and_never_regained(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    assert not first.is_lost
    await first.win()
    assert not first.is_lost
    clock.now += 10
    assert first.is_lost
    await first._try()
    assert (first.is_lost, first.is_leading) == (True, False)


async def test_a_leader_that_was_robbed_stops_writing_at_once(first: Election, cluster: FakeCluster) -> None:
    await first.win()
    assert cluster.lease is not None
    cluster.lease["spec"]["holderIdentity"] = "robber"
    with pytest.raises(LostLeaseError):
        await asyncio.wait_for(first.hold(), 5)
    assert (first.is_lost, first.seconds_left) == (True, 0)


async def test_a_lease_that_was_given_back_is_not_lost(first: Election) -> None:
    await first.win()
    await first.release()
    assert not first.is_lost


async def test_a_claim_that_took_too_long_does_not_count(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    def delay(what: str) -> None:
        clock.now += 10 if what == "update" and cluster.lease and not cluster.lease["spec"] else 0

    cluster.fail = delay
    assert await try_to_win(first)
    assert first.seconds_left == 10


async def test_a_leader_ends_as_soon_as_its_time_is_over(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(lease_retry_seconds=3), loop.time)  # type: ignore[arg-type]
    await election.win()
    cluster.fail = lambda _: UnavailableError("down")
    began = loop.time()
    with pytest.raises(LostLeaseError):
        await election.hold()
    assert loop.time() - began == pytest.approx(Settings.lease_renew_seconds)


async def test_a_candidate_leaves_a_busy_server_alone(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    failures = iter([UnavailableError("busy", retry_after=30)])
    cluster.fail = lambda _: next(failures, None)
    began = loop.time()
    await election.win()
    assert loop.time() - began >= 30


async def test_a_long_pause_costs_no_leader_its_lease(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    await election.win()
    began, tries = loop.time(), []

    def refuse(_: str) -> UnavailableError:
        tries.append(loop.time() - began)
        return UnavailableError("busy", retry_after=60)

    cluster.fail = refuse
    with pytest.raises(LostLeaseError):
        await election.hold()
    assert tries == pytest.approx([2, 6, 8])


async def test_giving_back_is_given_up_when_the_lease_is_over(cluster: FakeCluster) -> None:
    loop = asyncio.get_running_loop()
    election = Election(cluster, Settings(), loop.time)  # type: ignore[arg-type]
    await election.win()
    cluster.hang = True
    await asyncio.wait_for(election.release(), Settings.lease_renew_seconds + 1)


async def test_a_failure_that_passes_costs_nothing(first: Election, cluster: FakeCluster, clock: Clock) -> None:
    await first.win()
    failures = iter([UnavailableError("down"), ConflictError("changed"), UnavailableError("down")])
    cluster.fail = lambda _: next(failures, None)
    holding = asyncio.create_task(first.hold())
    for _ in range(4):
        clock.now += 4
        await asyncio.sleep(0.02)
    assert first.is_leading
    assert first.problem == ""
    holding.cancel()


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_what_keeps_a_candidate_from_trying_is_told(first: Election, cluster: FakeCluster, verb: str) -> None:
    cluster.fail = lambda what: RefusedError(f"you may not {what}") if what == verb else None
    assert not await try_to_win(first)
    assert first.problem == f"the Lease cannot be used: you may not {verb}"


async def test_a_lease_that_was_deleted_is_made_again(first: Election, cluster: FakeCluster) -> None:
    await first.win()
    cluster.lease = None
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(0.05)
    assert cluster.lease is not None
    assert cluster.lease["spec"]["holderIdentity"] == first.identity
    holding.cancel()


async def test_giving_back_what_cannot_be_given_back_is_no_error(first: Election, cluster: FakeCluster) -> None:
    await first.release()
    await first.win()
    cluster.fail = lambda _: UnavailableError("down")
    await first.release()
    assert not first.is_leading


async def test_a_single_operator_leads_at_once_and_for_ever() -> None:
    alone = Alone()
    await alone.win()
    assert alone.is_leading
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(alone.hold(), 0.01)
    await alone.release()
