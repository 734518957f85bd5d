from typing import Any

import pytest

from modelexport.api.node_pools import NodePool
from modelexport.api.spec import parse_class, parse_export
from modelexport.planning.plan import plan_export
from modelexport_operator.scheduling.node_pools import choose_pool
from testplane.objects import Body, make_class, make_export, make_node

IMAGES = {"dataset": {"uri": "s3://datasets/shapes/calibration.zip"}}
CALIBRATION = {**IMAGES, "samples": 512}
"""Large at 640 x 640, the size of YOLOv8."""


def choose(target: str, pools: list[Body], *nodes: Body, selector: Body | None = None, **export: Any) -> str:
    """The name of the pool, or the message that names the missing property."""
    converter = {"image": "c:1", "nodeSelector": selector or {}}
    parsed = parse_class(make_class(nodePools=pools, converter=converter))
    [request] = plan_export(parse_export(make_export(target, **export)), "s3://exports")
    found = choose_pool(request, parsed, nodes)
    return found.name if isinstance(found, NodePool) else found.message


def tainted(*taints: str, **tolerations: Any) -> str:
    """Offer a node with taints to a pool with a toleration: the pool's name, or the missing toleration."""
    pool = {"name": "pool", "tolerations": [tolerations] if tolerations else []}
    return choose("ONNX/FP16", [pool], make_node(taints=list(taints)))


def test_first_fitting_pool_is_chosen() -> None:
    assert choose("ONNX/FP16", [{"name": "b"}, {"name": "a"}], make_node()) == "b"


@pytest.mark.parametrize(("target", "pool"), [("ONNX/FP16", "arm"), ("LiteRT/FP16", "x86"), ("CoreML/FP16", "x86")])
def test_target_goes_where_converter_can_run(target: str, pool: str) -> None:
    pools = [{"name": "arm", "nodeSelector": {"cpu": "arm"}}, {"name": "x86", "nodeSelector": {"cpu": "x86"}}]
    nodes = make_node("a", "arm64", labels={"cpu": "arm"}), make_node("b", labels={"cpu": "x86"})
    assert choose(target, pools, *nodes) == pool


@pytest.mark.parametrize(
    ("target", "calibration", "pool"),
    [
        ("ONNX/INT8", CALIBRATION, "gpu"),
        ("ONNX/INT8", {**IMAGES, "samples": 511}, "cpu"),
        ("ONNX/INT8", IMAGES, "cpu"),
        ("ONNX/INT8", None, "cpu"),
        ("ONNX/FP16", CALIBRATION, "cpu"),
        # Core ML's INT8 quantises only weights, and needs no calibration.
        ("CoreML/INT8", CALIBRATION, "cpu"),
    ],
)
def test_only_large_static_calibration_prefers_devices(target: str, calibration: Any, pool: str) -> None:
    pools: list[Body] = [{"name": "gpu", "resources": {"nvidia.com/gpu": 1}}, {"name": "cpu"}]
    assert choose(target, pools, make_node(gpu=1), calibration=calibration) == pool


@pytest.mark.parametrize(
    ("architecture", "size", "samples", "pool"),
    [
        ("YOLOv8", [320, 320], 512, "cpu"),
        ("YOLOv8", [320, 320], 2048, "gpu"),
        ("YOLOv8", [1280, 1280], 128, "gpu"),
        ("YOLOv8-CLS", None, 512, "cpu"),
        ("YOLOv8-CLS", None, 4180, "gpu"),
    ],
)
def test_calibration_size_is_images_times_input_size(
    architecture: str, size: list[int] | None, samples: int, pool: str
) -> None:
    pools: list[Body] = [{"name": "gpu", "resources": {"nvidia.com/gpu": 1}}, {"name": "cpu"}]
    model = {
        "architecture": architecture,
        "checkpoint": {"uri": "s3://checkpoints/a.pt"},
        "parameters": {"inputSize": size} if size else {},
    }
    calibration = {**IMAGES, "samples": samples}
    assert choose("ONNX/INT8", pools, make_node(gpu=1), model=model, calibration=calibration) == pool


def test_gpu_is_preferred_not_required() -> None:
    gpu = {"name": "gpu", "resources": {"nvidia.com/gpu": 1}}
    assert choose("ONNX/INT8", [gpu, {"name": "cpu"}], make_node(), calibration=CALIBRATION) == "cpu"
    assert choose("ONNX/FP16", [gpu], make_node(gpu=1)) == "gpu"


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ({"formats": ["ONNX"]}, True),
        ({"formats": ["LiteRT", "CoreML"]}, "takes formats LiteRT, CoreML only"),
        ({"precisions": ["INT8", "FP16"]}, True),
        ({"precisions": ["INT8"]}, "takes precisions INT8 only"),
        ({"work": ["Conversion"]}, True),
        ({"work": ["Calibration"]}, "takes work Calibration only"),
    ],
)
def test_pool_accepts_only_its_targets(fields: Body, takes: bool | str) -> None:
    found = choose("ONNX/FP16", [{"name": "pool", **fields}], make_node())
    assert found == "pool" if takes is True else f"node pool pool: {takes}. Add" in found


