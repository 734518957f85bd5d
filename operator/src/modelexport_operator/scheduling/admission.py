"""Admits targets of an export: which start now, on which nodes, and why the others wait. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelexport.api.node_pools import NodePool
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ExportClass
from modelexport.matrix.support import Target
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.kube.objects import Node
from modelexport_operator.scheduling.fair_share import Demand, allocate, describe_limit, describe_position, is_limited
from modelexport_operator.scheduling.node_pools import choose_pool
from modelexport_operator.scheduling.shared_evaluation import Sharers, hold_sharers


@dataclass(frozen=True)
class Candidates:
    """The targets of an export that could start, given a node and a place.

    Attributes:
        demand: the demand of the export, counting only the targets that already run.
        reserved: targets without a Job that got a place in an earlier sync.
        suspended: targets whose Job is suspended.
        new: targets that need a Job.
        sharers: targets that share one evaluation of the original, none of which has ended.
    """

    demand: Demand
    reserved: Sequence[ConversionRequest] = ()
    suspended: Sequence[Target] = ()
    new: Sequence[ConversionRequest] = ()
    sharers: Sequence[Sharers] = ()


@dataclass(frozen=True)
class Admission:
    """The outcome for each candidate.

    Attributes:
        pools: the targets that get a Job now, each with its node pool (``None``: any node).
        held: why each of the other targets does not start.
    """

    pools: Mapping[Target, NodePool | None] = field(default_factory=dict)
    held: Mapping[Target, Diagnosis] = field(default_factory=dict)


def admit(
    candidates: Candidates, export_class: ExportClass, nodes: Sequence[Node], others: Sequence[Demand]
) -> Admission:
    """Decide for each candidate: first whether a node could take it, then whether it gets a place.

    In between, one of those that share an evaluation of the original goes first, and the others ask for no place.

    Args:
        candidates: the targets that could start.
        export_class: the class of the export.
        nodes: all nodes of the cluster.
        others: the demands of the other exports of the class.
    """
    placed = {
        request.target: choose_pool(request, export_class, nodes) if export_class.node_pools else None
        for request in (*candidates.reserved, *candidates.new)
    }
    pools = {target: pool for target, pool in placed.items() if not isinstance(pool, Diagnosis)}
    unplaced = {target: problem for target, problem in placed.items() if isinstance(problem, Diagnosis)}
    new = [request for request in candidates.new if request.target in pools]
    reserved = [request.target for request in candidates.reserved if request.target in pools]
    sharing = hold_sharers(candidates.sharers, reserved, new)
    queue = [*candidates.suspended, *(request.target for request in new if request.target not in sharing)]
    late = _hold_over_limit(replace(candidates.demand, waiting=len(queue)), queue, export_class, others)
    held = {**unplaced, **sharing, **late}
    return Admission({target: pool for target, pool in pools.items() if target not in held}, held)


def _hold_over_limit(
    demand: Demand, queue: Sequence[Target], export_class: ExportClass, others: Sequence[Demand]
) -> Mapping[Target, Diagnosis]:
    """Return the targets, from the end of an export's own queue, that wait for others, with their position."""
    if not queue or not is_limited(export_class.sharing):
        return {}
    demands, namespace = (*others, demand), demand.key[0]
    starting, staying = allocate(demands, export_class.sharing)
    positions = [position for position, key in enumerate(staying, start=1) if key == demand.key]
    running = sum(other.running for other in demands if other.key[0] == namespace)
    running += sum(key[0] == namespace for key in starting)
    limit = describe_limit(export_class.sharing, namespace, running)
    words = f"Waits for its turn: ExportClass {export_class.name} runs {limit};"
    return {
        target: Diagnosis(Reason.LIMIT_REACHED, f"{words} {describe_position(position)}")
        for target, position in zip(queue[len(queue) - len(positions) :], positions, strict=True)
    }
