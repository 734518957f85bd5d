import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace

import pytest

from modelexport_operator.kube.backoff import JITTER, LAST_SECONDS
from modelexport_operator.kube.client import Listing, UnavailableError
from modelexport_operator.kube.resources import EXPORTS, JOBS, WATCHED, Resource, Scope, scopes_of
from modelexport_operator.kube.types import Key
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime import watch_check as module
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.runtime.watch_check import LONGEST_PAUSE, WatchCheck
from testplane.objects import Body, make_export

KEY = ("team", "shapes")


class FakeCluster:
    """Lists the objects of the test."""

    def __init__(self) -> None:
        self.listed: dict[Resource, dict[Key, int]] = {resource: {} for resource in WATCHED}
        self.version = 100
        self.is_down = False
        self.seconds = 0.0
        self.down: set[Resource] = set()
        self.asked: list[tuple[Resource, float]] = []

    async def list_versions(self, scope: Scope) -> Listing:
        self.asked.append((scope.resource, asyncio.get_running_loop().time()))
        if self.is_down or scope.resource in self.down:
            raise UnavailableError("down", retry_after=3)
        await asyncio.sleep(self.seconds)
        listed = {key: version for key, version in self.listed[scope.resource].items() if scope.contains(key[0])}
        return Listing(self.version, listed)


async def check_all(watch_check: WatchCheck) -> None:
    """Check every scope once; skip those that cannot be listed."""
    await asyncio.gather(*map(watch_check.check, watch_check._scopes), return_exceptions=True)


def at(version: int) -> Body:
    body = make_export("ONNX/FP16")
    body["metadata"]["resourceVersion"] = str(version)
    return body


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def controller(cluster: FakeCluster) -> Controller:
    return Controller(cluster, Metrics())  # type: ignore[arg-type]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watch_check(
    cluster: FakeCluster, controller: Controller, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> WatchCheck:
    return make_watch_check(cluster, controller, metrics, monkeypatch)


