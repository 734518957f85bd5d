"""Estimates the progress of a running conversion from its Pod and the time. Pure.

The converter reports nothing for this: the kubelet records when each container started, and the matrix knows how long
they take.
"""

from collections.abc import Sequence
from datetime import datetime

from modelexport.api.request import ConversionRequest
from modelexport.planning.progress import Progress, estimate, expect_steps
from modelexport.untrusted import moment
from modelexport_operator.jobs.pod_failures import latest_step
from modelexport_operator.kube.clock import format_time
from modelexport_operator.kube.objects import Pod
from modelexport_operator.kube.types import created


def observe_progress(
    request: ConversionRequest, pods: Sequence[Pod], now: datetime, *, shares_original: bool = False
) -> Progress | None:
    """Return the progress of a conversion.

    Args:
        request: the conversion.
        pods: the Pods of its Job, in any order; the newest active one counts, or else the newest.
        now: the time, with its zone.
        shares_original: whether another target had evaluated the original before it started.

    Returns:
        ``None`` if no container of a conversion has started.
    """
    active = [pod for pod in pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]
    pod = max(active or pods, key=created, default=None)
    step = latest_step(pod) if pod is not None else None
    if step is None:
        return None
    name, started_at = step
    began = moment(started_at)
    elapsed = (now - began).total_seconds() if began else 0.0
    guess = estimate(expect_steps(request, shares_original=shares_original), name, elapsed)
    return Progress(
        stage=name,
        last_updated_time=format_time(now),
        start_time=format_time(began) if began else None,
        percentage=guess.percentage if guess else None,
        estimated_remaining_seconds=guess.remaining_seconds if guess else None,
    )
