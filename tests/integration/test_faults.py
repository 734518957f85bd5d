"""Cut connections, lost answers and errors at every write: the outcome is always the same."""

from collections.abc import Iterator

import pytest

from integration.proxy import Fault, Proxy
from integration.scenario import STEPS, begin_scenario, check_the_end, run_scenario
from testplane.api import EVENTS, EXPORTS, JOBS, Api
from testplane.control_plane import ControlPlane
from testplane.process import Operator


@pytest.fixture(scope="module")
def disturbed(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator that reaches the API server through the proxy, for all tests of this module."""
    operator = Operator(proxy.address, tmp_path_factory.mktemp("disturbed"))
    with operator.running():
        yield operator


def test_undisturbed_scenario_writes_everything_once(api: Api, proxy: Proxy, disturbed: Operator) -> None:
    proxy.watch_over(api.namespace)
    run_scenario(api)
    check_the_end(api)
    api.wait_for("the last event", lambda: proxy.writes[-1].endswith("/events"))
    creations = [write for write in proxy.writes if write.startswith("POST") and "/jobs" in write]
    assert len(creations) == 2
    assert proxy.writes.index(creations[1]) < next(i for i, write in enumerate(proxy.writes) if write.startswith("PUT"))
    assert len(proxy.writes) <= max(STEPS)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["not-carried-out", "answer-lost"])
def test_dropped_connection_changes_nothing(
    api: Api, proxy: Proxy, disturbed: Operator, step: int, after: bool
) -> None:
    proxy.watch_over(api.namespace, Fault(step, after))
    run_scenario(api)
    check_the_end(api)
    ends = {"Succeeded", "VerificationFailed", "TargetsFailed"}
    api.wait_for("all final events", lambda: ends <= {event["reason"] for event in api.list(EVENTS)})


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", [409, 429, 500])
def test_api_server_error_changes_nothing(api: Api, proxy: Proxy, disturbed: Operator, step: int, status: int) -> None:
    proxy.watch_over(api.namespace, Fault(step, status=status))
    run_scenario(api)
    check_the_end(api)


def test_overloaded_api_server_is_not_hammered(api: Api, proxy: Proxy, disturbed: Operator) -> None:
    proxy.watch_over(api.namespace, Fault(1, status=500, times=8))
    run_scenario(api)
    check_the_end(api)
    assert len(proxy.writes) <= 3 * max(STEPS)  # Without backoff these would be hundreds.


def test_rejected_job_is_reported_and_retried(api: Api, proxy: Proxy, disturbed: Operator) -> None:
    proxy.watch_over(api.namespace, Fault(1, status=403, times=2))
    begin_scenario(api)
    api.wait_for_reason("TargetsFailed")
    assert {target["reason"] for target in api.targets().values()} == {"JobRefused"}
    assert "injected by the test" in api.targets()["ONNX/FP16"]["message"]
    api.patch(f"{EXPORTS}/shapes", {"spec": {"ttlSecondsAfterFinished": 9999}})
    # Without the change it would take 60 s.
    api.wait_for("the Jobs", lambda: len(api.list(JOBS)) == 2, seconds=50)


def test_two_operators_duplicate_nothing(
    api: Api, plane: ControlPlane, disturbed: Operator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = Operator(plane.address, tmp_path_factory.mktemp("second"), plane.certificate)
    with second.running():
        run_scenario(api)
    check_the_end(api)
