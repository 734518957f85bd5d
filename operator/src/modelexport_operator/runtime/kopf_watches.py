"""What kopf hears is handed on; nothing is decided, written or remembered here.

kopf brings the watches with their reconnects and credentials. Its handlers do not write into users' objects: low-level
events need neither annotations nor finalizers, and posting and peering are off.

For kopf some words of an API server are the end of the process: an error event but 410, half a line, an answer that is
no JSON. Here they are the end of its watches, and it is started again.
"""

import asyncio
import logging
import signal
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import kopf

from modelexport import names
from modelexport.text import clean
from modelexport_operator.backoff import jitter
from modelexport_operator.controller import Controller
from modelexport_operator.resources import OWN, Resource

logger = logging.getLogger(__name__)

KOPF = Path(kopf.__file__).parent
PAUSE_SECONDS = 1.0
"""Before kopf, whose watches were lost, begins anew."""
OBJECTS_AT_ONCE = 10
"""Of a page when kopf lists: it reads them whole, and each may have 1.5 MiB (etcd's limit), several times that as
Python's objects."""
REMEMBERED_SECONDS = 0.1
"""For how long kopf keeps the last body of an object, whole, when there is nothing more to do with it."""


async def watch_forever(controller: Controller, namespaces: Collection[str], stop: asyncio.Event) -> None:
    """Hand on what kopf hears until a signal comes, which sets ``stop``, whatever happens to its watches."""
    while not stop.is_set():
        try:
            await _run_kopf(controller, namespaces, stop)
        except Exception as error:
            logger.warning("kopf has lost its watches, and begins anew: %s", clean(repr(error), 300))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), jitter(PAUSE_SECONDS))


async def _run_kopf(controller: Controller, namespaces: Collection[str], stop: asyncio.Event) -> None:
    # Without one kopf looks up the name of the user, and a container's user need not have any.
    identity: Any = names.MANAGED_BY
    tasks = await kopf.spawn_tasks(
        registry=build_registry(controller),
        settings=build_settings(),
        identity=identity,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # In the place of kopf's own: one that comes while kopf begins anew is not lost.
        loop.add_signal_handler(number, stop.set)
    await kopf.run_tasks(tasks, ignored=_OtherTasks())


class _OtherTasks(Collection[Any]):
    """The tasks that kopf has not made: when it ends it cancels all that it was not told to ignore, also ours."""

    def __contains__(self, task: object) -> bool:
        code = getattr(task.get_coro(), "cr_code", None) if isinstance(task, asyncio.Task) else None
        return code is None or not Path(code.co_filename).is_relative_to(KOPF)

    def __iter__(self) -> Iterator[Any]:
        return (task for task in asyncio.all_tasks() if task in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def build_registry(controller: Controller) -> kopf.OperatorRegistry:
    """Build kopf's registry: the kinds that users write are handed to the controller."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)
    for resource in OWN:
        _watch(registry, controller, resource)
    return registry


def _watch(registry: kopf.OperatorRegistry, controller: Controller, resource: Resource) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, id=f"watch-{resource.plural}", registry=registry)
    async def take_over(event: kopf.RawEvent, **_: Any) -> None:
        controller.take_over(resource, event["type"], event["object"])


class NothingKept(kopf.DiffBaseStorage):
    """Keeps and compares no former state.

    kopf's own storages copy every object of every event deeply to find changes that no handler of ours asks for: at a
    thousand Jobs that was half of the operator's processor time.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """What of an object would be compared: nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """What an object was when it was handled last: unknown."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Leave the object as it is."""


def build_settings() -> kopf.OperatorSettings:
    """Build kopf's settings: watch only what is ours, and leave no trace."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NothingKept()
    # The kinds are there before the operator starts; looking for new ones would need to read all namespaces and CRDs.
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = REMEMBERED_SECONDS
    settings.watching.chunk_size = OBJECTS_AT_ONCE
    # Else it kills the process so long after it was ended, also when it has begun anew.
    settings.process.ultimate_exiting_timeout = None
    settings.networking.connect_timeout = 10.0
    for resource in OWN:
        if resource.selector:
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector
    return settings
