"""Node pools of an ExportClass: which conversions run on which nodes, and with which resources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelexport.api import fields
from modelexport.api.fields import Body, InvalidSpec
from modelexport.api.quantity import parse_quantity
from modelexport.matrix.support import Format, Precision
from modelexport.text import quote

POOLS_LIMIT = 16
TOLERATIONS_LIMIT = 16
RESOURCES_LIMIT = 16
OWN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""Resources of every node; all others are extended resources, with a domain in the name (``nvidia.com/gpu``)."""


class Work(StrEnum):
    """Kind of work of a conversion; calibration measures activation ranges on images."""

    CONVERSION = "Conversion"
    CALIBRATION = "Calibration"


class Provisioned(StrEnum):
    """When the nodes of a pool exist: always, or once a Pod is pending."""

    STATIC = "Static"
    ON_DEMAND = "OnDemand"


class TolerationOperator(StrEnum):
    """How a toleration compares: by key and value, or by key alone."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """Effect of a taint on Pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


@dataclass(frozen=True)
class Toleration:
    """A toleration of the Pods in a pool; an empty key matches every key, no effect matches every effect."""

    key: str = ""
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: str = ""
    effect: TaintEffect | None = None


@dataclass(frozen=True)
class NodePool:
    """A group of similar nodes and the conversions that it accepts; an empty tuple accepts all.

    ``resources`` are Kubernetes quantities: ``cpu`` replaces the request of the cell, ``memory`` and
    ``ephemeral-storage`` can only raise it, extended resources are added.
    """

    name: str
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[Format, ...] = ()
    precisions: tuple[Precision, ...] = ()
    work: tuple[Work, ...] = ()
    provisioned: Provisioned = Provisioned.STATIC

    @property
    def has_devices(self) -> bool:
        """Whether the Pods of the pool get extended resources, such as a GPU."""
        return any(is_extended(name) for name in self.resources)


def is_extended(resource: str) -> bool:
    """Return whether a resource is extended; its quantity must be a whole number."""
    return "/" in resource


def parse_pools(spec: Body) -> tuple[NodePool, ...]:
    """Parse ``spec.nodePools`` of a class, in order of preference.

    Raises:
        InvalidSpec: a field is missing or invalid.
    """
    path = "spec.nodePools"
    pools = tuple(_parse_pool(item, f"{path}[{index}]") for index, item in enumerate(fields.items(spec, path)))
    for index, pool in enumerate(pools):
        if pool.name in [other.name for other in pools[:index]]:
            raise InvalidSpec(f"{path}[{index}].name", f"{pool.name!r} is the name of two pools; rename one")
    return pools


def _parse_pool(value: Any, path: str) -> NodePool:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{quote(value)} is not a node pool, for example {{name: gpu, nodeSelector: {{...}}}}")
    return NodePool(
        name=fields.name(value, f"{path}.name"),
        node_selector=parse_selector(value, f"{path}.nodeSelector"),
        tolerations=tuple(
            _parse_toleration(item, f"{path}.tolerations[{index}]")
            for index, item in enumerate(fields.items(value, f"{path}.tolerations"))
        ),
        resources={
            str(name): _parse_amount(str(name), amount, f"{path}.resources.{name}")
            for name, amount in (fields.optional_mapping(value, f"{path}.resources") or {}).items()
        },
        formats=fields.enums(Format, value, f"{path}.formats"),
        precisions=fields.enums(Precision, value, f"{path}.precisions"),
        work=fields.enums(Work, value, f"{path}.work"),
        provisioned=fields.enum(Provisioned, value.get("provisioned", Provisioned.STATIC), f"{path}.provisioned"),
    )


def parse_selector(parent: Body, path: str) -> Mapping[str, str]:
    """Parse a node selector, an empty one where it is missing."""
    selector = fields.optional_mapping(parent, path) or {}
    for label, value in selector.items():
        if not isinstance(value, str):
            raise InvalidSpec(f"{path}.{label}", f"{quote(value)} is not a string; quote the value of the label")
    return dict(selector)


def _parse_toleration(value: Any, path: str) -> Toleration:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{quote(value)} is not a toleration, for example {{key: gpu, operator: Exists}}")
    operator = fields.enum(TolerationOperator, value.get("operator", TolerationOperator.EQUAL), f"{path}.operator")
    effect = value.get("effect") or None
    found = Toleration(
        key=fields.optional_text(value, f"{path}.key") or "",
        operator=operator,
        value=fields.optional_text(value, f"{path}.value") or "",
        effect=effect and fields.enum(TaintEffect, effect, f"{path}.effect"),
    )
    if operator is TolerationOperator.EXISTS and found.value:
        raise InvalidSpec(f"{path}.value", "operator Exists compares no value; remove it")
    if operator is TolerationOperator.EQUAL and not found.key:
        raise InvalidSpec(f"{path}.key", "is missing; only operator Exists tolerates every key")
    return found


def _parse_amount(name: str, amount: Any, path: str) -> str:
    if name not in OWN_RESOURCES and not is_extended(name):
        own = ", ".join(OWN_RESOURCES)
        raise InvalidSpec(path, f"is not known; use one of {own}, or a device with its domain such as nvidia.com/gpu")
    try:
        quantity = parse_quantity(amount)
    except ValueError as error:
        raise InvalidSpec(path, f"{error}; use for example 2, 500m or 8Gi") from error
    if is_extended(name) and quantity.denominator != 1:
        raise InvalidSpec(path, f"{quote(amount)} is not a whole number of devices")
    return str(amount)
