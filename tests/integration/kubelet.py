"""Simulates the kubelet: Pods run and end as the test wants, by their target."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from integration.api import PODS, Api, ApiError, Body
from modelexport import names
from modelexport_operator.jobs.conversion_job import STEPS, output_of
from modelexport_operator.kube.clock import format_time, now
from unit.operator.objects import ended, publish_into, result_text

End = Callable[[Api, Body], None]


def set_status(api: Api, pod: Body, **status: object) -> None:
    """Write the status of a Pod; ignore a Pod that has been deleted meanwhile."""
    try:
        api.patch(f"{PODS}/{pod['metadata']['name']}/status", {"status": status})
    except ApiError as error:
        if error.status != 404:
            raise


def run(api: Api, pod: Body, container: str = names.CONVERT) -> None:
    """Let a container of a Pod run for ever; the phase of the Pod stays Pending unless it is the last container."""
    running = {"running": {"startedAt": format_time(now())}}
    phase = "Pending" if _converts(pod) and container != names.PUBLISH else "Running"
    set_status(api, pod, phase=phase, **_statuses(pod, container, running))


def succeed(api: Api, pod: Body, answer: str = result_text()) -> None:
    """Let a Pod publish its file at the requested place, or succeed with another termination message."""
    job: Any = {"spec": {"template": pod}}
    answer = publish_into(output_of(job), answer)
    set_status(api, pod, phase="Succeeded", **_statuses(pod, names.PUBLISH, _ended(0, answer, "Completed")))


def fail(exit_code: int, message: str = "", reason: str = "Error", container: str = names.CONVERT) -> End:
    """Let a Pod fail in one of its containers."""

    def end(api: Api, pod: Body) -> None:
        set_status(api, pod, phase="Failed", **_statuses(pod, container, _ended(exit_code, message, reason)))

    return end


def refuse(text: str = "cosine 0.91 is below 0.95") -> End:
    """Let a Pod's verification fail for good."""
    return fail(65, result_text("VerificationFailed", text))


def find_no_node(api: Api, pod: Body) -> None:
    """Let a Pod wait for a node, with the condition that the scheduler writes."""
    message = "0/1 nodes are available: 1 Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    set_status(api, pod, phase="Pending", conditions=[condition])


def terminate(api: Api, pod: Body) -> None:
    """End a Pod that is being deleted, unless it has ended, and remove it."""
    if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
        set_status(api, pod, phase="Failed", **_statuses(pod, names.CONVERT, _ended(137)))
    try:
        api.call("DELETE", f"{PODS}/{pod['metadata']['name']}?gracePeriodSeconds=0")
    except ApiError as error:
        if error.status != 404:
            raise


def _converts(pod: Body) -> bool:
    return "initContainers" in pod["spec"]


def _statuses(pod: Body, container: str, state: Body) -> Body:
    """The statuses of all containers: those before one have succeeded, those after it wait; a clean-up Pod has one."""
    fields = {"image": "converter:1", "imageID": "", "ready": False, "restartCount": 0}
    if not _converts(pod):
        return {"containerStatuses": [{**fields, "name": pod["spec"]["containers"][0]["name"], "state": state}]}
    place = STEPS.index(container)
    waiting = {"waiting": {"reason": "PodInitializing"}}
    states = [_ended(0, "", "Completed")] * place + [state] + [waiting] * (len(STEPS) - place - 1)
    *before, last = [{**fields, "name": name, "state": one} for name, one in zip(STEPS, states, strict=True)]
    return {"initContainerStatuses": before, "containerStatuses": [last]}


def _ended(exit_code: int, message: str = "", reason: str = "Error") -> Body:
    state: Body = ended(exit_code, message, reason)[0]["state"]
    return state


@contextmanager
def play_kubelet(api: Api, ends: dict[str, list[End]] | End = succeed) -> Iterator[None]:
    """End every new Pod: in one way for all, or per target in one way per attempt (the last one for all further)."""
    kubelet = Kubelet(api, ends)

    def look() -> None:
        for pod in api.list(PODS):
            kubelet.step(pod)

    with meanwhile(look):
        yield


@contextmanager
def meanwhile(look: Callable[[], object], pause: float = 0.05) -> Iterator[None]:
    """Call a simulated part of Kubernetes repeatedly in a thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(pause):
            look()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Kubelet:
    """Brings each Pod to its end, once.

    Args:
        api: the namespace of the Pods.
        ends: one end for all Pods, or per target one per attempt (the last one for all further).
        seconds: the running time of a Pod.
    """

    def __init__(self, api: Api, ends: dict[str, list[End]] | End, seconds: float = 0.0) -> None:
        self._api = api
        self._ends = ends
        self._seconds = seconds
        self._begun: dict[str, float] = {}
        self._ended: dict[str, list[str]] = {}

    def step(self, pod: Body) -> None:
        """Take a Pod one step on; the next call retries a step that failed."""
        uid, labels = pod["metadata"]["uid"], pod["metadata"]["labels"]
        target = f"{labels.get(names.FORMAT_LABEL)}/{labels.get(names.PRECISION_LABEL)}"
        ended = self._ended.setdefault(target, [])
        if pod["metadata"].get("deletionTimestamp"):
            terminate(self._api, pod)
        elif self._seconds and uid not in self._begun:
            run(self._api, pod)
            self._begun[uid] = time.monotonic()
        elif uid not in ended and time.monotonic() >= self._begun.get(uid, 0.0) + self._seconds:
            choices = self._ends.get(target, [succeed]) if isinstance(self._ends, dict) else [self._ends]
            choices[min(len(ended), len(choices) - 1)](self._api, pod)
            ended.append(uid)
