"""What a conversion asks of a node, by its cell, its class and the node pool on which it goes. Pure."""

from modelexport.matrix import Resources
from modelexport.nodepools import NodePool
from modelexport.quantity import parse_quantity
from modelexport.spec import ExportClass


def node_selector(export_class: ExportClass, pool: NodePool | None) -> dict[str, str]:
    """The labels that a node must have: those of the class and, over them, those of the pool."""
    return {**export_class.node_selector, **(pool.node_selector if pool else {})}


def resource_requests(resources: Resources, pool: NodePool | None) -> dict[str, str]:
    """What a conversion asks of a node, by resource, as Kubernetes spells it."""
    needed = {
        "cpu": f"{resources.cpu_millis}m",
        "memory": f"{resources.memory_mib}Mi",
        "ephemeral-storage": f"{resources.disk_mib}Mi",
    }
    offered = pool.resources if pool else {}
    raised = {name: larger(needed[name], offered[name]) for name in ("memory", "ephemeral-storage") if name in offered}
    return {**needed, **offered, **raised}


def larger(one: str, other: str) -> str:
    """The larger of two amounts."""
    return max(one, other, key=parse_quantity)
