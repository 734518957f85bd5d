"""The operator process: ``python -m modelexport_operator``."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from modelexport.logs import JsonFormatter, TextFormatter
from modelexport_operator.kube.client import Cluster, NotFoundError, RejectedError
from modelexport_operator.kube.resources import BUILTIN, EXPORTS, WATCHED, scopes_of
from modelexport_operator.leadership.election import Election, Leadership, LeaseLostError, NoElection
from modelexport_operator.leadership.watchdog import enforce_end
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.runtime.health import serve_http
from modelexport_operator.runtime.informer import listen_forever, wait_for_list
from modelexport_operator.runtime.kopf_watches import build_registry, watch_forever
from modelexport_operator.runtime.watch_check import WatchCheck
from modelexport_operator.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE_SECONDS = 30.0
"""A local clock that differs by more is logged."""
EXIT_UNUSABLE = 78
"""The configuration is invalid (EX_CONFIG of sysexits.h)."""
EXIT_REFUSED = 77
"""The API server denies a request that the operator needs (EX_NOPERM of sysexits.h)."""
EXIT_NOT_LEADING = 75
"""The lead is lost, or shutdown had to be enforced; a restarted process is a standby (EX_TEMPFAIL of sysexits.h)."""

GARBAGE_THRESHOLDS = 5_000, 10, 10
"""Allocations per collection of the youngest generation, and collections of it per collection of the next."""
DRAIN_SECONDS = 5.0
"""How long the last events are sent on a clean shutdown; the Lease is not renewed meanwhile."""


def main() -> int:
    """Run until a signal comes, and return the exit status."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level)
    # kopf logs every event that a handler has processed: at a thousand Jobs that would fill the log.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    _tune_garbage_collection()
    status = 0
    try:
        asyncio.run(run(settings))
    except* NotFoundError as group:
        print(f"The CRDs are not installed (kubectl apply -f crds/): {first_error(group)}", file=sys.stderr)
        status = EXIT_UNUSABLE
    except* RejectedError as group:
        print(
            f"The API server denies a request that the operator needs; check its ClusterRole: {first_error(group)}",
            file=sys.stderr,
        )
        status = EXIT_REFUSED
    except* LeaseLostError as group:
        print(f"This operator is no longer the leader and exits: {first_error(group)}", file=sys.stderr)
        status = EXIT_NOT_LEADING
    return status


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, at any depth."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _tune_garbage_collection() -> None:
    """Collect cyclic garbage rarely, and never among imported objects.

    Every parsed body creates hundreds of objects, which reference counting frees. By default Python searches the
    youngest objects after every 700 allocations: a seventh of the CPU time per Job.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def run(settings: Settings) -> None:
    """Watch, decide and write until a signal comes."""
    async with Cluster.connect() as cluster:
        scopes = scopes_of(WATCHED, settings.namespaces)
        for scope in scopes:
            await wait_for_list(cluster, scope)
        metrics = Metrics(cluster.clock)
        leadership: Leadership = Election(cluster, settings) if settings.leader_election else NoElection()
        cluster.seconds_to_write = lambda: leadership.seconds_left
        controller = Controller(cluster, metrics, cluster.clock)
        ahead = cluster.clock.local_error
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
            words = "the local clock is %.0f s %s the clock of the API server, which is used instead"
            logger.warning(words, abs(ahead), "ahead of" if ahead > 0 else "behind")
        watch_check = WatchCheck(
            cluster,
            controller,
            metrics,
            scopes,
            interval=settings.watch_check_seconds,
            lag_tolerance=settings.watch_lag_tolerance_seconds,
        )
        metrics.watch_leadership(lambda: leadership.is_leading)
        # Only the leader counts, so that sums over replicas are right.
        metrics.watch_queue(lambda: len(controller.queue) if leadership.is_leading else 0)
        exports = controller.cache[EXPORTS]
        metrics.watch_exports(lambda: exports.summaries() if leadership.is_leading else [], cluster.clock)
        stop = asyncio.Event()
        async with (
            serve_http(watch_check, leadership, metrics, settings.http_host, settings.http_port),
            _shutting_down(leadership, controller),
            asyncio.TaskGroup() as group,
        ):
            watching = group.create_task(watch_forever(build_registry(controller), settings.namespaces, stop))
            busy = scopes_of(BUILTIN, settings.namespaces)
            tasks = [
                group.create_task(
                    listen_forever(
                        cluster,
                        controller,
                        scope,
                        on_list=watch_check.await_list(scope),
                        on_bookmark=partial(watch_check.note_bookmark, scope),
                    )
                )
                for scope in busy
            ]
            tasks.append(group.create_task(watch_check.run_forever()))
            tasks.append(group.create_task(_lead(leadership, controller, watch_check, settings)))
            watching.add_done_callback(lambda _: [task.cancel() for task in tasks])
            all_tasks = (watching, *tasks)
            enforce_end(
                lambda: leadership.is_lost or stop.is_set() or any(task.done() for task in all_tasks), EXIT_NOT_LEADING
            )


@asynccontextmanager
async def _shutting_down(leadership: Leadership, controller: Controller) -> AsyncIterator[None]:
    """Send the last events after a clean shutdown, and release the Lease once every task has ended."""
    try:
        yield
        await controller.events.drain(DRAIN_SECONDS)
    finally:
        await leadership.release()


async def _lead(leadership: Leadership, controller: Controller, watch_check: WatchCheck, settings: Settings) -> None:
    """Wait until the cache is synced and this process is the leader; then write."""
    await watch_check.synced.wait()
    await leadership.acquire()
    controller.start_leading()
    async with asyncio.TaskGroup() as group:
        group.create_task(leadership.renew_forever())
        group.create_task(controller.resync_forever(settings.resync_seconds))
        group.create_task(controller.send_events_forever())
        for _ in range(settings.workers):
            group.create_task(controller.work_forever())


if __name__ == "__main__":
    sys.exit(main())
