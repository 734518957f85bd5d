"""The watches of the custom resources, run by kopf: every event is passed to the controller.

kopf provides the watches with their reconnects and credentials. Its handlers do not write into users' objects:
low-level events need neither annotations nor finalizers, and posting and peering are off.

Some responses of an API server end the process of kopf: an error event other than 410, half a line, a response that is
not JSON. Here they end only its watches, and kopf is started again.
"""

import asyncio
import logging
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import kopf

from modelexport import names
from modelexport.text import clean
from modelexport_operator.kube.backoff import jitter
from modelexport_operator.kube.objects import JsonObject
from modelexport_operator.kube.resources import CUSTOM, Resource
from modelexport_operator.kube.watch_stream import is_object
from modelexport_operator.runtime.controller import Controller

logger = logging.getLogger(__name__)

KOPF = Path(kopf.__file__).parent
PAUSE_SECONDS = 1.0
"""Pause before kopf is started again after it lost its watches."""
CANCEL_AGAIN_SECONDS = 1.0
"""Time for the tasks of kopf to end before those that remain are cancelled again."""
OBJECTS_AT_ONCE = 10
"""Objects per page when kopf lists: it reads them unpruned, and each may have 1.5 MiB (etcd's limit), several times
that as Python objects."""
UNUSED_FINALIZER = f"{names.GROUP}/kopf"
"""A finalizer that is never added. kopf removes its finalizer where no handler needs one; its default finalizer is that
of every other kopf operator, which may rely on it for the deletion of a ModelExport."""
REMEMBERED_SECONDS = 0.1
"""How long kopf keeps the last unpruned body of an object after it has handled it."""


async def watch_forever(registry: kopf.OperatorRegistry, namespaces: Collection[str], stop: asyncio.Event) -> None:
    """Run the handlers of a registry until a signal sets ``stop``; restart kopf whenever it loses its watches."""
    while not stop.is_set():
        try:
            await _run_kopf(registry, namespaces, stop)
        except Exception as error:
            logger.warning("restarting the watches of kopf: %s", clean(repr(error), 300))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), jitter(PAUSE_SECONDS))


async def _run_kopf(registry: kopf.OperatorRegistry, namespaces: Collection[str], stop: asyncio.Event) -> None:
    # Without an identity kopf looks up the name of the user, and the user of a container may have none.
    identity: Any = names.MANAGED_BY
    try:
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=build_settings(),
            identity=identity,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Replaces kopf's own handlers: a signal is not lost while kopf restarts.
            loop.add_signal_handler(number, stop.set)
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end_kopf()
    for task in ended:
        if not task.cancelled():
            task.result()


async def _end_kopf() -> None:
    """Cancel the tasks of kopf until all have ended.

    ``kopf.run_tasks`` cancels them once and waits for ever for one that lost its cancellation: a watch that ends with
    an error at that moment does. It also cancels all other tasks of the process.
    """
    while tasks := [task for task in asyncio.all_tasks() if _is_of_kopf(task)]:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # The first error is reported; asyncio would log all others as never retrieved.


def _is_of_kopf(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(KOPF)


def build_registry(controller: Controller, resources: Iterable[Resource] = CUSTOM) -> kopf.OperatorRegistry:
    """Build kopf's registry, which passes events of the resources to the controller."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)
    for resource in resources:
        _watch(registry, controller, resource)
    return registry


def _watch(registry: kopf.OperatorRegistry, controller: Controller, resource: Resource) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, id=f"watch-{resource.plural}", registry=registry)
    async def handle_event(event: kopf.RawEvent, **_: Any) -> None:
        body: JsonObject = event["object"]
        if is_object(body):
            controller.handle_event(resource, event["type"], body)
        else:
            logger.error("%s: an event of kopf has no name or no version; it is left out", resource.plural)


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores and compares no former state.

    kopf's own storages deep-copy every object of every event to find changes for which we have no handler: 0.7 ms for a
    ModelExport of nine targets. They also read an annotation, and skip an object whose annotation is not JSON.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Return the part of an object that would be compared: nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return the state of an object when it was last handled: unknown."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Leave the object as it is."""


def build_settings() -> kopf.OperatorSettings:
    """Build kopf's settings: watch only our kinds, and write nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.finalizer = UNUSED_FINALIZER
    # The CRDs exist before the operator starts; scanning for new ones would need the right to read all of them.
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = REMEMBERED_SECONDS
    settings.watching.chunk_size = OBJECTS_AT_ONCE
    # Otherwise kopf kills the process this long after it stopped, even if it was restarted.
    settings.process.ultimate_exiting_timeout = None
    settings.networking.connect_timeout = 10.0
    return settings
