"""Node pools on the real scheduler: KWOK's nodes with other CPUs, GPUs and taints, beside the real node."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.support import CLASSIFIER, INPUTS, SECONDS, Body, Workspace, build_export, find_condition
from testcluster import kwok
from testcluster.bootstrap import kubectl
from testcluster.layout import NODE_NAME

pytestmark = pytest.mark.own_cluster("the name of its node, and KWOK")

IMAGES = {"dataset": {"uri": f"s3://{INPUTS}/images.zip"}, "samples": 8192}
MODEL = {
    "architecture": "YOLOv8-CLS",
    "checkpoint": {"uri": CLASSIFIER},
    "parameters": {"inputSize": [160, 160]},
}
"""So many images of this size make a calibration prefer devices; at a larger one the model would see nothing."""
THREE = ("ONNX/FP32", "ONNX/FP16", "ONNX/INT8")


@pytest.fixture
def pools(space: Workspace) -> Iterator[str]:
    """The value of the label ``pool`` for nodes of this test; simulated nodes are deleted at the end."""
    yield space.name
    kubectl("delete", "nodes", f"--selector={kwok.LABEL},pool", "--wait=false")
    kubectl("label", "node", NODE_NAME, "pool-")


def pool(label: str, name: str, **fields: Any) -> Body:
    """A node pool by its label; Pods bear the taint of KWOK's nodes there."""
    return {"name": name, "nodeSelector": {"pool": label}, "tolerations": [kwok.TAINT], **fields}


def nodes_of(space: Workspace) -> dict[str, str]:
    """The node of every Pod by the precision of its target."""
    pods = [pod for pod in space.read_all("pods") if pod["spec"].get("nodeName")]
    return {pod["metadata"]["labels"]["modelexport.dev/precision"]: pod["spec"]["nodeName"] for pod in pods}


def test_targets_spread_over_arm_gpu_and_real_nodes(space: Workspace, pools: str) -> None:
    arm, gpu = f"arm-{pools}", f"gpu-{pools}"
    kwok.add_nodes(
        kwok.build_node(arm, "arm64", {"pool": f"{pools}-arm"}), kwok.build_node(gpu, "amd64", {"pool": f"{pools}-gpu"})
    )
    kubectl("taint", "node", gpu, "nvidia.com/gpu=present:NoSchedule")
    kubectl("label", "node", NODE_NAME, f"pool={pools}")
    tolerations = [kwok.TAINT, {"key": "nvidia.com/gpu", "operator": "Exists"}]
    resources = {"nvidia.com/gpu": 1, "memory": "64Gi"}
    gpus = pool(f"{pools}-gpu", "gpu", work=["Calibration"], resources=resources, tolerations=tolerations)
    node_pools = [pool(f"{pools}-arm", "arm", precisions=["FP32"]), pool(pools, "real"), gpus]
    class_name = space.create_class(nodePools=node_pools)
    space.apply(build_export("model", *THREE, className=class_name, model=MODEL, calibration=IMAGES))
    space.wait("jobs", "create")
    deadline = time.monotonic() + SECONDS
    while len(nodes_of(space)) < len(THREE) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert nodes_of(space) == {"FP32": arm, "FP16": NODE_NAME, "INT8": gpu}
    # Only the real node converts; a simulated one leaves no result, and its target fails with these words.
    space.wait("mx/model", "condition=Stalled")
    targets = {target["precision"]: target for target in space.read("mx/model")["status"]["targets"]}
    assert (targets["FP16"]["state"], targets["FP16"]["nodeName"]) == ("Succeeded", NODE_NAME)
    assert targets["FP16"]["artifact"]["sizeBytes"] > 0
    assert {targets[precision]["reason"] for precision in ("FP32", "INT8")} == {"InternalError"}


def test_missing_node_is_reported_until_suitable_node_appears(space: Workspace, pools: str) -> None:
    class_name = space.create_class(nodePools=[pool(pools, "late")])
    space.apply(build_export("model", "LiteRT/FP32", className=class_name))
    expect_missing(space, f"no node has the labels pool={pools}")
    kwok.add_nodes(kwok.build_node(f"arm-{pools}", "arm64", {"pool": pools}))
    expect_missing(space, "needs a CPU of amd64, its nodes have arm64")
    kwok.add_nodes(kwok.build_node(f"small-{pools}", "amd64", {"pool": pools}, memory="256Mi"))
    expect_missing(space, "of memory, its largest node has 256Mi")
    patch = json.dumps({"spec": {"nodePools": [{**pool(pools, "late"), "tolerations": []}]}})
    kubectl("patch", "exportclass", class_name, "--type=merge", f"--patch={patch}")
    expect_missing(space, "does not tolerate the taint kwok=fake:NoSchedule of its nodes")
    assert space.read_all("jobs") == []
    kubectl("label", "node", NODE_NAME, f"pool={pools}")
    space.wait("mx/model", "condition=Ready")
    assert space.target("model")["nodeName"] == NODE_NAME


def expect_missing(space: Workspace, words: str) -> None:
    """Wait until the export names the label that no node has."""
    deadline = time.monotonic() + 120
    while words not in message_of(space):
        assert time.monotonic() < deadline, f"{words!r} is not in {message_of(space)!r}"
        time.sleep(0.3)
    ready = find_condition(space.read("mx/model"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoSuitableNode")


def message_of(space: Workspace) -> str:
    """The message of the Ready condition; empty before there is one."""
    body = space.read("mx/model")
    return str(find_condition(body, "Ready")["message"]) if "conditions" in body["status"] else ""
