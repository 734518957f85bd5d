"""Leader election: one of several operators writes; the others keep their caches up to date and stand by."""

import asyncio
import logging
import math
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from modelexport_operator.kube.backoff import jitter
from modelexport_operator.kube.client import Cluster, ClusterError, ConflictError, NotFoundError
from modelexport_operator.kube.objects import Lease
from modelexport_operator.leadership.lease import (
    ObservedLease,
    build_lease,
    can_acquire,
    claimed,
    observe,
    owner_of_token,
    released,
)
from modelexport_operator.settings import Settings

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """This process is no longer the leader; its state is not worth keeping."""


class NoElection:
    """The only operator: it leads from the start and for ever."""

    problem = ""
    is_leading = True
    is_lost = False
    seconds_left = math.inf

    async def acquire(self) -> None:
        """Lead at once."""

    async def renew_forever(self) -> None:
        """Lead for ever."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Do nothing: there is no Lease."""


class Election:
    """One candidate for a Lease."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self.problem = ""
        """Why the last attempt failed with an error; empty otherwise, whether or not it acquired the Lease."""
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._observed: ObservedLease | None = None
        self._renewed: float | None = None
        """When this process last requested what it then got; minus infinity once it has lost the Lease for good."""
        self._asked_pause = 0.0
        """The Retry-After of the API server, in seconds."""

    @property
    def is_leading(self) -> bool:
        """Whether this process may write now."""
        return self.seconds_left > 0

    @property
    def is_lost(self) -> bool:
        """Whether this process has led and may not write any more; it never leads again."""
        return self._renewed is not None and not self.is_leading

    @property
    def seconds_left(self) -> float:
        """How long this process may write without a renewal; it stops before another one may start."""
        if self._renewed is None:
            return 0.0
        return max(0.0, self._renewed + self._settings.lease_renew_seconds - self._clock())

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._try():
            await asyncio.sleep(max(self._settings.lease_retry_seconds, self._asked_pause))
        logger.info("%s is the leader now", self.identity)

    async def renew_forever(self) -> None:
        """Keep leading.

        Raises:
            LeaseLostError: another operator acquired the Lease, or it could not be renewed in time.
        """
        while True:
            # At most half of the remaining time, so that a long Retry-After does not cost the Lease.
            pause = max(self._settings.lease_retry_seconds, min(self._asked_pause, self.seconds_left / 2))
            await asyncio.sleep(min(pause, self.seconds_left))
            try:
                async with asyncio.timeout(self.seconds_left):
                    await self._try()
            except TimeoutError:
                self.problem = "the Lease was not renewed in time"
            if not self.is_leading or self._is_held_by_other():
                self._renewed = -math.inf
                raise LeaseLostError(self.problem or "another operator is the leader")

    async def release(self) -> None:
        """Let another operator lead at once; the caller has stopped writing."""
        if self._observed is None or self._is_held_by_other() or not self.is_leading:
            return
        left, self._renewed = self.seconds_left, None
        try:
            async with asyncio.timeout(left):
                await self._cluster.write_lease(released(self._observed.lease))
        except (ClusterError, TimeoutError) as error:
            logger.warning("cannot release the Lease; it will expire: %r", error)

    def _is_held_by_other(self) -> bool:
        return self._observed is not None and self._observed.holder != self.identity

    async def _try(self) -> bool:
        """Acquire or renew the Lease; return ``False`` if that is not possible now."""
        asked = self._clock()
        try:
            lease = await self._read()
            is_ours = self._observe(lease)
            if is_ours:
                at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                written = await self._cluster.write_lease(
                    claimed(lease, self.identity, self._settings.lease_seconds, at)
                )
                self._observed = observe(self._observed, written, self._clock())
        except ConflictError:
            is_ours = False
        except ClusterError as error:
            logger.warning("cannot acquire or renew the Lease: %s", error)
            self.problem = f"cannot acquire or renew the Lease: {error}"
            self._asked_pause = jitter(error.retry_after)
            return False
        self.problem, self._asked_pause = "", 0.0
        # A late response counts neither as a claim nor as a renewal: the Lease may have expired meanwhile.
        if is_ours and not self.is_lost and self._clock() < asked + self._settings.lease_renew_seconds:
            self._renewed = asked
        return self.is_leading

    async def _read(self) -> Lease:
        namespace, name = self._settings.lease_namespace, self._settings.lease_name
        try:
            return await self._cluster.read_lease(namespace, name)
        except NotFoundError:
            owner = owner_of_token(self._cluster.token, namespace)
            return await self._cluster.create_lease(build_lease(namespace, name, owner))

    def _observe(self, lease: Lease) -> bool:
        """Record the Lease as it was read, and return whether this process may hold it."""
        before, now = self._observed, self._clock()
        self._observed = observe(before, lease, now)
        if before is None or before.holder != self._observed.holder:
            logger.info("the Lease is held by %s", self._observed.holder or "no operator")
        return can_acquire(self._observed, self.identity, now)


Leadership = Election | NoElection
