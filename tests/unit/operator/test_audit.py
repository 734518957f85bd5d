import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace

import pytest

from modelexport_operator import audit as module
from modelexport_operator.audit import Audit
from modelexport_operator.backoff import JITTER, LAST_SECONDS
from modelexport_operator.cluster import Listing, UnavailableError
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import EXPORTS, JOBS, WATCHED, Resource, Scope, scopes_of
from modelexport_operator.stores import Key
from unit.operator.objects import Body, make_export

KEY = ("team", "shapes")


class FakeCluster:
    """Lists what it is told to."""

    def __init__(self) -> None:
        self.listed: dict[Resource, dict[Key, int]] = {resource: {} for resource in WATCHED}
        self.version = 100
        self.is_down = False
        self.down: set[Resource] = set()
        self.asked: list[tuple[Resource, float]] = []

    async def list_versions(self, scope: Scope) -> Listing:
        self.asked.append((scope.resource, asyncio.get_running_loop().time()))
        if self.is_down or scope.resource in self.down:
            raise UnavailableError("down", retry_after=3)
        listed = {key: version for key, version in self.listed[scope.resource].items() if scope.holds(key[0])}
        return Listing(self.version, listed)


async def check_all(audit: Audit) -> None:
    """Check every scope once; what cannot be listed is left out."""
    await asyncio.gather(*map(audit.check, audit._scopes), return_exceptions=True)


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
def audit(cluster: FakeCluster, controller: Controller, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Audit:
    return make_audit(cluster, controller, metrics, monkeypatch)


@pytest.fixture
def narrow(cluster: FakeCluster, controller: Controller, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """The audit of an operator that serves two namespaces."""
    return make_audit(cluster, controller, metrics, monkeypatch, "team", "other")


def make_audit(
    cluster: FakeCluster, controller: Controller, metrics: Metrics, patch: pytest.MonkeyPatch, *namespaces: str
) -> Audit:
    patch.setattr(module, "POLL_SECONDS", 0.005)
    scopes = scopes_of(WATCHED, namespaces)
    return Audit(cluster, controller, metrics, scopes, every=0.01, patience=0.02)  # type: ignore[arg-type]


async def test_an_empty_cluster_is_heard_at_once(audit: Audit) -> None:
    await check_all(audit)
    assert audit.primed.is_set()
    assert audit.lagging == {}


async def test_an_audit_is_recorded_when_the_api_server_has_answered(
    audit: Audit, cluster: FakeCluster, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 300.0)
    cluster.is_down = True
    await check_all(audit)
    recorded = "modelexport_last_audit_timestamp_seconds 300.0"
    assert recorded not in metrics.render().decode()
    cluster.is_down = False
    await check_all(audit)
    assert recorded in metrics.render().decode()


async def test_nothing_is_primed_before_everything_was_heard(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    await check_all(audit)
    assert not audit.primed.is_set()
    assert audit.lagging == {EXPORTS: 1}
    controller.take_over(EXPORTS, None, at(50))
    await check_all(audit)
    assert audit.primed.is_set()
    assert audit.lagging == {}


async def test_an_object_in_an_older_version_is_a_lag(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    controller.take_over(EXPORTS, None, at(50))
    cluster.listed[EXPORTS] = {KEY: 60}
    await check_all(audit)
    assert audit.lagging == {EXPORTS: 1}


async def test_an_object_that_was_deleted_after_the_listing_is_no_lag(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.take_over(EXPORTS, None, at(50))
    controller.take_over(EXPORTS, "DELETED", at(101))
    await check_all(audit)
    assert audit.lagging == {}


async def test_an_object_that_is_no_longer_listed_is_forgotten_and_its_key_marked(
    audit: Audit, controller: Controller
) -> None:
    controller.take_over(EXPORTS, None, at(50))
    await controller.queue.take()
    controller.queue.done(KEY)
    await check_all(audit)
    assert controller.stores[EXPORTS].get(KEY) is None
    assert len(controller.queue) == 1


async def test_an_object_that_is_newer_than_the_listing_is_kept(audit: Audit, controller: Controller) -> None:
    controller.take_over(EXPORTS, None, at(150))
    await check_all(audit)
    assert controller.stores[EXPORTS].get(KEY) is not None


async def test_a_busy_watch_excuses_no_object_that_it_never_told(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50, ("team", "other"): 60}
    other = at(200)
    other["metadata"]["name"] = "other"
    controller.take_over(EXPORTS, "MODIFIED", other)
    await check_all(audit)
    assert audit.lagging == {EXPORTS: 1}


async def test_a_deletion_that_was_not_told_is_a_lag(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    controller.take_over(EXPORTS, None, at(50))
    await check_all(audit)
    assert audit.lagging == {EXPORTS: 1}
    await check_all(audit)
    assert audit.lagging == {}


async def test_an_object_that_cannot_be_read_is_no_lag(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.take_over(EXPORTS, "DELETED", at(50))
    for _ in range(2):
        await check_all(audit)
        assert audit.lagging == {}
    cluster.listed[EXPORTS] = {KEY: 60}
    await check_all(audit)
    assert audit.lagging == {EXPORTS: 1}


async def test_one_deaf_watch_is_named_and_the_others_are_not(audit: Audit, cluster: FakeCluster) -> None:
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2}
    await check_all(audit)
    assert audit.lagging == {JOBS: 2}


async def test_a_watch_that_catches_up_within_the_patience_has_not_fallen_behind(
    audit: Audit, cluster: FakeCluster, controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    audit._patience = 60
    cluster.listed[EXPORTS] = {KEY: 50}
    asyncio.get_running_loop().call_later(0.01, controller.take_over, EXPORTS, None, at(50))
    await check_all(audit)
    assert audit.primed.is_set()
    assert caplog.text == ""


async def test_an_audit_that_passes_takes_no_longer_than_it_has_to(audit: Audit, cluster: FakeCluster) -> None:
    audit._patience = 60
    await asyncio.wait_for(check_all(audit), 30)
    assert audit.primed.is_set()


async def test_a_watch_that_has_come_just_as_far_as_the_listing_has_told_of_every_deletion(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    controller.take_over(EXPORTS, "DELETED", at(100))
    await check_all(audit)
    assert audit.lagging == {}


async def test_a_lag_is_measured_and_its_end_too(audit: Audit, cluster: FakeCluster, metrics: Metrics) -> None:
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2}
    await check_all(audit)
    assert 'modelexport_watch_lag_objects{resource="jobs"} 2.0' in metrics.render().decode()
    cluster.listed[JOBS] = {}
    await check_all(audit)
    assert 'modelexport_watch_lag_objects{resource="jobs"} 0.0' in metrics.render().decode()


async def test_what_is_kept_is_counted_and_a_crowd_is_told(
    cluster: FakeCluster, controller: Controller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    audit = make_audit(cluster, controller, metrics, monkeypatch)
    cluster.listed[JOBS] = {("team", "a"): 1, ("team", "b"): 2, ("other", "c"): 3}
    for (namespace, name), version in cluster.listed[JOBS].items():
        metadata = {"namespace": namespace, "name": name, "resourceVersion": str(version)}
        controller.take_over(JOBS, "ADDED", {"metadata": metadata, "spec": {}})
    monkeypatch.setattr("modelexport_operator.audit.CROWD", 1)
    await check_all(audit)
    assert 'modelexport_kept_objects{resource="jobs"} 3.0' in metrics.render().decode()
    assert [record.message for record in caplog.records] == ["namespace team has 2 jobs of ours; a quota bounds them"]


async def test_until_it_passes_an_audit_is_repeated_soon(
    audit: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    audit._every = 60
    cluster.listed[EXPORTS] = {KEY: 50}
    audits = asyncio.create_task(audit.run_forever())
    asyncio.get_running_loop().call_later(0.05, controller.take_over, EXPORTS, None, at(50))
    await asyncio.wait_for(audit.primed.wait(), 30)
    audits.cancel()


async def test_an_audit_is_blind_only_when_three_in_a_row_had_no_answer(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=time.monotonic() + 100)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    assert audit.is_blind
    await check_all(audit)
    assert not audit.is_blind
    clock.now += 0.08
    assert not audit.is_blind
    clock.now += 0.02
    assert audit.is_blind


async def test_a_silent_api_server_makes_the_audit_blind_and_accuses_no_watch(
    audit: Audit, cluster: FakeCluster
) -> None:
    await check_all(audit)
    cluster.is_down = True
    await asyncio.sleep(3 * (audit._every + audit._patience))
    await check_all(audit)
    assert audit.is_blind
    assert audit.lagging == {}


async def test_a_watch_of_one_namespace_that_has_come_far_does_not_excuse_the_one_of_another(
    narrow: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    cluster.listed[EXPORTS] = {KEY: 50}
    elsewhere = at(200)
    elsewhere["metadata"]["namespace"] = "other"
    controller.take_over(EXPORTS, "DELETED", elsewhere)
    await check_all(narrow)
    assert narrow.lagging == {EXPORTS: 1}


async def test_the_audit_of_one_namespace_forgets_nothing_of_another(
    narrow: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    elsewhere = at(60)
    elsewhere["metadata"]["namespace"] = "other"
    controller.take_over(EXPORTS, None, at(50))
    controller.take_over(EXPORTS, None, elsewhere)
    cluster.listed[EXPORTS] = {KEY: 50, ("other", "shapes"): 60}
    await check_all(narrow)
    assert len(controller.stores[EXPORTS]) == 2


@pytest.fixture
async def patient(cluster: FakeCluster, controller: Controller, virtual_time: None) -> AsyncIterator[Audit]:
    """An audit as it runs in an operator, in virtual time."""
    audit = Audit(cluster, controller, Metrics(), scopes_of(WATCHED, ()), every=60, patience=15)  # type: ignore[arg-type]
    audits = asyncio.create_task(audit.run_forever())
    yield audit
    audits.cancel()


async def test_a_scope_that_cannot_be_listed_is_tried_alone(patient: Audit, cluster: FakeCluster) -> None:
    await asyncio.sleep(50)
    cluster.down = {JOBS}
    cluster.asked.clear()
    asyncio.get_running_loop().call_later(20, cluster.down.clear)
    await asyncio.sleep(40)
    tries = [at for resource, at in cluster.asked if resource is JOBS]
    assert 3 <= len(tries) <= 5
    assert all(later - earlier >= 3 for earlier, later in pairwise(tries))
    assert Counter(resource for resource, _ in cluster.asked) == {**dict.fromkeys(WATCHED, 1), JOBS: len(tries)}


async def test_a_failed_list_is_made_up_for_within_seconds(patient: Audit, cluster: FakeCluster) -> None:
    await asyncio.sleep(50)
    cluster.is_down = True
    await asyncio.sleep(200)
    cluster.is_down = False
    before = len(cluster.asked)
    await asyncio.sleep(LAST_SECONDS * (1 + JITTER))
    assert {resource for resource, _ in cluster.asked[before:]} == set(WATCHED)


async def test_a_watch_that_catches_up_late_is_no_longer_behind(
    patient: Audit, cluster: FakeCluster, controller: Controller
) -> None:
    await asyncio.sleep(50)
    cluster.listed[EXPORTS] = {KEY: 50}
    await asyncio.sleep(30)
    assert patient.lagging == {EXPORTS: 1}
    controller.take_over(EXPORTS, None, at(50))
    await asyncio.sleep(2)
    assert patient.lagging == {}
