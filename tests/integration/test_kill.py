"""An operator that is killed at every write and restarted: the outcome is always the same."""

from pathlib import Path

import pytest

from integration.kubelet import play_kubelet
from integration.proxy import Fault, Proxy
from integration.scenario import ENDS, STEPS, begin_scenario, check_the_end
from testplane.api import Api
from testplane.process import Operator


@pytest.mark.parametrize("step", [pytest.param(step, marks=pytest.mark.xdist_group(f"step-{step}")) for step in STEPS])
@pytest.mark.parametrize("after", [False, True], ids=["before-the-write", "after-the-write"])
def test_restart_after_kill_reaches_same_result(api: Api, proxy: Proxy, tmp_path: Path, step: int, after: bool) -> None:
    operator = Operator(proxy.address, tmp_path)
    proxy.watch_over(api.namespace, Fault(step, after, then=operator.kill))
    with play_kubelet(api, ENDS):
        with operator.running():
            begin_scenario(api)
            api.wait_for("the kill or the end", lambda: not operator.is_alive() or has_ended(api))
        proxy.fault = None  # If the first process made fewer writes, the fault would strike the second.
        with operator.running():
            api.wait_for_reason("TargetsFailed")
    check_the_end(api)


def has_ended(api: Api) -> bool:
    return api.ready().get("reason") == "TargetsFailed"
