"""Nodes that only pretend, for measurements at scale and for pools of machines that nobody has here."""

import json

from cluster.bootstrap import kubectl

LABEL = "type=kwok"
CAPACITY = {"cpu": "1000", "memory": "4Ti", "pods": "100000", "ephemeral-storage": "4Ti", "nvidia.com/gpu": "8"}


def build_node(index: int, architecture: str) -> dict[str, object]:
    """Return a large node with eight GPUs; its taint keeps away every Pod that does not ask for it."""
    name = f"kwok-{index}"
    labels = {"type": "kwok", "kubernetes.io/arch": architecture, "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": "kwok", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }


def set_nodes(count: int, architecture: str = "arm64") -> None:
    """Have exactly that many pretending nodes, and wait until they are ready.

    Raises:
        subprocess.CalledProcessError: the API server refuses one, or they do not become ready.
    """
    kubectl("delete", "nodes", f"--selector={LABEL}")
    if count:
        nodes = [build_node(index, architecture) for index in range(count)]
        kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
        kubectl("wait", "--for=condition=Ready", "nodes", f"--selector={LABEL}", "--timeout=60s")
