"""Whether the watches still hear: what the API server lists is compared with what the watches have told.

A watch can fall silent without an error, and a process that is alive but deaf looks healthy. So every now and then all
objects are listed (their metadata only), the watches get a moment to catch up, and then every object must be known in
that version or a newer one. The first audit that passes says that the stores are primed; an object that is no longer
listed was deleted while nobody heard it, and is forgotten.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from modelexport_operator.cluster import Cluster, ClusterError, Listing
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.pods import Object
from modelexport_operator.resources import WATCHED, Resource, Scope
from modelexport_operator.stores import version_of

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
CROWD = 5000
"""Objects of a kind in one namespace: nine targets each of more than five hundred exports."""


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
        self.lagging = await self._wait_for_watches(compared)
        self._metrics.record_audit()
        for scope, listing in compared.items():
            self._forget_unlisted(scope, listing)
        for resource in WATCHED:
            self._metrics.record_lag(resource.plural, self.lagging.get(resource, 0))
            self._count_kept(resource)
        if self.lagging:
            logger.error("watches have fallen behind: %s", {r.plural: count for r, count in self.lagging.items()})
        else:
            self.primed.set()

    async def _wait_for_watches(self, listings: Mapping[Scope, Listing]) -> dict[Resource, int]:
        """Return how many objects of which kinds are still unknown after the patience is over."""
        end = time.monotonic() + self._patience
        while True:
            behind: Counter[Resource] = Counter()
            for scope, listing in listings.items():
                behind[scope.resource] += self._count_behind(scope, listing)
            lagging = dict(+behind)
            if not lagging or time.monotonic() > end:
                return lagging
            await asyncio.sleep(POLL_SECONDS)

    def _count_behind(self, scope: Scope, listing: Listing) -> int:
        store = self._controller.stores[scope.resource]
        has_passed = store.heard(scope.namespace) >= listing.version
        return sum(_is_behind(store.get(key), version, has_passed) for key, version in listing.objects.items())

    def _count_kept(self, resource: Resource) -> None:
        """Tell how many objects are kept, and of which namespace there are more than anybody should need."""
        store = self._controller.stores[resource]
        self._metrics.record_kept(resource.plural, len(store))
        for namespace, count in Counter(namespace for namespace, _ in store).items():
            if namespace and count > CROWD:
                logger.warning("namespace %s has %d %s of ours; a quota bounds them", namespace, count, resource.plural)

    def _forget_unlisted(self, scope: Scope, listing: Listing) -> None:
        for key in self._controller.stores[scope.resource]:
            if scope.holds(key[0]) and key not in listing.objects:
                self._controller.forget(scope.resource, key, listing.version)


def _is_behind(body: Object | None, version: int, has_passed: bool) -> bool:
    """Whether an object is not known as it was listed; a watch that has passed the listing has told of its deletion."""
    return not has_passed if body is None else version_of(body) < version
