"""A control plane at scale: that of the integration tests, with a scheduler and with nodes simulated by KWOK."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.operator.client import is_answering
from testcluster.layout import tool
from testplane.control_plane import ControlPlane, run_process, start_control_plane, wait_until

HERE = Path(__file__).parent
NODES = 10
NAMESPACE = "bench"
CAPACITY = {"cpu": "1000", "memory": "4Ti", "pods": "10000", "ephemeral-storage": "40Ti"}
GO_MEMORY = {"GOGC": "200", "GOMEMLIMIT": "12GiB"}
"""For the control plane: by default kube-apiserver spends two fifths of its processor time collecting garbage. With
8 GiB it begins to crawl at 25,000 Jobs and as many Pods."""
# The default of 50 requests per second would be the bottleneck of every contender.
SCHEDULER_RATE = ("--kube-api-qps=500", "--kube-api-burst=1000")


@contextmanager
def start_scale_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane on which Pods are scheduled, run and succeed by themselves; stop it at the end."""
    with start_control_plane(folder) as plane, _scheduler(plane), _kwok(plane):
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl(
            "create",
            "--filename=-",
            text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(map(_node, _node_names()))}),
        )
        # The controller that removes the taint of a new node does not run.
        plane.kubectl("patch", "nodes", *_node_names(), "--type=merge", '--patch={"spec":{"taints":null}}')
        plane.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
        yield plane


def wait_until_served(plane: ControlPlane, path: str) -> None:
    """Wait until the API server serves the kind of a new CRD."""
    wait_until(f"{path} to be served", lambda: is_answering(plane.address + path, plane.certificate))


def _node_names() -> list[str]:
    return [f"kwok-{index}" for index in range(NODES)]


def _node(name: str) -> dict[str, object]:
    labels = {"type": "kwok", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }


@contextmanager
def _scheduler(plane: ControlPlane) -> Iterator[None]:
    flags = [f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false", "--secure-port=0", *SCHEDULER_RATE]
    with run_process([tool("kube-scheduler"), *flags], plane.folder / "scheduler.log"):
        yield


@contextmanager
def _kwok(plane: ControlPlane) -> Iterator[None]:
    flags = [
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={HERE / 'kwok.yaml'}",
        "--manage-nodes-with-label-selector=type=kwok",
        "--node-lease-duration-seconds=40",
    ]
    environment = {**os.environ, "HOME": str(plane.folder)}
    with run_process([tool("kwok"), *flags], plane.folder / "kwok.log", environment):
        yield
