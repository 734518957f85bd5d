"""The cache: the newest known body of every watched object, pruned to the fields that are read."""

import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar, cast, overload

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport_operator.jobs.conversion_job import prune_conversion_job
from modelexport_operator.jobs.ownership import select_jobs, select_pods
from modelexport_operator.jobs.state import is_finished
from modelexport_operator.kube.encoding import decode, encode
from modelexport_operator.kube.objects import Job, JsonObject, KubeObject, ModelExportObject, ModelExportStatus
from modelexport_operator.kube.pruning import prune_class, prune_export, prune_node, prune_pod
from modelexport_operator.kube.resources import (
    BUILTIN,
    CLASSES,
    EXPORTS,
    JOBS,
    NODES,
    PODS,
    Kind,
    Resource,
    Scope,
)
from modelexport_operator.kube.types import POD_JOB_LABEL, Key, key_of, version_of
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.status.conditions import READY, RecordedStatus, find_condition, status_of, target_entries

T = TypeVar("T", bound=KubeObject)
REMEMBERED = 1000
"""Exports whose parsed status is kept; each of nine targets takes 12 KB."""


@dataclass(frozen=True, slots=True)
class _Compressed(Generic[T]):
    """A body as compressed JSON, a fifth of its size in memory, with the fields that are read without decompressing."""

    version: int
    uid: str
    content: bytes
    summary: ModelExportObject

    @classmethod
    def compress(cls, body: T) -> Self:
        """Compress a body."""
        content = zlib.compress(encode(body), level=1)
        reason = str(find_condition(status_of(body), READY).get("reason", ""))
        return cls(version_of(body), body["metadata"].get("uid", ""), content, _summarise(reason))

    def decompress(self) -> T:
        """Return the body."""
        return cast(T, decode(zlib.decompress(self.content)))


