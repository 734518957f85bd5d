"""Watches Jobs and Pods in one of three ways: ``python -m benchmarks.watches.watchers own|handlers|indices``.

The process prints ``ready`` when it has connected, and answers each line of its standard input with a line of JSON:
``go`` starts watching, ``count`` returns the number of handled events, ``state`` the known versions of all objects.
"""

import asyncio
import gc
import json
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

import kopf

from modelexport import names
from modelexport_operator.__main__ import GARBAGE_THRESHOLDS
from modelexport_operator.jobs.conversion_job import prune_conversion_job
from modelexport_operator.kube.client import WHOLE_PAGE, Cluster
from modelexport_operator.kube.pruning import prune_pod
from modelexport_operator.kube.resources import JOBS, PODS, Resource, Scope
from modelexport_operator.kube.types import Key
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime import kopf_watches
from modelexport_operator.runtime.controller import COOLDOWN_SECONDS, Controller
from modelexport_operator.runtime.informer import listen_forever
from modelexport_operator.runtime.work_queue import WorkQueue

RESOURCES = (JOBS, PODS)
PRUNES: dict[Resource, Callable[[Any], Any]] = {JOBS: prune_conversion_job, PODS: prune_pod}


class Watcher(ABC):
    """Receives events of Jobs and Pods, caches the pruned objects, and adds their exports to a work queue."""

    def __init__(self) -> None:
        self.handled = 0
        self.last = 0.0
        """Time of the last handled event, on the monotonic clock that all processes share."""

    def note(self) -> None:
        """Count a handled event."""
        self.handled += 1
        self.last = time.monotonic()

    @abstractmethod
    async def run(self, cluster: Cluster) -> None:
        """Watch until cancelled."""

    @abstractmethod
    def bodies(self, resource: Resource) -> Iterable[Any]:
        """Return the cached objects of one kind."""

    def answer(self, question: str) -> Any:
        """Answer a line of the standard input."""
        if question == "state":
            return {"last": self.last, **{resource.plural: self._versions(resource) for resource in RESOURCES}}
        return self.handled

    def _versions(self, resource: Resource) -> dict[str, str]:
        return {body["metadata"]["name"]: body["metadata"]["resourceVersion"] for body in self.bodies(resource)}


class _CountingController(Controller):
    def __init__(self, cluster: Cluster, watcher: Watcher) -> None:
        super().__init__(cluster, Metrics())
        self._watcher = watcher

    def handle_event(self, resource: Resource, change: str | None, body: Any) -> None:
        super().handle_event(resource, change, body)
        self._watcher.note()


class Own(Watcher):
    """The operator's own list and watch, before its cache and its queue."""

    async def run(self, cluster: Cluster) -> None:
        """Watch until cancelled."""
        self._controller = _CountingController(cluster, self)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.work_forever())
            await self._watch(cluster, group)

    async def _watch(self, cluster: Cluster, group: asyncio.TaskGroup) -> None:
        for resource in RESOURCES:
            group.create_task(listen_forever(cluster, self._controller, Scope(resource)))

    def bodies(self, resource: Resource) -> Iterable[Any]:
        """Return the objects of the cache."""
        return self._controller.cache[resource].values()


class Handlers(Own):
    """kopf's event handlers in front of the same cache and queue, as ModelExports have them."""

    async def _watch(self, cluster: Cluster, group: asyncio.TaskGroup) -> None:
        registry = kopf_watches.build_registry(self._controller, RESOURCES)
        group.create_task(kopf_watches.watch_forever(registry, (), asyncio.Event()))


class Indices(Watcher):
    """kopf's indices in place of the cache, and its event handlers in front of the queue."""

    def __init__(self) -> None:
        super().__init__()
        self._indices: dict[str, kopf.Index[Any, Any]] = {}
        self._queue: WorkQueue[Key] = WorkQueue(COOLDOWN_SECONDS, flow=itemgetter(0))

    async def run(self, cluster: Cluster) -> None:
        """Watch until cancelled."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)
        for resource in RESOURCES:
            self._index(registry, resource)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work_forever())
            group.create_task(kopf_watches.watch_forever(registry, (), asyncio.Event()))

    def _index(self, registry: kopf.OperatorRegistry, resource: Resource) -> None:
        kind = resource.group, resource.version, resource.plural

        @kopf.index(*kind, id=resource.plural, registry=registry)
        async def keep(body: kopf.Body, **_: Any) -> Any:
            kept = PRUNES[resource](dict(body))
            return {(kept["metadata"]["namespace"], kept["metadata"]["labels"][names.EXPORT_UID_LABEL]): kept}

        @kopf.on.event(*kind, id=f"watch-{resource.plural}", registry=registry)
        async def mark(event: kopf.RawEvent, **known: Any) -> None:
            self._indices = {resource.plural: known[resource.plural] for resource in RESOURCES}
            metadata: Any = event["object"]["metadata"]
            self._queue.add((metadata["namespace"], metadata["labels"][names.EXPORT_LABEL]))
            self.note()

    async def _work_forever(self) -> None:
        while True:
            self._queue.done(await self._queue.get())

    def bodies(self, resource: Resource) -> Iterable[Any]:
        """Return the objects of the index."""
        return [body for found in self._indices.get(resource.plural, {}).values() for body in found]


WATCHERS: dict[str, type[Watcher]] = {"own": Own, "handlers": Handlers, "indices": Indices}


async def main(name: str) -> None:
    """Answer until the standard input ends."""
    watcher, loop = WATCHERS[name](), asyncio.get_running_loop()
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    async with Cluster.connect() as cluster:
        print(json.dumps("ready"), flush=True)
        await questions.readline()
        watching = asyncio.create_task(watcher.run(cluster))
        print(json.dumps("goes"), flush=True)
        async for question in questions:
            if watching.done():
                watching.result()
            print(json.dumps(watcher.answer(question.decode().strip())), flush=True)
        watching.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    kopf_watches.OBJECTS_AT_ONCE = WHOLE_PAGE  # as many as our own list has in a page
    asyncio.run(main(sys.argv[1]))
