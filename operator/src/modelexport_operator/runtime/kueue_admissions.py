"""Reads from Kueue's Workloads why Jobs wait, less often the longer they wait.

A watch would receive every step of all Workloads of the cluster, most of which are not ours. Admission needs no query:
Kueue then starts the Job, and the watch of Jobs reports it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from modelexport.api.reasons import Reason
from modelexport.logs import with_fields
from modelexport.untrusted import moment
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.kueue import explain_kueue, waits_for_kueue
from modelexport_operator.jobs.state import describe_start, kueue_queue_of
from modelexport_operator.kube.client import Cluster, ClusterError, NotFoundError, RejectedError
from modelexport_operator.kube.objects import Job
from modelexport_operator.kube.types import Key, controller_of

logger = logging.getLogger(__name__)

FIRST_SECONDS = 5.0
"""How long a Job waits before the first query: Kueue admits within a second what fits the quota."""
LONGEST_SECONDS = 120.0
"""The longest time between two queries about the Jobs of one export; the time doubles up to this."""
QUERIES_PER_SECOND = 5
"""With many exports in queues each is queried less often, so that the total stays below this rate."""
REFUSED_SECONDS = 600.0
"""Pause after the API server has refused to list Workloads."""
NOT_SERVED = "The API server serves no Workloads of kueue.x-k8s.io/v1beta2: is Kueue 0.15 or later installed?"


@dataclass(frozen=True)
class _Answer:
    """Why Jobs wait, by uid (``None``: unknown), and when to query again, on the loop's monotonic clock."""

    diagnoses: Mapping[str, Diagnosis | None] = field(default_factory=dict)
    ask_at: float = 0.0
    pause: float = 0.0


class KueueAdmissions:
    """The last known reasons for which Jobs wait for Kueue.

    Args:
        cluster: the API server.
        clock: the time of the API server.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._answers: dict[Key, _Answer] = {}
        self._refused_until = 0.0

    async def explain(self, key: Key, jobs: Sequence[Job]) -> tuple[Mapping[str, Diagnosis], float | None]:
        """Return why Kueue lets Jobs of an export wait, as far as that is known.

        Returns:
            The diagnoses by Job name, and in how many seconds the next query is due, if one is.
        """
        waiting = {job["metadata"]["uid"]: job for job in jobs if waits_for_kueue(job)}
        if not waiting:
            self.forget(key)
            return {}, None
        now, known = asyncio.get_running_loop().time(), self._answers.get(key, _Answer())
        # A Job that ran in between now waits for another reason.
        known = replace(known, diagnoses={uid: why for uid, why in known.diagnoses.items() if uid in waiting})
        late = [uid for uid, job in waiting.items() if uid in known.diagnoses or self._age(job) >= FIRST_SECONDS]
        is_new = len(late) > len(known.diagnoses)
        if late and (is_new or now >= known.ask_at) and now >= self._refused_until:
            diagnoses = await self._ask(key, [waiting[uid] for uid in late], known.diagnoses)
            pause = FIRST_SECONDS if is_new else min(2 * known.pause, LONGEST_SECONDS)
            pause = max(pause, len(self._answers) / QUERIES_PER_SECOND)
            known = _Answer(diagnoses, now + pause, pause)
        self._answers[key] = known
        soon = now + FIRST_SECONDS
        due = known.ask_at if len(late) == len(waiting) else min(known.ask_at or soon, soon)
        found = {waiting[uid]["metadata"]["name"]: why for uid, why in known.diagnoses.items() if why}
        return found, max(due, self._refused_until) - now

    async def _ask(
        self, key: Key, jobs: Sequence[Job], before: Mapping[str, Diagnosis | None]
    ) -> Mapping[str, Diagnosis | None]:
        """Query why Jobs wait, by uid; keep the ``before`` value of a Job where there is no answer."""
        by_uid = {job["metadata"]["uid"]: job for job in jobs}
        try:
            workloads = await self._cluster.read_workloads(key[0], by_uid)
        except NotFoundError:
            waits = {uid: describe_start(kueue_queue_of(job)) for uid, job in by_uid.items()}
            return {uid: Diagnosis(Reason.QUEUED, f"{words}. {NOT_SERVED}") for uid, words in waits.items()}
        except ClusterError as error:
            if isinstance(error, RejectedError):
                self._refused_until = asyncio.get_running_loop().time() + REFUSED_SECONDS
            about = with_fields(export="/".join(key))
            logger.warning("cannot read why Jobs wait for Kueue: %s", error, extra=about)
            return {uid: before.get(uid) for uid in by_uid}
        return {
            uid: explain_kueue(job, [one for one in workloads if controller_of(one) == uid])
            for uid, job in by_uid.items()
        }

    def forget(self, key: Key) -> None:
        """Forget an export none of whose Jobs waits for Kueue."""
        self._answers.pop(key, None)

    def _age(self, job: Job) -> float:
        since = moment(job["metadata"].get("creationTimestamp"))
        return (self._clock() - since).total_seconds() if since else 0.0
