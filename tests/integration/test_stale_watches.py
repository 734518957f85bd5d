"""The operator reads the state that a silent watch withholds: it reports no false failure, and deletes nothing."""

from collections.abc import Iterator

import pytest

from integration.kubelet import play_kubelet, succeed
from integration.proxy import Proxy
from testplane.api import EXPORTS, PODS, Api, Body
from testplane.objects import make_export
from testplane.process import Operator


@pytest.fixture(scope="module")
def deaf(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator whose watch of Pods is silent; it checks its watches every ten minutes."""
    operator = Operator(proxy.address, tmp_path_factory.mktemp("deaf"), MODELEXPORT_WATCH_CHECK_SECONDS="600")
    proxy.deaf_to = "pods"
    with operator.running():
        yield operator
    proxy.deaf_to = ""


def begin(api: Api, *targets: str) -> None:
    body = make_export(*targets)
    body["metadata"] = {"name": "shapes"}
    api.create(EXPORTS, body)


def succeed_and_go(api: Api, pod: Body) -> None:
    """Succeed, and be evicted in the same moment."""
    succeed(api, pod)
    api.delete(PODS, pod["metadata"]["name"])


def test_success_is_recorded_while_pod_watch_is_stale(api: Api, deaf: Operator) -> None:
    begin(api, "ONNX/FP16", "ONNX/FP32")
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert not api.reasons_of_events() & {"InternalError", "Retrying", "TargetsFailed"}


def test_conversion_is_repeated_when_pod_vanishes_at_its_end(api: Api, deaf: Operator) -> None:
    begin(api, "ONNX/FP16")
    with play_kubelet(api, {"ONNX/FP16": [succeed_and_go, succeed]}):
        api.wait_for_reason("Succeeded")
    assert api.targets()["ONNX/FP16"]["jobName"].endswith("-2")
    api.wait_for_event("Retrying")


def test_conversion_is_repeated_at_most_once(api: Api, deaf: Operator) -> None:
    begin(api, "ONNX/FP16")
    with play_kubelet(api, succeed_and_go):
        api.wait_for_reason("TargetsFailed")
    assert "ended well twice" in api.targets()["ONNX/FP16"]["message"]
