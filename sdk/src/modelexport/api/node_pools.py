"""Node pools of an ExportClass: which nodes convert what, and what a conversion gets there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelexport import fields
from modelexport.fields import Body, InvalidSpec
from modelexport.matrix import Format, Precision
from modelexport.quantity import parse_quantity

POOLS_LIMIT = 16
TOLERATIONS_LIMIT = 16
RESOURCES_LIMIT = 16
OWN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""What every node has; anything else is an extended resource and named with a domain, as ``nvidia.com/gpu``."""


class Work(StrEnum):
    """What a conversion does most of its time; calibration measures activation ranges on pictures."""

    CONVERSION = "Conversion"
    CALIBRATION = "Calibration"


class Provisioned(StrEnum):
    """When the nodes of a pool exist: always, or as soon as a Pod asks for one."""

    STATIC = "Static"
    ON_DEMAND = "OnDemand"


class TolerationOperator(StrEnum):
    """How a toleration compares: by key and value, or by key alone."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to Pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


@dataclass(frozen=True)
class Toleration:
    """A taint that Pods of a pool bear; an empty key bears every key, no effect every effect."""

    key: str = ""
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: str = ""
    effect: TaintEffect | None = None


@dataclass(frozen=True)
class NodePool:
    """Nodes that are alike, and what they take; an empty tuple takes all.

    ``resources`` are amounts as Kubernetes spells them: ``cpu`` replaces what the cell asks for, ``memory`` and
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
        """Whether Pods get extended resources there, such as a GPU."""
        return any(is_extended(name) for name in self.resources)


def is_extended(resource: str) -> bool:
    """Whether a resource is one of devices, which come whole."""
    return "/" in resource


def parse_pools(spec: Body) -> tuple[NodePool, ...]:
    """Parse ``spec.nodePools`` of a class, in the order in which they are tried.

    Raises:
        InvalidSpec: a field is missing or holds a value that cannot be accepted.
    """
    path = "spec.nodePools"
    pools = tuple(_parse_pool(item, f"{path}[{index}]") for index, item in enumerate(fields.items(spec, path)))
    for index, pool in enumerate(pools):
        if pool.name in [other.name for other in pools[:index]]:
            raise InvalidSpec(f"{path}[{index}].name", f"{pool.name!r} is the name of two pools; rename one")
    return pools


def _parse_pool(value: Any, path: str) -> NodePool:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{value!r} is not a node pool, for example {{name: gpu, nodeSelector: {{...}}}}")
    return NodePool(
        name=fields.name(value, f"{path}.name"),
        node_selector=_parse_selector(value, f"{path}.nodeSelector"),
        tolerations=tuple(
            _parse_toleration(item, f"{path}.tolerations[{index}]")
            for index, item in enumerate(fields.items(value, f"{path}.tolerations"))
        ),
        resources=_parse_resources(fields.optional_mapping(value, f"{path}.resources") or {}, f"{path}.resources"),
        formats=fields.enums(Format, value, f"{path}.formats"),
        precisions=fields.enums(Precision, value, f"{path}.precisions"),
        work=fields.enums(Work, value, f"{path}.work"),
        provisioned=fields.enum(Provisioned, value.get("provisioned", Provisioned.STATIC), f"{path}.provisioned"),
    )


def _parse_selector(pool: Body, path: str) -> Mapping[str, str]:
    selector = fields.optional_mapping(pool, path) or {}
    for label, value in selector.items():
        if not isinstance(value, str):
            raise InvalidSpec(f"{path}.{label}", f"{value!r} is not the text of a label; quote it")
    return dict(selector)


def _parse_toleration(value: Any, path: str) -> Toleration:
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, f"{value!r} is not a toleration, for example {{key: gpu, operator: Exists}}")
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


def _parse_resources(resources: Body, path: str) -> Mapping[str, str]:
    return {str(name): _parse_amount(str(name), amount, f"{path}.{name}") for name, amount in resources.items()}


def _parse_amount(name: str, amount: Any, path: str) -> str:
    if name not in OWN_RESOURCES and not is_extended(name):
        own = ", ".join(OWN_RESOURCES)
        raise InvalidSpec(path, f"is not known; use one of {own}, or a device with its domain such as nvidia.com/gpu")
    try:
        found = parse_quantity(amount)
    except ValueError as error:
        raise InvalidSpec(path, f"{error}; write it as Kubernetes does, for example 2, 500m or 8Gi") from error
    if is_extended(name) and found.denominator != 1:
        raise InvalidSpec(path, f"{amount!r} is not a whole number of devices")
    return str(amount)
