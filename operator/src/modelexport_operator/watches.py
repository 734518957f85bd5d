"""The watches of Jobs and Pods, which are many and busy: what they tell is handed on as it comes.

kopf, which watches what users write, has a task, a memory and a chain of causes for every object. That took 0.9 ms of
processor time for each step of each Pod, more than half of all that the operator used with a thousand Jobs.
"""

import asyncio
import logging

from modelexport_operator.cluster import Cluster, ClusterError
from modelexport_operator.controller import Controller
from modelexport_operator.pods import Object
from modelexport_operator.resources import Scope

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Before a watch that was lost begins anew."""


def take_over(controller: Controller, scope: Scope, change: str, body: Object) -> None:
    """Hand a change on; an object that brings out a defect of ours is left out, and the others are heard."""
    try:
        controller.take_over(scope.resource, change, body)
    except Exception:
        logger.exception("a defect: %s %s is left out", scope.resource.plural, body["metadata"].get("name"))


async def listen_forever(cluster: Cluster, controller: Controller, scope: Scope) -> None:
    """Hand on every change of what a watch hears, whatever happens to the connection."""
    while True:
        try:
            async for change, body in cluster.watch(scope):
                take_over(controller, scope, change, body)
        except ClusterError as error:
            logger.warning("%s; begins anew", error)
            await asyncio.sleep(PAUSE_SECONDS)