class ObjectCache(Generic[T]):
    """The objects of one kind. Versions only grow: a late response never replaces a newer body.

    A deleted object leaves a tombstone with its version until the next watch check, which needs to know whether the
    watch reported the deletion. Most objects have ended and are rarely read: they are kept compressed.

    Args:
        prune: returns the part of a body that is kept.
        is_noisy: whether most versions of these objects differ only in pruned fields, and then cause no sync.
        has_ended: whether an object will not change any more.
    """

    def __init__(
        self,
        prune: Callable[[KubeObject], T],
        *,
        is_noisy: bool = False,
        has_ended: Callable[[T], bool] = lambda _: False,
    ) -> None:
        self._prune = prune
        self._is_noisy = is_noisy
        self._has_ended = has_ended
        self._objects: dict[Key, T | _Compressed[T]] = {}
        self._by_owner: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._tombstones: dict[Key, int] = {}
        self.changes = 0
        """How many bodies were stored or removed so far."""

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._objects))

    def get(self, key: Key) -> T | None:
        """Return the body of an object, or ``None``."""
        return _decompress(self._objects.get(key))

    def version(self, key: Key) -> int | None:
        """Return the version of an object, or ``None``; cheaper than its body."""
        kept = self._objects.get(key)
        if kept is None:
            return None
        return kept.version if isinstance(kept, _Compressed) else version_of(kept)

    def values(self) -> list[T]:
        """Return all bodies."""
        return [body for kept in self._objects.values() if (body := _decompress(kept))]

    def summaries(self) -> list[T | ModelExportObject]:
        """Return all bodies; compressed ones as a summary: that they have ended, and the reason."""
        return [kept.summary if isinstance(kept, _Compressed) else kept for kept in self._objects.values()]

    def uncompressed_items(self) -> list[tuple[Key, T]]:
        """Return the keys and bodies of all uncompressed objects, which include all that have not ended."""
        return [(key, kept) for key, kept in self._objects.items() if not isinstance(kept, _Compressed)]

    def labelled_with(self, export: ModelExportObject) -> list[T]:
        """Return the bodies that carry the label of an export in its namespace, whoever set the label."""
        keys = self.keys_labelled_with(export["metadata"]["namespace"], export["metadata"]["uid"])
        return [body for key in keys if (body := self.get(key))]

    def compress(self, key: Key) -> None:
        """Compress an object if it has ended; it stays compressed until it changes."""
        kept = self._objects.get(key)
        if kept is not None and not isinstance(kept, _Compressed) and self._has_ended(kept):
            self._objects[key] = _Compressed.compress(kept)

    def compressed_uid(self, key: Key) -> str | None:
        """Return the uid of an object if it is compressed and thus has ended."""
        kept = self._objects.get(key)
        return kept.uid if isinstance(kept, _Compressed) else None

    def keys_labelled_with(self, namespace: str, uid: str) -> Collection[Key]:
        """Return the keys of the objects in a namespace that are labelled with the uid of an export."""
        return self._by_owner.get((namespace, uid), ())

    def known_version(self, key: Key) -> int:
        """Return the newest version at which an object is known to exist or to be deleted; 0 if none is known."""
        known = self.version(key)
        return self._tombstones.get(key, 0) if known is None else known

    def put(self, body: KubeObject) -> bool:
        """Store a body; return ``False`` if it is not newer than the known one, or differs only in pruned fields."""
        key = key_of(body)
        if self.known_version(key) >= version_of(body):
            return False
        known = self.get(key)
        self._tombstones.pop(key, None)
        if known is not None:
            self._unlink(key, known)
        kept = self._objects[key] = self._prune(body)
        self.changes += 1
        if owner := _owner_of(kept):
            self._by_owner[owner].add(key)
        if known is None:
            self.compress(key)  # Most objects have already ended when a new process lists them.
        if not self._is_noisy or known is None:
            return True
        before, after = ({**one, "metadata": {**one["metadata"], "resourceVersion": None}} for one in (known, kept))
        return before != after

    def update(self, body: KubeObject) -> None:
        """Store the response to a write, unless the object was deleted in the meantime."""
        if key_of(body) in self._objects:
            self.put(body)

    def remove(self, key: Key, version: int) -> bool:
        """Remove an object that was deleted at a version; return ``False`` if it is newer, or not there."""
        known = self.get(key)
        if known is not None and version_of(known) > version:
            return False
        self._tombstones[key] = max(version, self._tombstones.get(key, 0))
        if known is None:
            return False
        self._unlink(key, known)
        del self._objects[key]
        self.changes += 1
        return True

    def drop_tombstones(self, scope: Scope, listed: Collection[Key], version: int) -> None:
        """Drop the tombstones of objects that a list no longer contains.

        An object that is listed in spite of its tombstone was deleted after the list, or cannot be read.
        """
        self._tombstones = {
            key: gone
            for key, gone in self._tombstones.items()
            if key in listed or gone > version or not scope.contains(key[0])
        }

    def _unlink(self, key: Key, body: KubeObject) -> None:
        if owner := _owner_of(body):
            self._by_owner[owner].discard(key)
            if not self._by_owner[owner]:
                del self._by_owner[owner]


