"""Leader election: of several operators one writes, and the others know all that it knows and wait."""

import asyncio
import logging
import math
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from modelexport_operator.backoff import jitter
from modelexport_operator.cluster import Cluster, ClusterError, ConflictError, GoneError
from modelexport_operator.lease import Sighting, build_lease, claim, look, may_hold, owner_of_token, release
from modelexport_operator.pods import Object
from modelexport_operator.settings import Settings

logger = logging.getLogger(__name__)


class LostLeaseError(Exception):
    """This process does not lead any more; what it knows and holds is not worth keeping."""


class Alone:
    """The only operator: it leads from the start and for ever."""

    problem = ""
    is_leading = True
    is_lost = False
    seconds_left = math.inf

    async def win(self) -> None:
        """Lead at once."""

    async def hold(self) -> None:
        """Lead for ever."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Leave nothing behind."""


class Election:
    """One candidate for a Lease."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self.problem = ""
        """Why the last try could not even be made; empty when it was, won or not."""
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._sighting: Sighting | None = None
        self._renewed: float | None = None
        """When this process last asked for what it got; minus infinity when it has lost it for good."""
        self._asked_pause = 0.0
        """For how long the API server wants to be left alone."""

    @property
    def is_leading(self) -> bool:
        """Whether this process may write now."""
        return self.seconds_left > 0

    @property
    def is_lost(self) -> bool:
        """Whether this process led and may not write any more; it never leads again."""
        return self._renewed is not None and not self.is_leading

    @property
    def seconds_left(self) -> float:
        """For how long this process may write if it does not renew the Lease; it stops before any other may begin."""
        if self._renewed is None:
            return 0.0
        return max(0.0, self._renewed + self._settings.lease_renew_seconds - self._clock())

    async def win(self) -> None:
        """Wait until this process leads."""
        while not await self._try():
            await asyncio.sleep(max(self._settings.lease_retry_seconds, self._asked_pause))
        logger.info("%s leads now", self.identity)

    async def hold(self) -> None:
        """Go on leading.

        Raises:
            LostLeaseError: the Lease was taken, or could not be renewed in time.
        """
        while True:
            # With half of what is left, a server that asks for a long pause is asked again before the Lease is lost.
            pause = max(self._settings.lease_retry_seconds, min(self._asked_pause, self.seconds_left / 2))
            await asyncio.sleep(min(pause, self.seconds_left))
            try:
                async with asyncio.timeout(self.seconds_left):
                    await self._try()
            except TimeoutError:
                self.problem = "the Lease was not renewed in time"
            if not self.is_leading or self._is_deposed():
                self._renewed = -math.inf
                raise LostLeaseError(self.problem or "another operator leads")

    async def release(self) -> None:
        """Let somebody else lead at once; whoever calls it has stopped writing."""
        if self._sighting is None or self._is_deposed() or not self.is_leading:
            return
        left, self._renewed = self.seconds_left, None
        try:
            async with asyncio.timeout(left):
                await self._cluster.write_lease(release(self._sighting.lease))
        except (ClusterError, TimeoutError) as error:
            logger.warning("the Lease runs out by itself: %r", error)

    def _is_deposed(self) -> bool:
        return self._sighting is not None and self._sighting.holder != self.identity

    async def _try(self) -> bool:
        """Take or renew the Lease; ``False`` when that is not possible now."""
        asked = self._clock()
        try:
            lease = await self._read()
            is_ours = self._take_note(lease) and await self._write(lease)
        except ConflictError:
            is_ours = False
        except ClusterError as error:
            logger.warning("the Lease cannot be used: %s", error)
            self.problem = f"the Lease cannot be used: {error}"
            self._asked_pause = jitter(error.retry_after)
            return False
        self.problem, self._asked_pause = "", 0.0
        # What was answered too late is worth nothing: neither a claim, nor a renewal after a time without the Lease.
        if is_ours and not self.is_lost and self._clock() < asked + self._settings.lease_renew_seconds:
            self._renewed = asked
        return self.is_leading

    async def _read(self) -> Object:
        namespace, name = self._settings.lease_namespace, self._settings.lease_name
        try:
            return await self._cluster.read_lease(namespace, name)
        except GoneError:
            owner = owner_of_token(self._cluster.token, namespace)
            return await self._cluster.create_lease(build_lease(namespace, name, owner))

    def _take_note(self, lease: Object) -> bool:
        """Note the Lease as it was read, and tell whether it may be ours."""
        before, now = self._sighting, self._clock()
        self._sighting = look(before, lease, now)
        if before is None or before.holder != self._sighting.holder:
            logger.info("the Lease is held by %s", self._sighting.holder or "nobody")
        return may_hold(self._sighting, self.identity, now)

    async def _write(self, lease: Object) -> bool:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        written = await self._cluster.write_lease(claim(lease, self.identity, self._settings.lease_seconds, at))
        self._sighting = look(self._sighting, written, self._clock())
        return True


Leadership = Election | Alone
