"""What the watches have told: the newest known body of every object that concerns us, without what nobody reads."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from modelexport import names
from modelexport.reasons import Reason
from modelexport_operator.encoding import decode, encode
from modelexport_operator.manifests import POD_JOB_LABEL
from modelexport_operator.owners import select_jobs, select_pods
from modelexport_operator.pods import Object
from modelexport_operator.prune import prune_class, prune_export, prune_job, prune_node, prune_pod
from modelexport_operator.resources import BUSY, CLASSES, EXPORTS, JOBS, NODES, PODS, Resource, Scope
from modelexport_operator.status import status_of
from modelexport_operator.sync import Observed

Key = tuple[str, str]
"""Namespace (empty for what is in none) and name."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """A body as compressed JSON, which takes a fifth of the memory."""

    version: int
    content: bytes


class Store:
    """The objects of one kind. Versions only go forward: a late answer never replaces a newer body.

    ``is_noisy`` says that most versions of these objects differ in nothing that is kept, and are no news. What was gone
    at which version is remembered until the next check of the watches, which asks whether it was ever told.
    """

    def __init__(self, trim: Callable[[Object], dict[str, Any]], *, is_noisy: bool = False) -> None:
        self._trim = trim
        self._is_noisy = is_noisy
        self._objects: dict[Key, dict[str, Any] | _Packed] = {}
        self._by_owner: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._gone: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._objects))

    def get(self, key: Key) -> Object | None:
        """Return the body of an object, if it is there."""
        return _unpack(self._objects.get(key))

    def version(self, key: Key) -> int | None:
        """Return the version of an object, if it is there; cheaper than its body."""
        kept = self._objects.get(key)
        if kept is None:
            return None
        return kept.version if isinstance(kept, _Packed) else version_of(kept)

    def values(self) -> list[Object]:
        """Return all bodies."""
        return [body for kept in self._objects.values() if (body := _unpack(kept))]

    def labelled_with(self, export: Object) -> list[Object]:
        """Return the bodies in the namespace of an export that are labelled with it, whoever did that."""
        owner = export["metadata"]["namespace"], export["metadata"]["uid"]
        return [body for key in self._by_owner.get(owner, ()) if (body := self.get(key))]

    def pack(self, export: Object) -> None:
        """Keep the objects that are labelled with an export small, until they change: they are read seldom now."""
        owner = export["metadata"]["namespace"], export["metadata"]["uid"]
        for key in self._by_owner.get(owner, ()):
            kept = self._objects[key]
            if not isinstance(kept, _Packed):
                self._objects[key] = _Packed(version_of(kept), zlib.compress(encode(kept), level=1))

    def known_version(self, key: Key) -> int:
        """The newest version of an object of which is known that it was there, or was gone; 0 where nothing is."""
        known = self.version(key)
        return self._gone.get(key, 0) if known is None else known

    def put(self, body: Object) -> bool:
        """Take a body over; ``False`` when it is known already, or what is known is newer, or it is no news."""
        key = key_of(body)
        if self.known_version(key) >= version_of(body):
            return False
        known = self.get(key)
        self._gone.pop(key, None)
        if known is not None:
            self._unlink(key, known)
        kept = self._objects[key] = self._trim(body)
        if owner := _owner_of(kept):
            self._by_owner[owner].add(key)
        is_same = known is not None and _without_version(known) == _without_version(kept)
        return not (self._is_noisy and is_same)

    def update(self, body: Object) -> None:
        """Take the answer to a write over, unless the object has gone in the meantime."""
        if key_of(body) in self._objects:
            self.put(body)

    def remove(self, key: Key, version: int) -> bool:
        """Forget an object that was gone at a version; ``False`` when what is there is newer, or nothing is."""
        known = self.get(key)
        if known is not None and version_of(known) > version:
            return False
        self._gone[key] = max(version, self._gone.get(key, 0))
        if known is None:
            return False
        self._unlink(key, known)
        del self._objects[key]
        return True

    def forget_gone(self, scope: Scope, listed: Collection[Key], version: int) -> None:
        """Remember no longer what was gone at a version, and is not among what was listed at it.

        What is listed and yet gone was deleted later, or cannot be read.
        """
        self._gone = {
            key: gone for key, gone in self._gone.items() if key in listed or gone > version or not scope.holds(key[0])
        }

    def _unlink(self, key: Key, body: Object) -> None:
        if owner := _owner_of(body):
            self._by_owner[owner].discard(key)
            if not self._by_owner[owner]:
                del self._by_owner[owner]


class Stores:
    """All stores, and what they come to for one export."""

    def __init__(self) -> None:
        self._stores = {resource: Store(trim, is_noisy=resource in BUSY) for resource, trim in _TRIMS.items()}

    def __getitem__(self, resource: Resource) -> Store:
        return self._stores[resource]

    def observe(self, key: Key) -> Observed | None:
        """Return everything that is known of an export; ``None`` when it is gone."""
        parent = self[EXPORTS].get(key)
        if parent is None:
            return None
        jobs = self.jobs_of(parent)
        pods = select_pods(parent, jobs, self[PODS].labelled_with(parent))
        return Observed(parent, jobs, pods, self[CLASSES].values(), self[NODES].values())

    def jobs_of(self, export: Object) -> list[Object]:
        """Return the Jobs that belong to an export."""
        return select_jobs(export, self[JOBS].labelled_with(export))

    def job_of(self, pod: Object) -> Object | None:
        """Return the Job of a Pod, if it has been heard of."""
        name = (pod["metadata"].get("labels") or {}).get(POD_JOB_LABEL)
        return self[JOBS].get((pod["metadata"]["namespace"], name)) if name else None

    def pack(self, key: Key) -> None:
        """Keep the Jobs and Pods of an export small once all its targets have ended: most of what there is has."""
        export = self[EXPORTS].get(key)
        if export is not None and "completionTime" in status_of(export):
            for resource in (JOBS, PODS):
                self[resource].pack(export)

    def exports_of(self, resource: Resource, body: Object) -> Iterable[Key]:
        """Return the exports that a change of an object concerns."""
        if resource is EXPORTS:
            return (key_of(body),)
        if resource is CLASSES:
            return self[EXPORTS]
        if resource is NODES:
            return [key for key in self[EXPORTS] if _waits_for_node(self[EXPORTS].get(key) or {})]
        metadata = body["metadata"]
        export = (metadata.get("labels") or {}).get(names.EXPORT_LABEL)
        return ((metadata["namespace"], export),) if export else ()


def _unpack(kept: dict[str, Any] | _Packed | None) -> dict[str, Any] | None:
    return cast(dict[str, Any], decode(zlib.decompress(kept.content))) if isinstance(kept, _Packed) else kept


def key_of(body: Object) -> Key:
    """The key of an object."""
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def version_of(body: Object) -> int:
    """The version of an object; of two bodies of one object the one with the greater version is newer."""
    return int(body["metadata"]["resourceVersion"])


def _owner_of(body: Object) -> tuple[str, str] | None:
    """Namespace and uid of the export that an object is labelled with."""
    uid = (body["metadata"].get("labels") or {}).get(names.EXPORT_UID_LABEL)
    return (body["metadata"].get("namespace", ""), uid) if uid else None


def _waits_for_node(export: Object) -> bool:
    targets = status_of(export).get("targets") or ()
    return any(isinstance(t, Mapping) and t.get("reason") == Reason.NO_SUITABLE_NODE for t in targets)


def _without_version(body: Object) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": None}}


_TRIMS: Mapping[Resource, Callable[[Object], dict[str, Any]]] = {
    EXPORTS: prune_export,
    CLASSES: prune_class,
    JOBS: prune_job,
    PODS: prune_pod,
    NODES: prune_node,
}
