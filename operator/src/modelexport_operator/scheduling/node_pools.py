"""Chooses a node pool for a conversion by node capacity; free capacity is left to the scheduler. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from modelexport.api.node_pools import NodePool, Provisioned, TaintEffect, Toleration, TolerationOperator, Work
from modelexport.api.quantity import parse_quantity
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ExportClass
from modelexport.matrix.support import ARCHITECTURES, Cell, lookup
from modelexport_operator.jobs.diagnosis import Diagnosis, advise
from modelexport_operator.jobs.resource_requests import node_selector, resource_requests
from modelexport_operator.kube.objects import Node, Taint

ARCHITECTURE_LABEL = "kubernetes.io/arch"
PASSING_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Kubernetes sets these taints while a node is new, unhealthy or cordoned, and removes them. They do not exclude a
pool; the scheduler reports why a Pod waits for their removal."""
SHOWN = 3
"""How many different values of several nodes a message lists."""
MIB = 2**20
LARGE_CALIBRATION = 512 * 640 * 640
"""Pixels of calibration (images times input size) from which devices are preferred: about a minute of CPU time, since
64 images of 640 x 640 take 6 to 12 s (docs/benchmarks.md, YOLOv8n). Less is not worth a device."""


def choose_pool(request: ConversionRequest, export_class: ExportClass, nodes: Sequence[Node]) -> NodePool | Diagnosis:
    """Return the first pool that accepts a conversion and has a node for it, or what is missing.

    A large calibration tries pools with devices first, all other work pools without. A device is preferred, not
    required.

    Args:
        request: the conversion.
        export_class: a class that has pools.
        nodes: all nodes of the cluster.
    """
    cell = lookup(request.model.architecture, request.target)
    work = Work.CALIBRATION if request.recipe.needs_calibration else Work.CONVERSION
    wants_devices = calibration_pixels(request) >= LARGE_CALIBRATION
    missing = []
    for pool in sorted(export_class.node_pools, key=lambda pool: pool.has_devices is not wants_devices):
        problem = _explain_refusal(pool, cell, work) or _find_missing(pool, cell, export_class, nodes)
        if problem is None:
            return pool
        missing.append(f"node pool {pool.name}: {problem}")
    message = f"No node of ExportClass {export_class.name} can take {cell.target}: {'; '.join(missing)}"
    return advise(Diagnosis(Reason.NO_SUITABLE_NODE, message))


def calibration_pixels(request: ConversionRequest) -> int:
    """Return over how many pixels a conversion measures activation ranges, according to its spec.

    The operator opens neither the images nor the checkpoint, which may have another input size.
    """
    if request.calibration is None or not request.recipe.needs_calibration:
        return 0
    height, width = request.model.parameters.input_size or ARCHITECTURES[request.model.architecture].default_input_size
    return request.calibration.samples * height * width


def _explain_refusal(pool: NodePool, cell: Cell, work: Work) -> str | None:
    """Return why a pool rejects a conversion regardless of its nodes, or ``None``."""
    for field, allowed, word in (
        ("formats", pool.formats, cell.target.format),
        ("precisions", pool.precisions, cell.target.precision),
        ("work", pool.work, work),
    ):
        if allowed and word not in allowed:
            return f"takes {field} {', '.join(allowed)} only"
    return None


def _find_missing(pool: NodePool, cell: Cell, export_class: ExportClass, nodes: Iterable[Node]) -> str | None:
    """Return what the best matching nodes lack for a conversion, or ``None`` if a node could take it."""
    selector, usable = node_selector(export_class, pool), cell.backend.cpu_architectures
    if pool.provisioned is Provisioned.ON_DEMAND:
        ordered = selector.get(ARCHITECTURE_LABEL, usable[0])
        return None if ordered in usable else _wrong_architecture(usable, ordered)
    labelled = [node for node in nodes if selector.items() <= _labels(node).items()]
    if not labelled:
        labels = ",".join(f"{label}={value}" for label, value in selector.items())
        return f"no node has the labels {labels}" if selector else "the cluster has no nodes"
    fitting = [node for node in labelled if _labels(node).get(ARCHITECTURE_LABEL) in usable]
    if not fitting:
        return _wrong_architecture(usable, *(_labels(node).get(ARCHITECTURE_LABEL, "unknown") for node in labelled))
    open_nodes = [node for node in fitting if not _taints(node, pool.tolerations)]
    if not open_nodes:
        there = _list({taint for node in fitting for taint in _taints(node, pool.tolerations)})
        return f"does not tolerate the taint {there} of its nodes"
    allocatable = [node.get("status", {}).get("allocatable") or {} for node in open_nodes]
    return _find_shortage(resource_requests(cell.resources, pool), allocatable)


def _wrong_architecture(usable: Iterable[str], *there: str) -> str:
    return f"needs a CPU of {' or '.join(usable)}, its nodes have {_list(set(there))}"


def _find_shortage(requests: Mapping[str, str], nodes: Sequence[Mapping[str, str]]) -> str | None:
    needed = {name: parse_quantity(amount) for name, amount in requests.items()}
    offers = [{name: parse_quantity(node.get(name, "0")) for name in needed} for node in nodes]
    if any(all(offer[name] >= amount for name, amount in needed.items()) for offer in offers):
        return None
    largest = {name: max(offer[name] for offer in offers) for name in needed}
    short = [name for name, amount in needed.items() if largest[name] < amount]
    if not short:
        return f"no single node has {', '.join(f'{_show(name, needed[name])} of {name}' for name in needed)}"
    return f"needs {' and '.join(_compare(name, needed[name], largest[name]) for name in short)}"


def _compare(resource: str, needed: Fraction, largest: Fraction) -> str:
    return f"{_show(resource, needed)} of {resource}, its largest node has {_show(resource, largest)}"


def _taints(node: Node, tolerations: Sequence[Toleration]) -> list[str]:
    """Return the taints of a node that exclude Pods of a pool until an administrator acts, as kubectl shows them."""
    return [
        f"{taint['key']}{'=' if taint.get('value') else ''}{taint.get('value', '')}:{taint['effect']}"
        for taint in node.get("spec", {}).get("taints") or ()
        if taint["effect"] != TaintEffect.PREFER_NO_SCHEDULE
        and not taint["key"].startswith(PASSING_TAINTS)
        and not any(_is_tolerated(taint, toleration) for toleration in tolerations)
    ]


def _is_tolerated(taint: Taint, toleration: Toleration) -> bool:
    """Return whether a toleration matches a taint, as the scheduler compares them.

    Source: kubernetes, staging/src/k8s.io/api/core/v1/toleration.go.
    """
    if toleration.effect not in (None, taint["effect"]) or toleration.key not in ("", taint["key"]):
        return False
    return toleration.operator is TolerationOperator.EXISTS or toleration.value == taint.get("value", "")


def _labels(node: Node) -> Mapping[str, str]:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return labels


def _list(words: Iterable[str]) -> str:
    ordered = sorted(words)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


def _show(resource: str, amount: Fraction) -> str:
    """Format an amount: memory and disk in MiB, CPUs in millicores, devices as they are."""
    if resource == "cpu":
        return f"{int(amount * 1000)}m"
    return f"{int(amount / MIB)}Mi" if resource in ("memory", "ephemeral-storage") else str(int(amount))
