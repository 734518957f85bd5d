"""The operator process: ``python -m modelexport_operator``."""

import asyncio
import logging
import os
import sys
from typing import Any

import kopf

from modelexport import names
from modelexport.logs import JsonFormatter, TextFormatter
from modelexport_operator.audit import Audit
from modelexport_operator.cluster import Cluster, GoneError
from modelexport_operator.controller import Controller, now
from modelexport_operator.handlers import build_registry, build_settings
from modelexport_operator.health import serve_http
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import BUSY, EXPORTS, WATCHED
from modelexport_operator.settings import Settings, SettingsError
from modelexport_operator.watches import listen_forever

EXIT_UNUSABLE = 78
"""The configuration cannot be used (EX_CONFIG of sysexits.h)."""


def main() -> int:
    """Run until a signal comes; returns the exit status."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    _start_logging(settings)
    try:
        asyncio.run(run(settings))
    except GoneError as error:
        print(f"The custom resources are not installed (kubectl apply -f crds/): {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    return 0


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
        for resource in WATCHED:
            await cluster.list_versions(resource)
        controller = Controller(cluster, metrics)
        audit = Audit(cluster, controller, metrics, every=settings.audit_seconds, patience=settings.patience_seconds)
        metrics.watch_queue(lambda: len(controller.queue))
        metrics.watch_exports(controller.stores[EXPORTS].values, now)
        async with serve_http(audit, metrics, settings.http_host, settings.http_port), asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(controller))
            tasks = [group.create_task(listen_forever(cluster, controller, resource)) for resource in BUSY]
            tasks += [group.create_task(audit.run_forever()), group.create_task(_work(controller, audit, settings))]
            watching.add_done_callback(lambda _: [task.cancel() for task in tasks])


async def _watch(controller: Controller) -> None:
    # Without one kopf looks up the name of the user, and a container's user need not have any.
    identity: Any = names.MANAGED_BY
    await kopf.operator(
        registry=build_registry(controller), settings=build_settings(), identity=identity, clusterwide=True
    )


async def _work(controller: Controller, audit: Audit, settings: Settings) -> None:
    """Write nothing before everything that exists has been heard of."""
    await audit.primed.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.resync_forever(settings.resync_seconds))
        for _ in range(settings.workers):
            group.create_task(controller.work_forever())


if __name__ == "__main__":
    sys.exit(main())
