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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelexport_operator.cluster import Cluster, ClusterError, Listing
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import WATCHED, Resource, Scope
from modelexport_operator.stores import Key, Stores

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
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
        return store.get(self.key) is not None and store.known_version(self.key) <= self.version


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
        self.lagging: dict[Resource, int] = {}
        self._cluster = cluster
        self._controller = controller
        self._metrics = metrics
        self._scopes = scopes
        self._every = every
        self._patience = patience
        self._last_listing = time.monotonic()

    @property
    def is_blind(self) -> bool:
        """Whether the API server has not answered for three audits in a row."""
        return time.monotonic() - self._last_listing > 3 * (self._every + self._patience)

    async def run_forever(self) -> None:
        """Audit now and then; the first time at once, and soon again until it passes."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._every if self.primed.is_set() else POLL_SECONDS)

    async def run_once(self) -> None:
        """Compare all stores with a listing, or log why there is none."""
        try:
            await self._compare()
        except ClusterError as error:
            logger.warning("the watches cannot be checked: %s", error)

    async def _compare(self) -> None:
        listings = await asyncio.gather(*map(self._cluster.list_versions, self._scopes))
        self._last_listing = time.monotonic()
        compared = dict(zip(self._scopes, listings, strict=True))
        missed = await self._wait_for_watches(compared)
        self.lagging = dict(Counter(difference.resource for difference in missed))
        self._metrics.record_audit()
        for difference in missed:
            if not difference.is_listed:
                self._controller.forget(difference.resource, difference.key, difference.version)
        for scope, listing in compared.items():
            self._controller.stores[scope.resource].forget_gone(scope, listing.objects, listing.version)
        for resource in WATCHED:
            self._metrics.record_lag(resource.plural, self.lagging.get(resource, 0))
            self._count_kept(resource)
        if self.lagging:
            logger.error("watches have fallen behind: %s", {r.plural: count for r, count in self.lagging.items()})
        else:
            self.primed.set()

    async def _wait_for_watches(self, listings: Mapping[Scope, Listing]) -> list[Difference]:
        """Return what the watches have still not told after the patience is over."""
        end = time.monotonic() + self._patience
        missed = [difference for scope, listing in listings.items() for difference in self._compare_one(scope, listing)]
        while missed and time.monotonic() <= end:
            await asyncio.sleep(POLL_SECONDS)
            missed = [difference for difference in missed if difference.remains(self._controller.stores)]
        return missed

    def _compare_one(self, scope: Scope, listing: Listing) -> list[Difference]:
        resource, stores = scope.resource, self._controller.stores
        listed = (Difference(resource, key, version, True) for key, version in listing.objects.items())
        gone = (
            Difference(resource, key, listing.version, False)
            for key in stores[resource]
            if scope.holds(key[0]) and key not in listing.objects
        )
        return [difference for difference in (*listed, *gone) if difference.remains(stores)]

    def _count_kept(self, resource: Resource) -> None:
        """Tell how many objects are kept, and of which namespace there are more than anybody should need."""
        store = self._controller.stores[resource]
        self._metrics.record_kept(resource.plural, len(store))
        for namespace, count in Counter(namespace for namespace, _ in store).items():
            if namespace and count > CROWD:
                logger.warning("namespace %s has %d %s of ours; a quota bounds them", namespace, count, resource.plural)
