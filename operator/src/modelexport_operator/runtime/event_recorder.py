"""Sends events in the background, in order for each export, like client-go's event recorder.

Workers do not wait for events: after a status is written, the next export follows. As in client-go
(tools/record/event.go), the number of waiting events and of tries is limited. Every event is logged first, so a lost
one is still in the log. The name of an event is derived from its content, so two processes do not create it twice.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from operator import itemgetter

from modelexport import names
from modelexport.logs import announce, with_fields
from modelexport.text import clean
from modelexport_operator.kube.client import AlreadyExistsError, Cluster, ClusterError, ConflictError, UnavailableError
from modelexport_operator.kube.clock import format_time
from modelexport_operator.kube.objects import EventObject, ModelExportObject
from modelexport_operator.kube.types import Key, key_of
from modelexport_operator.runtime.work_queue import WorkQueue
from modelexport_operator.status.events import Event

logger = logging.getLogger(__name__)

EVENT_MESSAGE_LIMIT = 1024
"""The longest message of an event that the API server accepts."""
SENDERS = 4
MOST_EVENTS = 5000
"""How many events may wait: five of each of a thousand exports, of 2 KB each."""
MOST_TRIES = 12
"""How often an event is tried, as in client-go; with the backoff of the queue this is almost four minutes."""


class EventRecorder:
    """The events that have not been sent yet."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._queue: WorkQueue[Key] = WorkQueue(flow=itemgetter(0))
        self._pending: defaultdict[Key, deque[EventObject]] = defaultdict(deque)
        self._waiting = 0
        self._tries: defaultdict[Key, int] = defaultdict(int)

    def __len__(self) -> int:
        return self._waiting

    def record(self, body: ModelExportObject, events: Sequence[Event]) -> None:
        """Log events of an export and queue them for sending, in this order."""
        key = key_of(body)
        for event in events:
            # One line per target, so that an event can be found by target and Job.
            level = logging.INFO if event.type == "Normal" else logging.WARNING
            export, reason = "/".join(key), event.reason
            for state in event.targets:
                target, job, message = state.target, state.job_name, state.message
                announce("event", level=level, export=export, target=target, job=job, reason=reason, message=message)
            if not event.targets:
                announce("event", level=level, export=export, reason=reason, message=event.message)
            built = build_event(body, event, format_time(self._clock()))
            if self._waiting >= MOST_EVENTS:
                _log_lost(built, f"{MOST_EVENTS} events are already waiting")
                continue
            self._pending[key].append(built)
            self._waiting += 1
            self._queue.add(key)

    async def send_forever(self) -> None:
        """Send events; several of these tasks run concurrently, each with its own export."""
        while True:
            await self.send_once()

    async def send_once(self) -> None:
        """Send the events of one export; if one has to be retried, the rest of them waits for it."""
        key = await self._queue.get()
        while key in self._pending:
            try:
                await self._create(self._pending[key][0])
            except (UnavailableError, ConflictError) as error:
                self._tries[key] += 1
                if self._tries[key] < MOST_TRIES:
                    self._queue.retry(key, error.retry_after if isinstance(error, UnavailableError) else 0.0)
                    return
                _log_lost(self._pending[key][0], str(error))
            except Exception as error:
                # A refusal or a defect that one event triggers must not block the others.
                _log_lost(self._pending[key][0], repr(error) if not isinstance(error, ClusterError) else str(error))
            self._remove_first(key)
        self._queue.done(key)

    async def drain(self, within: float) -> None:
        """Try to send every waiting event once within so many seconds; nothing else may send or record any more."""
        keys = iter(list(self._pending))
        end = asyncio.get_running_loop().time() + within
        tasks = [asyncio.create_task(self._send_rest(keys, end)) for _ in range(min(SENDERS, len(self._pending)))]
        if tasks:
            # A timeout that cancels is no option: aiohttp can lose a cancellation, and this has to end in time.
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                task.cancel()
        for events in self._pending.values():
            for event in events:
                _log_lost(event, "the operator is shutting down")

    async def _send_rest(self, keys: Iterator[Key], end: float) -> None:
        for key in keys:
            while key in self._pending and asyncio.get_running_loop().time() < end:
                try:
                    await self._create(self._pending[key][0])
                except ClusterError as error:
                    _log_lost(self._pending[key][0], str(error))
                self._remove_first(key)

    async def _create(self, event: EventObject) -> None:
        with suppress(AlreadyExistsError):
            await self._cluster.create_event(event)

    def _remove_first(self, key: Key) -> None:
        self._pending[key].popleft()
        self._waiting -= 1
        self._tries.pop(key, None)
        if not self._pending[key]:
            del self._pending[key]


def build_event(export: ModelExportObject, event: Event, at: str) -> EventObject:
    """Build an event of an export; the version of the export gives it a new name for every status."""
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


def _log_lost(event: EventObject, why: str) -> None:
    about = event["involvedObject"]
    export = with_fields(export=f"{about['namespace']}/{about['name']}")
    logger.warning("event %s was not created: %s", event["reason"], why, extra=export)
