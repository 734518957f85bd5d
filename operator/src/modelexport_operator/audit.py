"""Whether the watches still hear: what the API server lists is compared with what the watches have told.

A watch can fall silent without an error, and a process that is alive but deaf looks healthy. So every now and then all
objects are listed (their metadata only), and the watches get a moment to catch up. Then every object that is listed has
to be known in that version or a newer one, and every object that is known has to be listed, or to be newer than the
list. The first audit that passes says that the stores are primed; what is no longer listed is forgotten.

Each object is compared by itself; how far a watch has come proves nothing about the others. An object that is listed
and not in its store was either never told, or deleted after the list. The store remembers deletions, and so tells the
two apart also while much changes. The versions of one object only grow: one that is newer than listed is no gap.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modelexport_operator.backoff import Backoff
from modelexport_operator.cluster import Cluster, ClusterError, Listing
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import Resource, Scope
from modelexport_operator.stores import Key, Stores

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
LATE_SECONDS = 1.0
"""How often it is looked whether a watch that was behind has caught up."""
CROWD = 5000
"""Objects of a kind in one namespace: nine targets each of more than five hundred exports."""


@dataclass(frozen=True)
class Difference:
    """What a list says of one object, and a store does not: a version of it, or that it was gone at the list's."""

    resource: Resource
    key: Key
    version: int
    is_listed: bool

    def remains(self, stores: Stores) -> bool:
        """Whether the watch has still not told of it."""
        store = stores[self.resource]
        if self.is_listed:
            return store.known_version(self.key) < self.version
        return store.version(self.key) is not None and store.known_version(self.key) <= self.version


class Audit:
    """The comparison, repeated for ever, and its last outcome."""

    def __init__(
        self,
        cluster: Cluster,
        controller: Controller,
        metrics: Metrics,
        scopes: Sequence[Scope],
        *,
        every: float,
        patience: float,
    ) -> None:
        self.primed = asyncio.Event()
        self._cluster = cluster
        self._controller = controller
        self._metrics = metrics
        self._scopes = scopes
        self._every = every
        self._patience = patience
        self._behind = dict.fromkeys(scopes, 0)
        self._last_listing = dict.fromkeys(scopes, time.monotonic())
        self._never_passed = set(scopes)
        self._not_compared = set(scopes)
        """Scopes that were not compared since the audit was last recorded."""

    @property
    def lagging(self) -> dict[Resource, int]:
        """Of how many objects of which kinds the watches have not told."""
        behind: Counter[Resource] = Counter()
        for scope, count in self._behind.items():
            behind[scope.resource] += count
        return dict(+behind)

    @property
    def is_blind(self) -> bool:
        """Whether for the time of three audits the API server has not answered for some scope."""
        return time.monotonic() - min(self._last_listing.values()) > 3 * (self._every + self._patience)

    async def run_forever(self) -> None:
        """Check every scope now and then, each by itself: one that cannot be listed keeps no other waiting."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._check_forever(scope))

    async def _check_forever(self, scope: Scope) -> None:
        """Check a scope at once, soon again until it has passed, and then now and then."""
        backoff = Backoff()
        while True:
            try:
                missed = await self.check(scope)
            except ClusterError as error:
                pause = backoff.next(error.retry_after)
                plural = scope.resource.plural
                logger.warning("the watches cannot be checked: %s: %s; again in %.1f s", plural, error, pause)
                await asyncio.sleep(pause)
            else:
                backoff.reset()
                await self._rest(scope, missed)

    async def check(self, scope: Scope) -> list[Difference]:
        """Compare a store with a list, and return what its watch has not told when the patience is over.

        Raises:
            ClusterError: there is no list.
        """
        listing = await self._cluster.list_versions(scope)
        self._last_listing[scope] = time.monotonic()
        missed = await self._wait_for_watch(scope, listing)
        self._record(scope, len(missed))
        for difference in missed:
            if not difference.is_listed:
                self._controller.forget(difference.resource, difference.key, difference.version)
        self._controller.stores[scope.resource].forget_gone(scope, listing.objects, listing.version)
        self._count_kept(scope)
        if missed:
            logger.error("watches have fallen behind: %d %s", len(missed), scope.resource.plural)
        else:
            self._never_passed.discard(scope)
        if not self._never_passed:
            self.primed.set()
        return missed

    async def _wait_for_watch(self, scope: Scope, listing: Listing) -> list[Difference]:
        """Return what the watch has still not told after the patience is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        missed = self._compare_one(scope, listing)
        while missed and loop.time() <= end:
            await asyncio.sleep(POLL_SECONDS)
            missed = [difference for difference in missed if difference.remains(self._controller.stores)]
        return missed

    async def _rest(self, scope: Scope, missed: Sequence[Difference]) -> None:
        """Wait for the next check; of what was missed that is no longer counted which is told late."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (POLL_SECONDS if scope in self._never_passed else self._every)
        while missed and (left := end - loop.time()) > 0:
            await asyncio.sleep(min(LATE_SECONDS, left))
            # A deletion that was missed has been made up for by the check itself, and proves nothing of the watch.
            missed = [one for one in missed if not one.is_listed or one.remains(self._controller.stores)]
            self._set_behind(scope, len(missed))
        await asyncio.sleep(max(0.0, end - loop.time()))

    def _record(self, scope: Scope, behind: int) -> None:
        self._set_behind(scope, behind)
        self._not_compared.discard(scope)
        if not self._not_compared:
            self._metrics.record_audit()
            self._not_compared.update(self._scopes)

    def _set_behind(self, scope: Scope, count: int) -> None:
        self._behind[scope] = count
        self._metrics.record_lag(scope.resource.plural, self.lagging.get(scope.resource, 0))

    def _compare_one(self, scope: Scope, listing: Listing) -> list[Difference]:
        resource, stores = scope.resource, self._controller.stores
        listed = (Difference(resource, key, version, True) for key, version in listing.objects.items())
        gone = (
            Difference(resource, key, listing.version, False)
            for key in stores[resource]
            if scope.holds(key[0]) and key not in listing.objects
        )
        return [difference for difference in (*listed, *gone) if difference.remains(stores)]

    def _count_kept(self, scope: Scope) -> None:
        """Tell how many objects are kept, and of which namespace there are more than anybody should need."""
        plural, store = scope.resource.plural, self._controller.stores[scope.resource]
        self._metrics.record_kept(plural, len(store))
        for namespace, count in Counter(namespace for namespace, _ in store if scope.holds(namespace)).items():
            if namespace and count > CROWD:
                logger.warning("namespace %s has %d %s of ours; a quota bounds them", namespace, count, plural)
