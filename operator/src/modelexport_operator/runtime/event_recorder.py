"""Events are sent in the background, those of one export in order; client-go calls this an event recorder.

Nobody waits for an event: a worker that has written a status goes on with the next export. What is sent is bounded in
number and tries, as in client-go (tools/record/event.go), and what is lost stands in the log, where every event is told
first. An event's name follows from its content, so one that was sent by another process is not there twice.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any

from modelexport import names
from modelexport.logs import announce, with_fields
from modelexport.text import clean
from modelexport_operator.cluster import Cluster, ClusterError, ConflictError, ExistsError, UnavailableError
from modelexport_operator.events import Event
from modelexport_operator.pods import Object
from modelexport_operator.queue import DirtyQueue
from modelexport_operator.stores import Key, key_of
from modelexport_operator.sync import format_time

logger = logging.getLogger(__name__)

EVENT_MESSAGE_LIMIT = 1024
"""What the API server takes of an event's message."""
SENDERS = 4
MOST_EVENTS = 5000
"""How many events may wait: five of each of a thousand exports, of 2 KB each."""
MOST_TRIES = 12
"""How often an event is tried, as in client-go; with the back-off of the queue that is almost four minutes."""


class EventRecorder:
    """The events that are not sent yet."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._queue: DirtyQueue[Key] = DirtyQueue(flow=itemgetter(0))
        self._pending: defaultdict[Key, deque[dict[str, Any]]] = defaultdict(deque)
        self._waiting = 0
        self._tries: defaultdict[Key, int] = defaultdict(int)

    def __len__(self) -> int:
        return self._waiting

    def record(self, export: Object, events: Sequence[Event]) -> None:
        """Log events on an export, and have them sent in this order."""
        key = key_of(export)
        for event in events:
            _announce(key, event)
            built = build_event(export, event, format_time(self._clock()))
            if self._waiting >= MOST_EVENTS:
                _lose(built, f"{MOST_EVENTS} events wait already")
                continue
            self._pending[key].append(built)
            self._waiting += 1
            self._queue.mark(key)

    async def send_forever(self) -> None:
        """Send events; several of these run side by side, each with an export of its own."""
        while True:
            await self.send_once()

    async def send_once(self) -> None:
        """Send the events of one export; after one that may be taken later nothing else of it is sent till then."""
        key = await self._queue.take()
        while key in self._pending:
            try:
                await self._create(self._pending[key][0])
            except (UnavailableError, ConflictError) as error:
                self._tries[key] += 1
                if self._tries[key] < MOST_TRIES:
                    self._queue.fail(key, error.retry_after if isinstance(error, UnavailableError) else 0.0)
                    return
                _lose(self._pending[key][0], str(error))
            except Exception as error:
                # What one event brings out, refusal or defect, must not keep the others waiting.
                _lose(self._pending[key][0], repr(error) if not isinstance(error, ClusterError) else str(error))
            self._drop_first(key)
        self._queue.done(key)

    async def drain(self, within: float) -> None:
        """Send what waits once, in so many seconds; nobody sends or records anything any more."""
        keys = iter(list(self._pending))
        end = asyncio.get_running_loop().time() + within
        tasks = [asyncio.create_task(self._send_rest(keys, end)) for _ in range(min(SENDERS, len(self._pending)))]
        if tasks:
            # No timeout that cancels: aiohttp can lose a cancellation, and this has to end in time.
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                task.cancel()
        for events in self._pending.values():
            for event in events:
                _lose(event, "the operator ends")

    async def _send_rest(self, keys: Iterator[Key], end: float) -> None:
        for key in keys:
            while key in self._pending and asyncio.get_running_loop().time() < end:
                try:
                    await self._create(self._pending[key][0])
                except ClusterError as error:
                    _lose(self._pending[key][0], str(error))
                self._drop_first(key)

    async def _create(self, event: dict[str, Any]) -> None:
        with suppress(ExistsError):
            await self._cluster.create_event(event)

    def _drop_first(self, key: Key) -> None:
        self._pending[key].popleft()
        self._waiting -= 1
        self._tries.pop(key, None)
        if not self._pending[key]:
            del self._pending[key]


def build_event(export: Object, event: Event, at: str) -> dict[str, Any]:
    """Build an event on an export; the version of the export makes its name new for every status."""
    metadata, message = export["metadata"], clean(event.message)
    identity = "/".join((metadata["uid"], metadata["resourceVersion"], event.reason, message))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.EXPORT_KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": message[:EVENT_MESSAGE_LIMIT],
        "source": {"component": names.MANAGED_BY},
        "reportingComponent": names.MANAGED_BY,
        "reportingInstance": names.MANAGED_BY,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def _announce(key: Key, event: Event) -> None:
    """Log an event in one line for each of its targets, so that each can be found with its Job."""
    level = logging.INFO if event.type == "Normal" else logging.WARNING
    export, reason = "/".join(key), event.reason
    for state in event.targets:
        target, job, message = state.target, state.job_name, state.message
        announce("event", level=level, export=export, target=target, job=job, reason=reason, message=message)
    if not event.targets:
        announce("event", level=level, export=export, reason=reason, message=event.message)


def _lose(event: dict[str, Any], why: str) -> None:
    about = event["involvedObject"]
    export = with_fields(export=f"{about['namespace']}/{about['name']}")
    logger.warning("event %s was not created: %s", event["reason"], why, extra=export)
