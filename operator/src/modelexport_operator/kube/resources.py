"""The kinds of objects that the operator watches, and where. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelexport import names


@dataclass(frozen=True)
class Resource:
    """One kind of objects, and the labels of those that concern us (empty: all)."""

    group: str
    version: str
    plural: str
    selector: str = ""
    is_namespaced: bool = True

    @property
    def root(self) -> str:
        """Path of the API that serves it."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of an object, or of all objects of a namespace or of the cluster."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.root}{scope}/{self.plural}{tail}"


@dataclass(frozen=True)
class Scope:
    """What one watch hears: the objects of a kind in one namespace, or (empty) all of them."""

    resource: Resource
    namespace: str = ""

    @property
    def path(self) -> str:
        """Path of the list of these objects."""
        return self.resource.path(self.namespace)

    def holds(self, namespace: str) -> bool:
        """Whether objects of a namespace belong to it."""
        return self.namespace in ("", namespace)


def scopes_of(resources: Iterable[Resource], namespaces: tuple[str, ...]) -> tuple[Scope, ...]:
    """What has to be watched: each kind in each of the namespaces (none: everywhere); what is in none, once."""
    return tuple(
        Scope(resource, namespace)
        for resource in resources
        for namespace in ((resource.is_namespaced and namespaces) or ("",))
    )


OURS = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"

EXPORTS = Resource(names.GROUP, names.VERSION, names.EXPORT_PLURAL)
CLASSES = Resource(names.GROUP, names.VERSION, names.CLASS_PLURAL, is_namespaced=False)
JOBS = Resource("batch", "v1", "jobs", OURS)
PODS = Resource("", "v1", "pods", OURS)
NODES = Resource("", "v1", "nodes", is_namespaced=False)
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")

OWN = (EXPORTS, CLASSES)
BUSY = (JOBS, PODS, NODES)
WATCHED = (*OWN, *BUSY)
