"""Simulated nodes (KWOK), for measurements at scale and for node pools that this machine cannot provide."""

import json
from collections.abc import Mapping

from testcluster.bootstrap import kubectl

LABEL = "type=kwok"
CAPACITY = {"cpu": "1000", "memory": "4Ti", "pods": "100000", "ephemeral-storage": "4Ti", "nvidia.com/gpu": "8"}


TAINT = {"key": "kwok", "value": "fake", "effect": "NoSchedule"}


def build_node(
    name: str, architecture: str, labels: Mapping[str, str] | None = None, **capacity: str
) -> dict[str, object]:
    """Return a large node with eight GPUs; its taint repels all Pods that do not tolerate it.

    Args:
        name: its name.
        architecture: the architecture of its CPU, as Kubernetes spells it.
        labels: additional labels.
        capacity: changes of the usual capacity, with ``_`` for ``-``.
    """
    own = {"type": "kwok", "kubernetes.io/arch": architecture, "kubernetes.io/hostname": name}
    offered = CAPACITY | {key.replace("_", "-"): amount for key, amount in capacity.items()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**own, **(labels or {})}},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": offered, "allocatable": offered},
    }


def add_nodes(*nodes: dict[str, object]) -> None:
    """Add nodes, and wait until they are ready.

    Raises:
        subprocess.CalledProcessError: the API server refuses one, or they do not become ready.
    """
    kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(nodes)}))
    kubectl("wait", "--for=condition=Ready", "nodes", f"--selector={LABEL}", "--timeout=180s")


def set_nodes(count: int, architecture: str = "arm64") -> None:
    """Run exactly the given number of simulated nodes, and wait until they are ready.

    Raises:
        subprocess.CalledProcessError: the API server refuses one, or they do not become ready.
    """
    kubectl("delete", "nodes", f"--selector={LABEL}")
    if count:
        add_nodes(*(build_node(f"kwok-{index}", architecture) for index in range(count)))
