"""Which targets of an export start now, on which nodes, and what keeps the others. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelexport.matrix import Target
from modelexport.nodepools import NodePool
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import ExportClass
from modelexport_operator.pods import Finding, Object
from modelexport_operator.pools import choose_pool
from modelexport_operator.turns import Demand, describe_limit, describe_place, draw, is_limited


@dataclass(frozen=True)
class Wishes:
    """What of an export could start, were there a node and a turn for it.

    ``has`` is the demand of the export with what is on its way already; ``promised`` are targets without a Job that got
    their turn before, ``stopped`` those whose Job is suspended, ``fresh`` those that need a Job.
    """

    has: Demand
    promised: Sequence[ConversionRequest] = ()
    stopped: Sequence[Target] = ()
    fresh: Sequence[ConversionRequest] = ()


@dataclass(frozen=True)
class Starts:
    """The targets that get a Job now, each with its pool (``None``: any node), and why others do not start."""

    pools: Mapping[Target, NodePool | None] = field(default_factory=dict)
    held: Mapping[Target, Finding] = field(default_factory=dict)


def decide_starts(
    wishes: Wishes, export_class: ExportClass, nodes: Sequence[Object], others: Sequence[Demand]
) -> Starts:
    """Decide for each target that could start: a node that could take it first, then its turn.

    Args:
        wishes: what could start.
        export_class: the class of the export.
        nodes: all nodes of the cluster.
        others: the demands of the other exports of the class.
    """
    placed = {
        request.target: choose_pool(request, export_class, nodes) if export_class.node_pools else None
        for request in (*wishes.promised, *wishes.fresh)
    }
    pools = {target: place for target, place in placed.items() if not isinstance(place, Finding)}
    homeless = {target: place for target, place in placed.items() if isinstance(place, Finding)}
    queue = [*wishes.stopped, *(request.target for request in wishes.fresh if request.target in pools)]
    late = _hold_back(replace(wishes.has, waiting=len(queue)), queue, export_class, others)
    return Starts({target: pool for target, pool in pools.items() if target not in late}, {**homeless, **late})


def _hold_back(
    demand: Demand, queue: Sequence[Target], export_class: ExportClass, others: Sequence[Demand]
) -> Mapping[Target, Finding]:
    """The targets at the end of an export's own queue that have to wait for others, with their place in the line."""
    if not queue or not is_limited(export_class.sharing):
        return {}
    demands, namespace = (*others, demand), demand.key[0]
    starting, staying = draw(demands, export_class.sharing)
    places = [place for place, key in enumerate(staying, start=1) if key == demand.key]
    running = sum(other.running for other in demands if other.key[0] == namespace)
    running += sum(key[0] == namespace for key in starting)
    limit = describe_limit(export_class.sharing, namespace, running)
    words = f"Waits for its turn: ExportClass {export_class.name} runs {limit};"
    return {
        target: Finding(Reason.LIMIT_REACHED, f"{words} {describe_place(place)}")
        for target, place in zip(queue[len(queue) - len(places) :], places, strict=True)
    }
