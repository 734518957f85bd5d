"""The kinds of objects that the operator watches. Pure."""

from dataclasses import dataclass

from modelexport import names


@dataclass(frozen=True)
class Resource:
    """One kind of objects, and the labels of those that concern us (empty: all)."""

    group: str
    version: str
    plural: str
    selector: str = ""

    @property
    def root(self) -> str:
        """Path of the API that serves it."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of an object, or of all objects of a namespace or of the cluster."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.root}{scope}/{self.plural}{tail}"


OURS = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"

EXPORTS = Resource(names.GROUP, names.VERSION, names.EXPORT_PLURAL)
CLASSES = Resource(names.GROUP, names.VERSION, names.CLASS_PLURAL)
JOBS = Resource("batch", "v1", "jobs", OURS)
PODS = Resource("", "v1", "pods", OURS)
NODES = Resource("", "v1", "nodes")
EVENTS = Resource("", "v1", "events")

OWN = (EXPORTS, CLASSES)
BUSY = (JOBS, PODS, NODES)
WATCHED = (*OWN, *BUSY)
