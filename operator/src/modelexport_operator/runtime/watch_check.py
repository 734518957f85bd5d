"""Detects stale watches by comparing the cache with a fresh list.

A watch can fall silent without an error, and a process with a silent watch still looks healthy. So all objects are
listed periodically (their metadata only), and the watches get some time to catch up. Then every listed object must be
known in that version or a newer one, and every known object must be listed or be newer than the list. The cache counts
as synced after the first check that passes, or for an informer after its first list, which is the same without a second
list. Objects that are no longer listed are removed from the cache.

Each object is compared separately, because the progress of a watch on one object proves nothing about others. A listed
object that the cache lacks was either never reported or deleted after the list; the cache keeps tombstones to tell the
two apart even under load. Versions of one object only grow: a version newer than the list is no gap.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelexport_operator.kube.backoff import Backoff
from modelexport_operator.kube.client import Cluster, ClusterError, Listing
from modelexport_operator.kube.resources import Resource, Scope
from modelexport_operator.kube.types import Key
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime import memory
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.runtime.controller import Controller

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
COMPARISONS_PER_SECOND = 10_000
"""Limits how many late objects are compared again per second: there are many while a new process lists them all."""
LATE_SECONDS = 1.0
"""How often a watch that was behind is checked for having caught up."""
LIST_COST_FACTOR = 600
"""The pause between lists is at least this many times the processor time of the last one: with very many objects lists
use no more of it, but are rarer. How long a list takes by the clock does not count: a slow API server or a busy machine
makes a list slow, not expensive, and is when watches fail."""
LONGEST_PAUSE = 180.0
"""Seconds between two checks at most, however large the cluster: a silent watch delays every end until it is noticed. A
check with its tolerance for lag then stays below the 300 s after which the alert ModelExportOperatorDeaf counts it as
missing, and after which a watch connects again by itself (``WATCH_SECONDS``)."""
LONGEST_TRUST = 1800.0
"""Seconds for which bookmarks alone may pass as checks, where lists are due more rarely than checks. A list of 45,000
Jobs costs up to 3 s."""
BOOKMARK_SECONDS = 150.0
"""A watch without a bookmark for this long counts as silent. An API server sends one each minute (kubernetes,
staging/src/k8s.io/apiserver/pkg/storage/cacher/cacher.go); a new connection starts a new minute."""
CROWDED_NAMESPACE = 5000
"""Objects of one kind in one namespace: nine targets each of more than five hundred exports."""


@dataclass(frozen=True)
class Difference:
    """An object that differs between list and cache: a newer listed version, or a deletion before the list."""

    resource: Resource
    key: Key
    version: int
    is_listed: bool

    def persists(self, cache: Cache) -> bool:
        """Return whether the watch has still not reported it."""
        objects = cache[self.resource]
        if self.is_listed:
            return objects.known_version(self.key) < self.version
        return objects.version(self.key) is not None and objects.known_version(self.key) <= self.version


class WatchCheck:
    """The periodic comparison of cache and lists, and its last result.

    Args:
        cluster: the API server.
        controller: owns the cache.
        metrics: the metrics of the process.
        scopes: which objects to compare.
        interval: seconds between two checks of a scope.
        lag_tolerance: seconds for which a watch may be behind a list.
    """

    def __init__(
        self,
        cluster: Cluster,
        controller: Controller,
        metrics: Metrics,
        scopes: Sequence[Scope],
        *,
        interval: float,
        lag_tolerance: float,
    ) -> None:
        self.synced = asyncio.Event()
        self._cluster = cluster
        self._controller = controller
        self._metrics = metrics
        self._scopes = scopes
        self._interval = interval
        self._lag_tolerance = lag_tolerance
        self._behind = dict.fromkeys(scopes, 0)
        self._last_answer = dict.fromkeys(scopes, time.monotonic())
        self._last_bookmark = dict.fromkeys(scopes, -math.inf)
        self._next_list = dict.fromkeys(scopes, -math.inf)
        """When the next list of a scope is due, if its watch is not silent."""
        self._pauses = dict.fromkeys(scopes, interval)
        self._unsynced = set(scopes)
        self._first_lists: dict[Scope, asyncio.Event] = {}
        self._pending = set(scopes)
        """Scopes that have not been compared since the last complete check was recorded."""

    @property
    def lagging(self) -> dict[Resource, int]:
        """How many objects of each kind the watches have not reported."""
        behind: Counter[Resource] = Counter()
        for scope, count in self._behind.items():
            behind[scope.resource] += count
        return dict(+behind)

    @property
    def is_stale(self) -> bool:
        """Whether the API server has not answered for some scope for the time of three checks."""
        now = time.monotonic()
        return any(
            now - at > 3 * (self._pauses[scope] + self._lag_tolerance) for scope, at in self._last_answer.items()
        )

    def await_list(self, scope: Scope) -> Callable[[], None]:
        """Let the first list of an informer be the first check of its scope; it calls what is returned."""
        self._first_lists[scope] = asyncio.Event()
        return self._first_lists[scope].set

    def note_bookmark(self, scope: Scope) -> None:
        """Take note that a watch has reported everything up to some version."""
        self._last_bookmark[scope] = time.monotonic()

    async def run_forever(self) -> None:
        """Check every scope periodically and separately: a scope that cannot be listed does not delay others."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._check_forever(scope))

    async def _check_forever(self, scope: Scope) -> None:
        """Check a scope at once, retry soon until it has passed, and then check periodically."""
        backoff = Backoff()
        if listed := self._first_lists.get(scope):
            await listed.wait()
            self._pass(scope)
            await self._wait_for_next_check(scope, [])
        while True:
            try:
                missed = await self.check(scope)
            except ClusterError as error:
                pause = backoff.next(error.retry_after)
                plural = scope.resource.plural
                logger.warning("cannot check the watch of %s: %s; retrying in %.1f s", plural, error, pause)
                await asyncio.sleep(pause)
            else:
                backoff.reset()
                await self._wait_for_next_check(scope, missed)
                while not missed and self._can_trust_watch(scope):
                    self._pass(scope)
                    await self._wait_for_next_check(scope, [])

    def _can_trust_watch(self, scope: Scope) -> bool:
        """Return whether a bookmark passes as a check because a list would be too expensive so soon."""
        now = time.monotonic()
        return now < self._next_list[scope] and now - self._last_bookmark[scope] < BOOKMARK_SECONDS

    def _pass(self, scope: Scope) -> None:
        """Record a check that has found nothing, without a list."""
        self._last_answer[scope] = time.monotonic()
        self._finish(scope, [])

    async def check(self, scope: Scope) -> list[Difference]:
        """Compare cache and list, and return what the watch has not reported within the tolerance.

        Raises:
            ClusterError: the objects cannot be listed.
        """
        began = time.process_time()
        listing = await self._cluster.list_versions(scope)
        now, cost = time.monotonic(), time.process_time() - began
        self._last_answer[scope] = now
        self._pauses[scope] = max(self._interval, min(LIST_COST_FACTOR * cost, LONGEST_PAUSE))
        self._next_list[scope] = now + min(LIST_COST_FACTOR * cost, LONGEST_TRUST)
        missed = await self._wait_for_watch(scope, listing)
        for difference in missed:
            if not difference.is_listed:
                self._controller.handle_deletion(difference.resource, difference.key, difference.version)
        self._controller.cache[scope.resource].drop_tombstones(scope, listing.objects, listing.version)
        self._finish(scope, missed)
        return missed

    async def _wait_for_watch(self, scope: Scope, listing: Listing) -> list[Difference]:
        """Return what the watch has still not reported after the tolerance."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._lag_tolerance
        missed = self._compare(scope, listing)
        while missed and loop.time() <= end:
            await asyncio.sleep(max(POLL_SECONDS, len(missed) / COMPARISONS_PER_SECOND))
            missed = [difference for difference in missed if difference.persists(self._controller.cache)]
        return missed

    async def _wait_for_next_check(self, scope: Scope, missed: Sequence[Difference]) -> None:
        """Wait for the next check, and meanwhile lower the lag by what is reported late."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (POLL_SECONDS if scope in self._unsynced else self._pauses[scope])
        while missed and (left := end - loop.time()) > 0:
            await asyncio.sleep(min(LATE_SECONDS, left))
            # The check itself has applied missed deletions, so they do not show whether the watch has caught up.
            missed = [one for one in missed if not one.is_listed or one.persists(self._controller.cache)]
            self._set_lag(scope, len(missed))
        await asyncio.sleep(max(0.0, end - loop.time()))

    def _finish(self, scope: Scope, missed: Sequence[Difference]) -> None:
        """Record the result of a check."""
        memory.release()
        self._set_lag(scope, len(missed))
        self._pending.discard(scope)
        if not self._pending:
            self._metrics.record_watch_check()
            self._pending.update(self._scopes)
        self._record_kept(scope)
        if missed:
            logger.error("the watch of %s is behind by %d objects", scope.resource.plural, len(missed))
        else:
            self._unsynced.discard(scope)
        if not self._unsynced:
            self.synced.set()

    def _set_lag(self, scope: Scope, count: int) -> None:
        self._behind[scope] = count
        self._metrics.record_lag(scope.resource.plural, self.lagging.get(scope.resource, 0))

    def _compare(self, scope: Scope, listing: Listing) -> list[Difference]:
        resource, objects = scope.resource, self._controller.cache[scope.resource]
        late = (
            Difference(resource, key, version, True)
            for key, version in listing.objects.items()
            if objects.known_version(key) < version
        )
        gone = (
            Difference(resource, key, listing.version, False)
            for key in objects
            if key not in listing.objects and scope.contains(key[0])
        )
        return [*late, *(difference for difference in gone if difference.persists(self._controller.cache))]

    def _record_kept(self, scope: Scope) -> None:
        """Record how many objects are cached, and warn about namespaces with more than anyone should need."""
        plural, objects = scope.resource.plural, self._controller.cache[scope.resource]
        self._metrics.record_kept(plural, len(objects))
        for namespace, count in Counter(namespace for namespace, _ in objects if scope.contains(namespace)).items():
            if namespace and count > CROWDED_NAMESPACE:
                logger.warning("namespace %s has %d labelled %s; set a quota to limit them", namespace, count, plural)
