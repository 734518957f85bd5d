"""The kinds of objects that the operator uses, and the scopes of its watches. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from modelexport import names
from modelexport_operator.kube.objects import (
    EventObject,
    ExportClassObject,
    Job,
    KubeObject,
    Lease,
    ModelExportObject,
    Node,
    Pod,
    Workload,
)

T_co = TypeVar("T_co", bound=KubeObject, covariant=True)


@dataclass(frozen=True)
class Resource:
    """One kind of objects, and the label selector of those that concern us (empty: all)."""

    group: str
    version: str
    plural: str
    selector: str = ""
    is_namespaced: bool = True

    @property
    def root(self) -> str:
        """The path of its API version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of an object, or of all objects of a namespace or of the cluster."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.root}{scope}/{self.plural}{tail}"


@dataclass(frozen=True)
class Kind(Resource, Generic[T_co]):
    """A kind whose objects have a type."""

    def typed(self, body: KubeObject) -> T_co:
        """Return an object of this kind with its type.

        This is the only place where a body gets a type without a check of its fields: the API server has validated
        them, and ``kube.objects`` says which it may omit.
        """
        return cast(T_co, body)


@dataclass(frozen=True)
class Scope:
    """The objects of one watch: those of a kind in one namespace, or (empty) in all."""

    resource: Resource
    namespace: str = ""

    @property
    def path(self) -> str:
        """The path of the list of these objects."""
        return self.resource.path(self.namespace)

    def contains(self, namespace: str) -> bool:
        """Return whether objects of a namespace belong to this scope."""
        return self.namespace in ("", namespace)


def scopes_of(resources: Iterable[Resource], namespaces: tuple[str, ...]) -> tuple[Scope, ...]:
    """Return the scopes to watch: each kind in each of the namespaces (none: all); cluster-scoped kinds once."""
    return tuple(
        Scope(resource, namespace)
        for resource in resources
        for namespace in ((resource.is_namespaced and namespaces) or ("",))
    )


MANAGED_SELECTOR = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"

EXPORTS = Kind[ModelExportObject](names.GROUP, names.VERSION, names.EXPORT_PLURAL)
CLASSES = Kind[ExportClassObject](names.GROUP, names.VERSION, names.CLASS_PLURAL, is_namespaced=False)
JOBS = Kind[Job]("batch", "v1", "jobs", MANAGED_SELECTOR)
PODS = Kind[Pod]("", "v1", "pods", MANAGED_SELECTOR)
NODES = Kind[Node]("", "v1", "nodes", is_namespaced=False)
EVENTS = Kind[EventObject]("", "v1", "events")
LEASES = Kind[Lease]("coordination.k8s.io", "v1", "leases")
WORKLOADS = Kind[Workload]("kueue.x-k8s.io", "v1beta2", "workloads")
"""Kueue's; served in this version since Kueue 0.15."""

CUSTOM: tuple[Resource, ...] = (EXPORTS, CLASSES)
BUILTIN: tuple[Resource, ...] = (JOBS, PODS, NODES)
WATCHED: tuple[Resource, ...] = (*CUSTOM, *BUILTIN)
