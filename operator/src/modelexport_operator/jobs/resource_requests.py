"""Computes the resource requests of a conversion from its cell, class and node pool. Pure."""

from modelexport.api.node_pools import NodePool
from modelexport.api.quantity import parse_quantity
from modelexport.api.spec import ExportClass
from modelexport.matrix.support import Resources


def node_selector(export_class: ExportClass, pool: NodePool | None) -> dict[str, str]:
    """Return the labels that a node must have: those of the class, overridden by those of the pool."""
    return {**export_class.node_selector, **(pool.node_selector if pool else {})}


def resource_requests(resources: Resources, pool: NodePool | None) -> dict[str, str]:
    """Return the resource requests of a conversion, as Kubernetes spells them."""
    needed = {
        "cpu": f"{resources.cpu_millis}m",
        "memory": f"{resources.memory_mib}Mi",
        "ephemeral-storage": f"{resources.disk_mib}Mi",
    }
    offered = pool.resources if pool else {}
    raised = {name: larger(needed[name], offered[name]) for name in ("memory", "ephemeral-storage") if name in offered}
    return {**needed, **offered, **raised}


def larger(one: str, other: str) -> str:
    """Return the larger of two amounts."""
    return max(one, other, key=parse_quantity)
