"""The watches of Jobs, Pods and nodes, which are many and busy: what they tell is handed on as it comes.

Each lists what exists and then watches from the version of that list, as client-go's Reflector does. From then on
changes come in the order of their versions, so that a watch can go on from the last one that it has told. Where it
cannot, it lists again, and what the new list lacks was deleted in between.

kopf, which watches what users write in the same way, has a task, a memory and a chain of causes for every object. That
took 0.9 ms of processor time for each step of each Pod, more than half of all that the operator used with a thousand
Jobs.
"""

import asyncio
import logging

from modelexport_operator.backoff import Backoff
from modelexport_operator.cluster import Cluster, ClusterError, ExpiredError, UnavailableError
from modelexport_operator.controller import Controller
from modelexport_operator.resources import Scope
from modelexport_operator.stream import BOOKMARK

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Before a watch that was lost begins anew, the first time."""
STEADY_SECONDS = 120.0
"""A watch that lasted so long begins anew as if it had never failed (client-go, tools/cache/reflector.go)."""


async def wait_for_list(cluster: Cluster, scope: Scope) -> None:
    """Return when a scope can be listed, however long that takes.

    Raises:
        GoneError: its kind is not installed.
        RefusedError: the operator may not list it.
    """
    backoff = Backoff(PAUSE_SECONDS)
    while True:
        try:
            await cluster.list_versions(scope)
        except UnavailableError as error:
            pause = backoff.next(error.retry_after)
            logger.warning("%s cannot be listed yet: %s; again in %.1f s", scope.resource.plural, error, pause)
            await asyncio.sleep(pause)
        else:
            return


async def listen_forever(cluster: Cluster, controller: Controller, scope: Scope) -> None:
    """Hand on what exists and every change of it, whatever happens to the connection."""
    version, backoff, loop = "", Backoff(PAUSE_SECONDS), asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            version = version or await controller.list_again(scope)
            async for change, body in cluster.watch(scope, version):
                version = body["metadata"]["resourceVersion"]
                if change != BOOKMARK:
                    controller.take_over(scope.resource, change, body)
        except ClusterError as error:
            if isinstance(error, ExpiredError):
                version = ""
            if loop.time() - began > STEADY_SECONDS:
                backoff.reset()
            pause = backoff.next(error.retry_after)
            logger.warning("%s; %s in %.1f s", error, "goes on from there" if version else "lists again", pause)
            await asyncio.sleep(pause)