class Cache:
    """The caches of all watched kinds, and the queries that join them."""

    def __init__(self) -> None:
        self._caches: dict[Resource, ObjectCache[Any]] = {
            resource: ObjectCache(
                prune, is_noisy=resource in BUILTIN, has_ended=_HAS_ENDED.get(resource, lambda _: False)
            )
            for resource, prune in _PRUNERS.items()
        }
        self.short_of_nodes: set[Key] = set()
        """Exports whose last sync found no suitable node. Their recorded status may not say so yet."""
        self.parsed: OrderedDict[Key, RecordedStatus] = OrderedDict()
        """The last parsed statuses of the exports that have not ended, the latest last."""

    @overload
    def __getitem__(self, resource: Kind[T]) -> ObjectCache[T]: ...

    @overload
    def __getitem__(self, resource: Resource) -> ObjectCache[KubeObject]: ...

    def __getitem__(self, resource: Resource) -> ObjectCache[Any]:
        return self._caches[resource]

    @property
    def changes(self) -> int:
        """How many bodies were stored or removed so far: while the number stays, snapshots stay the same."""
        return sum(objects.changes for objects in self._caches.values())

    def snapshot(self, key: Key) -> Snapshot | None:
        """Return everything that is known of an export, or ``None`` if it does not exist."""
        parent = self[EXPORTS].get(key)
        if parent is None:
            return None
        jobs = self.jobs_of(parent)
        pods = select_pods(parent, jobs, self[PODS].labelled_with(parent))
        classes, nodes = self[CLASSES].values(), self[NODES].values()
        return Snapshot(parent, jobs, pods, classes, nodes, parsed=self.parse_status(parent))

    def parse_status(self, export: ModelExportObject) -> RecordedStatus:
        """Return the parsed status of an export. Targets that have not changed since the last call are kept."""
        key, status = key_of(export), status_of(export)
        known = self.parsed.pop(key, None)
        if known is None or known.status is not status:
            known = RecordedStatus(status, known.entries if known else ())
        self.parsed[key] = known
        if len(self.parsed) > REMEMBERED:
            self.parsed.popitem(last=False)
        return known

    def jobs_of(self, export: ModelExportObject) -> list[Job]:
        """Return the Jobs that belong to an export."""
        return select_jobs(export, self[JOBS].labelled_with(export))

    def is_job_ended(self, pod: KubeObject) -> bool:
        """Return whether the Job of a Pod is known and has ended."""
        key = pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get(POD_JOB_LABEL, "")
        if self[JOBS].compressed_uid(key) is not None:
            return True
        job = self[JOBS].get(key)
        return job is not None and is_finished(job)

    def compress(self, key: Key) -> None:
        """Compress an export whose targets have all ended, and its ended Jobs and Pods."""
        self[EXPORTS].compress(key)
        if (uid := self[EXPORTS].compressed_uid(key)) is not None:
            self.parsed.pop(key, None)
            for objects in (self[JOBS], self[PODS]):
                for labelled in objects.keys_labelled_with(key[0], uid):
                    objects.compress(labelled)

    def is_settled(self, key: Key) -> bool:
        """Return whether an export and all its Jobs are compressed and thus have ended."""
        uid, jobs = self[EXPORTS].compressed_uid(key), self[JOBS]
        return uid is not None and all(
            jobs.compressed_uid(job) is not None for job in jobs.keys_labelled_with(key[0], uid)
        )

    def note_shortage(self, key: Key, status: ModelExportStatus | None) -> None:
        """Take note of an export whose new status will say that no node suits a target, and of its end.

        Without it, a node that appears while the status is written would be missed until the next resync.
        """
        if status is not None and _lacks_node(status):
            self.short_of_nodes.add(key)
        else:
            self.short_of_nodes.discard(key)

    def affected_exports(self, resource: Resource, body: KubeObject) -> Iterable[Key]:
        """Return the exports that a change of an object affects."""
        if resource is EXPORTS:
            return (key_of(body),)
        if resource is CLASSES:
            return self[EXPORTS]
        if resource is NODES:
            recorded = (key for key, body in self[EXPORTS].uncompressed_items() if _lacks_node(status_of(body)))
            return {*recorded, *self.short_of_nodes}
        metadata = body["metadata"]
        name = (metadata.get("labels") or {}).get(names.EXPORT_LABEL)
        return ((metadata["namespace"], name),) if name else ()


def _lacks_node(status: JsonObject) -> bool:
    return any(entry.get("reason") == Reason.NO_SUITABLE_NODE for entry in target_entries(status))


def _decompress(kept: T | _Compressed[T] | None) -> T | None:
    return kept.decompress() if isinstance(kept, _Compressed) else kept


@lru_cache(maxsize=64)
def _summarise(reason: str) -> ModelExportObject:
    """Return the countable part of an ended export; all exports with the same reason share one object."""
    return {"metadata": {}, "status": {"completionTime": "", "conditions": [{"type": READY, "reason": reason}]}}


def _owner_of(body: KubeObject) -> tuple[str, str] | None:
    """Return the namespace and uid of the export whose label an object carries."""
    uid = (body["metadata"].get("labels") or {}).get(names.EXPORT_UID_LABEL)
    return (body["metadata"].get("namespace", ""), uid) if uid else None


_PRUNERS: Mapping[Resource, Callable[[KubeObject], KubeObject]] = {
    EXPORTS: prune_export,
    CLASSES: prune_class,
    JOBS: prune_conversion_job,
    PODS: prune_pod,
    NODES: prune_node,
}
_HAS_ENDED: Mapping[Resource, Callable[[Any], bool]] = {
    EXPORTS: lambda export: "completionTime" in status_of(export),
    JOBS: is_finished,
    PODS: lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"),
}
