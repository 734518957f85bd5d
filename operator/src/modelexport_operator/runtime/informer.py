"""Informers for Jobs, Pods and nodes, which are many and change often.

Each lists what exists and then watches from the version of that list, as client-go's Reflector does. Changes come in
the order of their versions, so a watch can resume from the last version that it has reported. If it cannot, it lists
again, and objects that the new list lacks were deleted in between.

kopf watches only the custom resources: for each event of a Job or Pod its handlers take seven times the CPU time of
this module (docs/adr/0004-kopf.md).
"""

import asyncio
import logging
from collections.abc import Callable

from modelexport_operator.kube.backoff import Backoff
from modelexport_operator.kube.client import Cluster, ClusterError, ExpiredError, UnavailableError
from modelexport_operator.kube.resources import Scope
from modelexport_operator.kube.watch_stream import BOOKMARK
from modelexport_operator.runtime.controller import Controller

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Pause before a lost watch is started again, the first time."""
STEADY_SECONDS = 120.0
"""After a watch has lasted this long, its backoff is reset (client-go, tools/cache/reflector.go)."""


async def wait_for_list(cluster: Cluster, scope: Scope) -> None:
    """Wait until a scope can be listed, however long that takes.

    Raises:
        NotFoundError: its kind is not installed.
        RejectedError: the operator may not list it.
    """
    backoff = Backoff(PAUSE_SECONDS)
    while True:
        try:
            await cluster.try_list(scope)
        except UnavailableError as error:
            pause = backoff.next(error.retry_after)
            logger.warning("cannot list %s yet: %s; retrying in %.1f s", scope.resource.plural, error, pause)
            await asyncio.sleep(pause)
        else:
            return


async def listen_forever(
    cluster: Cluster,
    controller: Controller,
    scope: Scope,
    on_list: Callable[[], None] = lambda: None,
    on_bookmark: Callable[[], None] = lambda: None,
) -> None:
    """Pass all objects of a scope and their changes to the controller; reconnect after every failure.

    Args:
        cluster: the API server.
        controller: owns the cache.
        scope: which objects.
        on_list: called whenever the controller knows every object of a list.
        on_bookmark: called whenever it knows everything up to some version, and nothing need have happened.
    """
    version, backoff, loop = "", Backoff(PAUSE_SECONDS), asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            if not version:
                version = await controller.relist(scope)
                on_list()
            async for events in cluster.watch(scope, version):
                for change, body in events:
                    version = body["metadata"]["resourceVersion"]
                    if change == BOOKMARK:
                        on_bookmark()
                    else:
                        controller.handle_event(scope.resource, change, body)
        except ClusterError as error:
            if isinstance(error, ExpiredError):
                version = ""
            if loop.time() - began > STEADY_SECONDS:
                backoff.reset()
            pause = backoff.next(error.retry_after)
            logger.warning("%s; %s in %.1f s", error, "resuming the watch" if version else "listing again", pause)
            await asyncio.sleep(pause)
