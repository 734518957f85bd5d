"""The operator process: ``python -m modelexport_operator``."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelexport.logs import JsonFormatter, TextFormatter
from modelexport_operator.audit import Audit
from modelexport_operator.clock import ServerClock
from modelexport_operator.cluster import Cluster, GoneError, RefusedError
from modelexport_operator.controller import Controller
from modelexport_operator.election import Alone, Election, Leadership, LostLeaseError
from modelexport_operator.handlers import watch_forever
from modelexport_operator.health import serve_http
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import BUSY, EXPORTS, WATCHED, scopes_of
from modelexport_operator.settings import Settings, SettingsError
from modelexport_operator.watchdog import enforce_end
from modelexport_operator.watches import listen_forever, wait_for_list

logger = logging.getLogger(__name__)

WRONG_SECONDS = 30.0
"""A local clock that is off by more is worth a line in the log."""
EXIT_UNUSABLE = 78
"""The configuration cannot be used (EX_CONFIG of sysexits.h)."""
EXIT_REFUSED = 77
"""The API server does not allow what the operator needs (EX_NOPERM of sysexits.h)."""
EXIT_DEPOSED = 75
"""Another operator may lead, or an end had to be enforced; a new start is a follower (EX_TEMPFAIL of sysexits.h)."""

DRAIN_SECONDS = 5.0
"""For how long the last events are sent at an orderly end: nobody renews the Lease meanwhile."""


def main() -> int:
    """Run until a signal comes; returns the exit status."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    _start_logging(settings)
    status = 0
    try:
        asyncio.run(run(settings))
    except* GoneError as group:
        print(f"The custom resources are not installed (kubectl apply -f crds/): {first(group)}", file=sys.stderr)
        status = EXIT_UNUSABLE
    except* RefusedError as group:
        print(f"The API server refuses what the operator needs; see its role: {first(group)}", file=sys.stderr)
        status = EXIT_REFUSED
    except* LostLeaseError as group:
        print(f"The operator does not lead any more and ends: {first(group)}", file=sys.stderr)
        status = EXIT_DEPOSED
    return status


def first(error: BaseException) -> BaseException:
    """Return the first of the errors that a group holds, at whatever depth."""
    return first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _start_logging(settings: Settings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level)
    # kopf tells of every event that a handler took; at a thousand Jobs that is all there is to read.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


async def run(settings: Settings) -> None:
    """Watch, decide and write until kopf is told to stop."""
    metrics = Metrics()
    async with Cluster.connect() as cluster:
        scopes = scopes_of(WATCHED, settings.namespaces)
        for scope in scopes:
            await wait_for_list(cluster, scope)
        leadership: Leadership = Election(cluster, settings) if settings.leader_election else Alone()
        cluster.seconds_to_write = lambda: leadership.seconds_left
        controller = Controller(cluster, metrics, cluster.clock)
        _tell_wrong_clock(cluster.clock.local_error)
        audit = Audit(
            cluster, controller, metrics, scopes, every=settings.audit_seconds, patience=settings.patience_seconds
        )
        _show(metrics, controller, leadership, cluster.clock)
        stop = asyncio.Event()
        async with (
            serve_http(audit, leadership, metrics, settings.http_host, settings.http_port),
            _leaving(leadership, controller),
            asyncio.TaskGroup() as group,
        ):
            watching = group.create_task(watch_forever(controller, settings.namespaces, stop))
            busy = scopes_of(BUSY, settings.namespaces)
            tasks = [group.create_task(listen_forever(cluster, controller, scope)) for scope in busy]
            tasks.append(group.create_task(audit.run_forever()))
            tasks.append(group.create_task(_lead(leadership, controller, audit, settings)))
            watching.add_done_callback(lambda _: [task.cancel() for task in tasks])
            all_tasks = (watching, *tasks)
            enforce_end(
                lambda: leadership.is_lost or stop.is_set() or any(task.done() for task in all_tasks), EXIT_DEPOSED
            )


@asynccontextmanager
async def _leaving(leadership: Leadership, controller: Controller) -> AsyncIterator[None]:
    """Send the last events, unless the end was not orderly, and let somebody else lead when every task has ended."""
    try:
        yield
        await controller.events.drain(DRAIN_SECONDS)
    finally:
        await leadership.release()


def _tell_wrong_clock(seconds: float) -> None:
    if abs(seconds) > WRONG_SECONDS:
        word = "ahead of" if seconds > 0 else "behind"
        logger.warning("the local clock is %.0f s %s the API server's, by which all is counted", abs(seconds), word)


def _show(metrics: Metrics, controller: Controller, leadership: Leadership, clock: ServerClock) -> None:
    """Expose what is; of several operators the one that leads counts the exports, so that sums are right."""
    metrics.watch_leadership(lambda: leadership.is_leading)
    metrics.watch_queue(lambda: len(controller.queue) if leadership.is_leading else 0)
    metrics.watch_exports(lambda: controller.stores[EXPORTS].values() if leadership.is_leading else [], clock)


async def _lead(leadership: Leadership, controller: Controller, audit: Audit, settings: Settings) -> None:
    """Write nothing before everything that exists has been heard of, and nothing without leading."""
    await audit.primed.wait()
    await leadership.win()
    controller.begin()
    async with asyncio.TaskGroup() as group:
        group.create_task(leadership.hold())
        group.create_task(controller.resync_forever(settings.resync_seconds))
        group.create_task(controller.send_events_forever())
        for _ in range(settings.workers):
            group.create_task(controller.work_forever())


if __name__ == "__main__":
    sys.exit(main())