@pytest.fixture
def narrow(
    cluster: FakeCluster, controller: Controller, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> WatchCheck:
    """The watch check of an operator that serves two namespaces."""
    return make_watch_check(cluster, controller, metrics, monkeypatch, "team", "other")


def make_watch_check(
    cluster: FakeCluster, controller: Controller, metrics: Metrics, patch: pytest.MonkeyPatch, *namespaces: str
) -> WatchCheck:
    patch.setattr(module, "POLL_SECONDS", 0.005)
    patch.setattr(module, "LIST_COST_FACTOR", 0)
    scopes = scopes_of(WATCHED, namespaces)
    return WatchCheck(cluster, controller, metrics, scopes, interval=0.01, lag_tolerance=0.02)  # type: ignore[arg-type]


async def test_empty_cluster_is_primed_at_once(watch_check: WatchCheck) -> None:
    await check_all(watch_check)
    assert watch_check.synced.is_set()
    assert watch_check.lagging == {}


async def test_check_is_recorded_when_api_server_has_answered(
    cluster: FakeCluster, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SimpleNamespace(now=datetime.fromtimestamp(200, UTC))
    metrics = Metrics(lambda: server.now)
    watch_check = make_watch_check(cluster, controller, metrics, monkeypatch)
    server.now = datetime.fromtimestamp(300, UTC)
    cluster.is_down = True
    await check_all(watch_check)
    recorded = "modelexport_last_watch_check_timestamp_seconds 300.0"
    assert recorded not in metrics.render().decode()
    cluster.is_down = False
    await check_all(watch_check)
    assert recorded in metrics.render().decode()


async def test_caches_are_primed_only_after_every_list(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    await check_all(watch_check)
    assert not watch_check.synced.is_set()
    assert watch_check.lagging == {EXPORTS: 1}
    controller.handle_event(EXPORTS, None, at(50))
    await check_all(watch_check)
    assert watch_check.synced.is_set()
    assert watch_check.lagging == {}


async def test_object_in_older_version_is_lag(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    controller.handle_event(EXPORTS, None, at(50))
    cluster.listed[EXPORTS] = {KEY: 60}
    await check_all(watch_check)
    assert watch_check.lagging == {EXPORTS: 1}


async def test_object_deleted_after_list_is_no_lag(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.handle_event(EXPORTS, None, at(50))
    controller.handle_event(EXPORTS, "DELETED", at(101))
    await check_all(watch_check)
    assert watch_check.lagging == {}


async def test_unlisted_object_is_forgotten_and_its_key_queued(watch_check: WatchCheck, controller: Controller) -> None:
    controller.handle_event(EXPORTS, None, at(50))
    await controller.queue.get()
    controller.queue.done(KEY)
    await check_all(watch_check)
    assert controller.cache[EXPORTS].get(KEY) is None
    assert len(controller.queue) == 1


async def test_object_newer_than_list_is_kept(watch_check: WatchCheck, controller: Controller) -> None:
    controller.handle_event(EXPORTS, None, at(150))
    await check_all(watch_check)
    assert controller.cache[EXPORTS].get(KEY) is not None


async def test_busy_watch_does_not_excuse_missing_object(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50, ("team", "other"): 60}
    other = at(200)
    other["metadata"]["name"] = "other"
    controller.handle_event(EXPORTS, "MODIFIED", other)
    await check_all(watch_check)
    assert watch_check.lagging == {EXPORTS: 1}


async def test_missed_deletion_is_lag(watch_check: WatchCheck, cluster: FakeCluster, controller: Controller) -> None:
    controller.handle_event(EXPORTS, None, at(50))
    await check_all(watch_check)
    assert watch_check.lagging == {EXPORTS: 1}
    await check_all(watch_check)
    assert watch_check.lagging == {}


async def test_unreadable_object_is_no_lag(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.handle_event(EXPORTS, "DELETED", at(50))
    for _ in range(2):
        await check_all(watch_check)
        assert watch_check.lagging == {}
    cluster.listed[EXPORTS] = {KEY: 60}
    await check_all(watch_check)
    assert watch_check.lagging == {EXPORTS: 1}


async def test_only_stale_watch_is_named(watch_check: WatchCheck, cluster: FakeCluster) -> None:
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2}
    await check_all(watch_check)
    assert watch_check.lagging == {JOBS: 2}


async def test_watch_catching_up_within_tolerance_is_not_stale(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    watch_check._lag_tolerance = 60
    cluster.listed[EXPORTS] = {KEY: 50}
    asyncio.get_running_loop().call_later(0.01, controller.handle_event, EXPORTS, None, at(50))
    await check_all(watch_check)
    assert watch_check.synced.is_set()
    assert caplog.text == ""


async def test_passing_check_ends_early(watch_check: WatchCheck, cluster: FakeCluster) -> None:
    watch_check._lag_tolerance = 60
    await asyncio.wait_for(check_all(watch_check), 30)
    assert watch_check.synced.is_set()


async def test_watch_at_list_version_has_seen_every_deletion(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.handle_event(EXPORTS, "DELETED", at(100))
    await check_all(watch_check)
    assert watch_check.lagging == {}


async def test_lag_and_recovery_are_measured(watch_check: WatchCheck, cluster: FakeCluster, metrics: Metrics) -> None:
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2}
    await check_all(watch_check)
    assert 'modelexport_watch_lag_objects{resource="jobs"} 2.0' in metrics.render().decode()
    cluster.listed[JOBS] = {}
    await check_all(watch_check)
    assert 'modelexport_watch_lag_objects{resource="jobs"} 0.0' in metrics.render().decode()


async def test_cached_objects_are_counted_and_excess_is_reported(
    cluster: FakeCluster, controller: Controller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    watch_check = make_watch_check(cluster, controller, metrics, monkeypatch)
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2, ("other", "c"): 3}
    for (namespace, name), version in cluster.listed[JOBS].items():
        job: Body = {
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version)},
            "spec": {},
        }
        controller.handle_event(JOBS, "ADDED", job)
    monkeypatch.setattr("modelexport_operator.runtime.watch_check.CROWDED_NAMESPACE", 1)
    await check_all(watch_check)
    assert 'modelexport_kept_objects{resource="jobs"} 3.0' in metrics.render().decode()
    assert [record.message for record in caplog.records] == [
        "namespace team has 2 labelled jobs; set a quota to limit them"
    ]


async def test_failing_check_is_repeated_soon(
    watch_check: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    watch_check._interval = 60
    cluster.listed[EXPORTS] = {KEY: 50}
    audits = asyncio.create_task(watch_check.run_forever())
    asyncio.get_running_loop().call_later(0.05, controller.handle_event, EXPORTS, None, at(50))
    await asyncio.wait_for(watch_check.synced.wait(), 30)
    audits.cancel()


async def test_check_is_blind_after_three_unanswered_attempts(
    watch_check: WatchCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=time.monotonic() + 100)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, process_time=time.process_time))
    assert watch_check.is_stale
    await check_all(watch_check)
    assert not watch_check.is_stale
    clock.now += 0.08
    assert not watch_check.is_stale
    clock.now += 0.02
    assert watch_check.is_stale


async def test_silent_api_server_blinds_check_but_blames_no_watch(
    watch_check: WatchCheck, cluster: FakeCluster
) -> None:
    await check_all(watch_check)
    cluster.is_down = True
    await asyncio.sleep(3 * (watch_check._interval + watch_check._lag_tolerance))
    await check_all(watch_check)
    assert watch_check.is_stale
    assert watch_check.lagging == {}


async def test_watch_of_one_namespace_does_not_excuse_another(
    narrow: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    elsewhere = at(200)
    elsewhere["metadata"]["namespace"] = "other"
    controller.handle_event(EXPORTS, "DELETED", elsewhere)
    await check_all(narrow)
    assert narrow.lagging == {EXPORTS: 1}


async def test_check_of_one_namespace_keeps_objects_of_another(
    narrow: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    elsewhere = at(60)
    elsewhere["metadata"]["namespace"] = "other"
    controller.handle_event(EXPORTS, None, at(50))
    controller.handle_event(EXPORTS, None, elsewhere)
    cluster.listed[EXPORTS] = {KEY: 50, ("other", "shapes"): 60}
    await check_all(narrow)
    assert len(controller.cache[EXPORTS]) == 2


@pytest.fixture
async def patient(cluster: FakeCluster, controller: Controller, virtual_time: None) -> AsyncIterator[WatchCheck]:
    """A watch check as in a running operator, in virtual time."""
    watch_check = WatchCheck(cluster, controller, Metrics(), scopes_of(WATCHED, ()), interval=60, lag_tolerance=15)  # type: ignore[arg-type]
    audits = asyncio.create_task(watch_check.run_forever())
    yield watch_check
    audits.cancel()


async def test_list_of_informer_counts_as_first_check(cluster: FakeCluster, virtual_time: None) -> None:
    scopes, controller = scopes_of(WATCHED, ()), Controller(cluster, Metrics())  # type: ignore[arg-type]
    watch_check = WatchCheck(cluster, controller, Metrics(), scopes, interval=60, lag_tolerance=15)  # type: ignore[arg-type]
    cluster.listed[JOBS] = {KEY: 50}
    tell = watch_check.await_list(Scope(JOBS))
    checks = asyncio.create_task(watch_check.run_forever())
    await asyncio.sleep(30)
    assert not watch_check.synced.is_set()
    tell()
    await asyncio.sleep(1)
    assert watch_check.synced.is_set()
    assert JOBS not in {resource for resource, _ in cluster.asked}
    await asyncio.sleep(80)
    assert watch_check.lagging == {JOBS: 1}
    checks.cancel()


async def test_unlistable_scope_is_retried_alone(patient: WatchCheck, cluster: FakeCluster) -> None:
    await asyncio.sleep(50)
    cluster.down = {JOBS}
    cluster.asked.clear()
    asyncio.get_running_loop().call_later(20, cluster.down.clear)
    await asyncio.sleep(40)
    tries = [at for resource, at in cluster.asked if resource is JOBS]
    assert 3 <= len(tries) <= 5
    assert all(later - earlier >= 3 for earlier, later in pairwise(tries))
    assert Counter(resource for resource, _ in cluster.asked) == {**dict.fromkeys(WATCHED, 1), JOBS: len(tries)}


async def test_failed_list_is_retried_within_seconds(patient: WatchCheck, cluster: FakeCluster) -> None:
    await asyncio.sleep(50)
    cluster.is_down = True
    await asyncio.sleep(200)
    cluster.is_down = False
    before = len(cluster.asked)
    await asyncio.sleep(LAST_SECONDS * (1 + JITTER))
    assert {resource for resource, _ in cluster.asked[before:]} == set(WATCHED)


async def test_watch_catching_up_late_is_no_longer_stale(
    patient: WatchCheck, cluster: FakeCluster, controller: Controller
) -> None:
    await asyncio.sleep(50)
    cluster.listed[EXPORTS] = {KEY: 50}
    await asyncio.sleep(30)
    assert patient.lagging == {EXPORTS: 1}
    controller.handle_event(EXPORTS, None, at(50))
    await asyncio.sleep(2)
    assert patient.lagging == {}


def charge_for_lists(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster, cost: float) -> None:
    """Let every list cost so many seconds of processor time; all scopes are listed at once."""

    def spent() -> float:
        return cost * sum(resource is JOBS for resource, _ in cluster.asked)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=asyncio.get_running_loop().time, process_time=spent))


@pytest.mark.parametrize("figures", [(0.05, 0.5, 60), (0.05, 9.0, 60), (0.25, 9.0, 150), (9.0, 9.0, 180)])
async def test_costly_list_is_requested_seldom_but_slow_one_is_not(
    patient: WatchCheck, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, figures: tuple[float, float, int]
) -> None:
    cost, seconds, pause = figures
    charge_for_lists(monkeypatch, cluster, cost)
    cluster.seconds = seconds
    await asyncio.sleep(2300)
    times = [at for resource, at in cluster.asked if resource is JOBS]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[1:] == pytest.approx([pause + seconds] * len(gaps[1:]))
    assert not patient.is_stale


@pytest.mark.parametrize("figures", [(0.25, 60, 150), (1.0, 60, 720), (9.0, 60, 1800), (9.0, 9999, LONGEST_PAUSE)])
async def test_bookmark_passes_as_check_where_list_is_costly(
    patient: WatchCheck, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, figures: tuple[float, float, float]
) -> None:
    cost, seconds_between_bookmarks, gap = figures

    async def send_bookmarks() -> None:
        while True:
            patient.note_bookmark(Scope(JOBS))
            await asyncio.sleep(seconds_between_bookmarks)

    charge_for_lists(monkeypatch, cluster, cost)
    sending = asyncio.create_task(send_bookmarks())
    await asyncio.sleep(8000)
    sending.cancel()
    times = [at for resource, at in cluster.asked if resource is JOBS]
    gaps = [later - earlier for earlier, later in pairwise(times)][1:]
    assert gaps == pytest.approx([gap] * len(gaps), abs=1)
    assert not patient.is_stale