def test_class_and_pool_labels_must_both_match() -> None:
    pool = {"name": "pool", "nodeSelector": {"disk": "ssd"}}
    assert choose("ONNX/FP16", [pool], make_node(labels={"disk": "ssd", "zone": "a"}), selector={"zone": "a"}) == "pool"
    words = choose("ONNX/FP16", [pool], make_node(labels={"disk": "ssd"}), selector={"zone": "a"})
    assert "no node has the labels zone=a,disk=ssd" in words


def test_missing_nodes_are_reported() -> None:
    assert "node pool pool: the cluster has no nodes" in choose("ONNX/FP16", [{"name": "pool"}])


def test_on_demand_pool_needs_no_node() -> None:
    assert choose("ONNX/FP16", [{"name": "pool", "provisioned": "OnDemand"}]) == "pool"


def test_on_demand_pool_refuses_unsupported_architecture() -> None:
    arm = {"name": "arm", "provisioned": "OnDemand", "nodeSelector": {"kubernetes.io/arch": "arm64"}}
    assert choose("ONNX/FP32", [arm]) == "arm"
    assert choose("LiteRT/FP32", [arm, {"name": "any", "provisioned": "OnDemand"}]) == "any"
    assert "node pool arm: needs a CPU of amd64, its nodes have arm64" in choose("LiteRT/FP32", [arm])


def test_node_without_architecture_label_is_skipped() -> None:
    node = make_node()
    del node["metadata"]["labels"]
    assert "its nodes have unknown" in choose("ONNX/FP16", [{"name": "pool"}], node)


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "team", "value": "a", "effect": "NoSchedule"},
        {"key": "team", "value": "a"},
        {"key": "team", "operator": "Exists"},
        {"operator": "Exists"},
        {"operator": "Exists", "effect": "NoSchedule"},
    ],
)
def test_matching_toleration_permits_taint(toleration: Body) -> None:
    assert tainted("team=a:NoSchedule", **toleration) == "pool"


@pytest.mark.parametrize(
    "toleration",
    [
        {},
        {"key": "team", "value": "b"},
        {"key": "team"},
        {"key": "other", "operator": "Exists"},
        {"key": "team", "value": "a", "effect": "NoExecute"},
    ],
)
def test_untolerated_taint_blocks_node(toleration: Body) -> None:
    assert "does not tolerate the taint team=a:NoSchedule of its nodes" in tainted("team=a:NoSchedule", **toleration)


def test_every_taint_must_be_tolerated() -> None:
    assert "the taint b:NoExecute of" in tainted("a:NoSchedule", "b:NoExecute", key="a", operator="Exists")


def test_temporary_and_soft_taints_block_nothing() -> None:
    passing = (
        "node.kubernetes.io/unschedulable:NoSchedule",
        "node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule",
    )
    assert tainted(*passing, "team=a:PreferNoSchedule") == "pool"


def test_message_lists_three_taints_and_counts_rest() -> None:
    assert "the taint a:NoSchedule, b:NoSchedule, c:NoSchedule and 2 more of" in tainted(
        *(f"{x}:NoSchedule" for x in "edcba")
    )


@pytest.mark.parametrize(
    ("resources", "node", "words"),
    [
        ({}, {"memory": "3071Mi"}, "needs 3072Mi of memory, its largest node has 3071Mi"),
        ({"memory": "20Gi"}, {}, "needs 20480Mi of memory, its largest node has 16384Mi"),
        ({}, {"cpu": "900m"}, "needs 1000m of cpu, its largest node has 900m"),
        ({}, {"ephemeral_storage": "1Gi"}, "needs 4096Mi of ephemeral-storage, its largest node has 1024Mi"),
        ({"nvidia.com/gpu": 2}, {"gpu": 1}, "needs 2 of nvidia.com/gpu, its largest node has 1"),
        ({"nvidia.com/gpu": 1, "cpu": 8}, {}, "its largest node has 4000m and 1 of nvidia.com/gpu, its largest"),
    ],
)
def test_shortage_is_reported_with_both_numbers(resources: Body, node: Body, words: str) -> None:
    assert words in choose("ONNX/FP16", [{"name": "pool", "resources": resources}], make_node(**node))


@pytest.mark.parametrize(("resources", "node"), [({"cpu": "500m"}, {"cpu": "600m"}), ({}, {"memory": "3072Mi"})])
def test_node_with_exact_capacity_is_suitable(resources: Body, node: Body) -> None:
    assert choose("ONNX/FP16", [{"name": "pool", "resources": resources}], make_node(**node)) == "pool"


def test_pool_cannot_reduce_memory_below_cell_need() -> None:
    words = choose("ONNX/FP16", [{"name": "pool", "resources": {"memory": "1Gi"}}], make_node(memory="2Gi"))
    assert "needs 3072Mi of memory" in words


def test_capacity_of_two_nodes_is_not_added() -> None:
    pool = {"name": "pool", "resources": {"nvidia.com/gpu": 1, "cpu": 8}}
    words = choose("ONNX/FP16", [pool], make_node("a", gpu=1), make_node("b", cpu="16"))
    assert (
        "no single node has 8000m of cpu, 3072Mi of memory, 4096Mi of ephemeral-storage, 1 of nvidia.com/gpu" in words
    )
