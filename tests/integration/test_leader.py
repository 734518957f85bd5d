"""Two operators, one leader: the follower keeps its cache current, writes nothing, and takes over in time."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.kubelet import play_kubelet, succeed
from integration.proxy import Proxy
from testplane.api import EXPORTS, JOBS, PODS, Api, Body
from testplane.control_plane import TIMEOUT_SECONDS, ControlPlane
from testplane.objects import make_export
from testplane.process import Operator

LEASE = "/apis/coordination.k8s.io/v1/namespaces/modelexport-system/leases"
LEASE_NAME = "modelexport-operator"
LOOK, CLAIM = f"GET {LEASE}/{LEASE_NAME}", f"PUT {LEASE}/{LEASE_NAME}"
LEASE_SECONDS, RETRY_SECONDS = 3, 0.3
LONG = {
    "MODELEXPORT_LEADER_ELECTION": "true",
    "MODELEXPORT_LEASE_SECONDS": "300",
    "MODELEXPORT_LEASE_RENEW_SECONDS": "200",
    "MODELEXPORT_LEASE_RETRY_SECONDS": str(RETRY_SECONDS),
}
"""So long that no leader loses its Lease because the machine is busy with other things."""
SHORT = {
    **LONG,
    "MODELEXPORT_LEASE_SECONDS": str(LEASE_SECONDS),
    "MODELEXPORT_LEASE_RENEW_SECONDS": "2",
}
TARGETS = ("ONNX/FP16", "ONNX/FP32")


@pytest.fixture(autouse=True)
def lease(plane: ControlPlane) -> Iterator[None]:
    """Delete the Lease of earlier tests."""
    yield
    plane.kubectl("delete", "leases", "--all", "--namespace=modelexport-system")


@contextmanager
def leader_and_follower(plane: ControlPlane, proxy: Proxy, folder: Path) -> Iterator[tuple[Operator, Operator]]:
    """A leader with a direct connection to the API server, and a follower whose requests the proxy counts."""
    first, second = folder / "first", folder / "second"
    first.mkdir()
    second.mkdir()
    leader = Operator(plane.address, first, plane.certificate, **LONG)
    follower = Operator(proxy.address, second, **LONG)
    with leader.running():
        wait_to_lead(Api(plane, "default"), leader)
        with follower.running():
            yield leader, follower


def wait_to_lead(api: Api, operator: Operator) -> None:
    api.wait_for("the operator to lead", lambda: leads(operator))


def leads(operator: Operator) -> bool:
    return "modelexport_leader 1.0" in operator.ask("/metrics")[1]


def begin(api: Api, name: str = "shapes") -> None:
    body = make_export(*TARGETS)
    body["metadata"] = {"name": name}
    api.create(EXPORTS, body)


def let_run_out(api: Api) -> None:
    """Shorten the Lease of a dead leader: with so short a Lease from the start, it might have lost it earlier."""
    api.patch(f"{LEASE}/{LEASE_NAME}", {"spec": {"leaseDurationSeconds": LEASE_SECONDS}})


def holder(api: Api) -> Body:
    [lease] = api.list(LEASE)
    return lease["spec"]  # type: ignore[no-any-return]


def test_standby_is_ready_and_writes_nothing(api: Api, plane: ControlPlane, proxy: Proxy, tmp_path: Path) -> None:
    with leader_and_follower(plane, proxy, tmp_path) as (leader, follower):
        proxy.watch_over(api.namespace)
        begin(api)
        with play_kubelet(api):
            api.wait_for_reason("Succeeded")
        assert proxy.writes == []
        assert follower.ask("/readyz") == (200, "ok\n")
        assert (leads(leader), leads(follower)) == (True, False)
        assert "modelexport_queue_depth 0.0" in follower.ask("/metrics")[1]
        counted = 'modelexport_exports{state="Succeeded"}'
        api.wait_for("the leader to count the export", lambda: counted in leader.ask("/metrics")[1])
        assert "modelexport_exports{" not in follower.ask("/metrics")[1]


def test_killed_leader_is_replaced_without_duplicate_jobs(
    api: Api, plane: ControlPlane, proxy: Proxy, tmp_path: Path
) -> None:
    with leader_and_follower(plane, proxy, tmp_path) as (leader, follower):
        proxy.watch_over(api.namespace)
        begin(api)
        api.wait_for("the Jobs", lambda: len(api.list(JOBS)) == len(TARGETS))
        before = {job["metadata"]["uid"] for job in api.list(JOBS)}
        leader.kill()
        let_run_out(api)
        begin(api, "more")
        begun = len(proxy.asked)
        wait_to_lead(api, follower)
        asked = proxy.asked[begun:]
        # Counts reads instead of seconds: a busy machine makes fewer of them in this time, never more.
        assert asked[: asked.index(CLAIM)].count(LOOK) <= LEASE_SECONDS / RETRY_SECONDS + 3
        with play_kubelet(api):
            api.wait_for_reason("Succeeded")
            api.wait_for_reason("Succeeded", "more")
        jobs = api.list(JOBS)
        assert before < {job["metadata"]["uid"] for job in jobs}
        assert len(jobs) == len(api.list(PODS)) == 2 * len(TARGETS)
        creations = [write for write in proxy.writes if write.startswith("POST") and write.endswith("/jobs")]
        assert len(creations) == len(TARGETS)
        assert holder(api)["leaseTransitions"] == 1


def test_stopped_leader_releases_lease_and_is_replaced_at_once(
    api: Api, plane: ControlPlane, proxy: Proxy, tmp_path: Path
) -> None:
    # If the Lease had to expire first, there would be no leader within this test.
    with leader_and_follower(plane, proxy, tmp_path) as (leader, follower):
        assert leader.process is not None
        leader.process.send_signal(signal.SIGTERM)
        assert leader.process.wait(TIMEOUT_SECONDS) == 0
        wait_to_lead(api, follower)


def test_frozen_leader_writes_nothing_after_waking_and_exits(
    api: Api, plane: ControlPlane, proxy: Proxy, tmp_path: Path
) -> None:
    frozen, other = tmp_path / "frozen", tmp_path / "other"
    frozen.mkdir()
    other.mkdir()
    sleeper, successor = (
        Operator(proxy.address, frozen, **SHORT),
        Operator(plane.address, other, plane.certificate, **LONG),
    )
    with sleeper.running():
        wait_to_lead(api, sleeper)
        assert sleeper.process is not None
        with successor.running():
            begin(api)
            api.wait_for("the Jobs", lambda: len(api.list(JOBS)) == len(TARGETS))
            api.wait_for("the first status", api.ready)
            os.kill(sleeper.process.pid, signal.SIGSTOP)
            wait_to_lead(api, successor)
            proxy.watch_over(api.namespace)
            with play_kubelet(api, succeed):
                api.wait_for_reason("Succeeded")
            os.kill(sleeper.process.pid, signal.SIGCONT)
            assert sleeper.process.wait(TIMEOUT_SECONDS) == 75
            assert proxy.writes == []
    assert "is no longer the leader" in sleeper.log.read_text()
    api.wait_for_event("Succeeded")


def test_namespaced_operator_needs_no_cluster_rights(api: Api, plane: ControlPlane, tmp_path: Path) -> None:
    operator = Operator(plane.address, tmp_path, plane.certificate, MODELEXPORT_NAMESPACES=f"{api.namespace},other")
    elsewhere = Api(plane, "default")
    with operator.running():
        begin(elsewhere)
        begin(api)
        with play_kubelet(api):
            api.wait_for_reason("Succeeded")
        assert elsewhere.get(EXPORTS, "shapes")["status"] == {"observedGeneration": -1}
    elsewhere.delete(EXPORTS, "shapes")
