"""The world of one fault: a namespace with exports, operators that are restarted, simulated Pods and a witness."""

import json
import math
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.targets import NINE
from faults import history
from faults.history import SUCCEEDED, Denial
from faults.injection import Injector
from faults.judge import Order, Reported, find_unreported, is_all_reported
from faults.line import Line, open_line
from faults.witness import TROUBLE, Witness
from integration.kubelet import Kubelet, meanwhile, refuse, succeed
from integration.proxy import Proxy
from modelexport import names
from testplane.api import EVENTS, EXPORTS, Api, ApiError, Body
from testplane.control_plane import TIMEOUT_SECONDS, ControlPlane, wait_until
from testplane.objects import make_export, result_text
from testplane.process import Operator

REFUSED, REFUSAL = "ONNX/FP16", "VerificationFailed"
"""The target of every second export that is not verified, and how it ends."""
ALL_TARGETS = tuple(map(str, NINE))
LONG_TTL = 300
WORK_SECONDS = 1.0
PROBE_SECONDS, PROBE_FAILURES = 20.0, 6
"""The liveness probe of the chart."""
HURRY = 10
"""How much more often it asks in most faults."""
LOOK_SECONDS = 0.5
EVENT_SECONDS = 20.0
"""From a status to its events, on a machine five times slower than usual."""
WATCHFUL = {"MODELEXPORT_WATCH_CHECK_SECONDS": "5", "MODELEXPORT_WATCH_LAG_TOLERANCE_SECONDS": "8"}
"""Watches are checked more often than by default, so that a silent one is noticed within a test."""


@dataclass(frozen=True)
class Size:
    """The size of a fault: exports of nine targets, its seconds, and how often a repeated action repeats."""

    exports: int
    seconds: float
    freeze_seconds: float
    times: int


LOG_LINES = 20
LEASE = {
    "MODELEXPORT_LEASE_SECONDS": "10",
    "MODELEXPORT_LEASE_RENEW_SECONDS": "8",
    "MODELEXPORT_LEASE_RETRY_SECONDS": "0.5",
}
"""Shorter than by default, and long enough for a leader on a busy machine to keep it."""
SHORT = Size(exports=4, seconds=5.0, freeze_seconds=12.0, times=3)
LONG = Size(exports=20, seconds=120.0, freeze_seconds=60.0, times=20)


@dataclass(frozen=True)
class Stage:
    """The stage of a fault: a control plane, the proxy before it, a namespace, and a folder for the operators."""

    plane: ControlPlane
    proxy: Proxy
    api: Api
    folder: Path
    size: Size


def build_orders(count: int, targets: Collection[str] = ALL_TARGETS, *, is_deleted: bool = False) -> list[Order]:
    """Exports of the given targets; in every second export a target fails for good, and the first one has a TTL."""
    ends = dict.fromkeys(targets, SUCCEEDED)
    orders = [
        Order(f"shapes-{i}", {**ends, REFUSED: REFUSAL} if i % 2 else ends, None if i else LONG_TTL)
        for i in range(count)
    ]
    return [*orders, Order("shapes-deleted", {"ONNX/FP32": SUCCEEDED}, is_deleted=True)] if is_deleted else orders


class Kept:
    """An operator that is restarted when it has ended or its liveness probe fails, as by a kubelet.

    Attributes:
        exits: the exit codes with which it ended by itself, each with the last lines of its log.
        lives: the number of its starts.
        is_watched: whether it is restarted.
    """

    def __init__(self, operator: Operator, probe_seconds: float) -> None:
        self.operator = operator
        self.exits: list[tuple[int, str]] = []
        self.lives = 1
        self.is_watched = True
        self._failures = 0
        self._probed = time.monotonic()
        self._probe_seconds = probe_seconds

    def leaves_within(self, seconds: float) -> bool:
        """Whether its process ends within some seconds; it is not restarted meanwhile."""
        assert self.operator.process is not None
        try:
            self.operator.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def look(self) -> None:
        """Check it once, and restart it if necessary."""
        if not self.is_watched:
            return
        process = self.operator.process
        if process is not None and (code := process.poll()) is not None:
            if code not in (-signal.SIGKILL, 0):
                self.exits.append((code, "\n".join(self.operator.log.read_text().splitlines()[-LOG_LINES:])))
            self.lives += 1
            self._failures = 0
            self.operator.start()
        elif time.monotonic() > self._probed + self._probe_seconds:
            self._probed = time.monotonic()
            # An operator that does not answer is starting or slow; the chart's probe gives it two minutes.
            self._failures = self._failures + 1 if self.operator.ask("/healthz", seconds=5)[0] == 503 else 0
            if self._failures == PROBE_FAILURES:
                self.operator.signal(signal.SIGTERM)


@dataclass
class World:
    """The surroundings that a fault changes.

    Attributes:
        injected: the number of faults, beside those that the injector counts.
        complaints: the errors of an operator that a fault itself has found.
        is_elected: whether one of the operators leads; otherwise all do.
        line: the store, and the Pods that use it; ``None`` if Pods are simulated entirely.
    """

    stage: Stage
    witness: Witness
    operators: list[Kept]
    injector: Injector = field(default_factory=Injector)
    may_end: threading.Event = field(default_factory=threading.Event)
    injected: int = 0
    complaints: list[str] = field(default_factory=list)
    is_elected: bool = False
    line: Line | None = None

    def __post_init__(self) -> None:
        self.plane, self.proxy, self.api = self.stage.plane, self.stage.proxy, self.stage.api
        self.size = self.stage.size
        self.may_end.set()

    @property
    def operator(self) -> Kept:
        """The first operator."""
        return self.operators[0]

    def create(self, orders: Sequence[Order], api: Api | None = None) -> None:
        """Create exports, and retry until the API server accepts them."""
        for order in orders:
            body = make_export(*order.ends, ttlSecondsAfterFinished=order.ttl)
            body["spec"] |= {"deletionPolicy": "Delete"} if order.is_deleted else {}
            body["metadata"] = {"name": order.name}
            if order.ttl is None:
                del body["spec"]["ttlSecondsAfterFinished"]
            self.insist(lambda body=body: (api or self.api).create(EXPORTS, body))  # type: ignore[misc]

    def insist(self, call: Callable[[], object]) -> None:
        """Call the API server until it answers; an object that exists already, or no longer, counts as success."""
        seconds = self.size.seconds + TIMEOUT_SECONDS  # A fault may last that long.
        wait_until("the API server to answer", lambda: _is_answered(call), seconds)

    def jobs(self) -> list[Body]:
        """The Jobs that exist."""
        return self.witness.latest(history.JOBS)

    def denials(self) -> list[Denial]:
        """The Jobs that the API server, or a fault in its place, did not let an operator create."""
        written = ((at, json.loads(body)) for at, body in self.proxy.forbidden)
        mine = ((at, body) for at, body in written if body["metadata"].get("namespace") == self.api.namespace)
        return [Denial(at, body) for at, body in mine if body["kind"] == "Job"]

    def wait_for_ends(self, count: float) -> None:
        """Wait until so many Jobs have ended."""
        wait_until("Jobs to end", lambda: sum(map(has_ended, self.jobs())) >= count)

    def wait_until_reported(self, orders: Sequence[Order], fault_end: float, bound: float) -> float:
        """Wait until every end is reported and an operator is ready, at most for the bound after the last change.

        Returns: the seconds from the end of the fault until an operator was ready; infinite when none was.
        """
        ready = math.inf
        while True:
            past = list(self.witness.history)
            last = max([fault_end, *(sight.at for sight in past if sight.kind != history.EXPORTS)])
            if ready == math.inf and any(kept.operator.ask("/readyz", seconds=5)[0] == 200 for kept in self.operators):
                ready = time.monotonic() - fault_end
            if (ready < math.inf and is_all_reported(past, orders)) or time.monotonic() > last + bound:
                return ready
            time.sleep(LOOK_SECONDS)

    def read_reported(self, orders: Sequence[Order]) -> Reported:
        """Read the events and metrics; both follow the status a moment later."""
        end = time.monotonic() + EVENT_SECONDS
        while True:
            reported = self._read_reported()
            if not find_unreported(orders, reported) or time.monotonic() > end:
                return reported
            time.sleep(LOOK_SECONDS)

    def _read_reported(self) -> Reported:
        events = {(event["involvedObject"]["name"], event["reason"]) for event in self.api.list(EVENTS)}
        if any(kept.lives > 1 for kept in self.operators):
            return Reported(events)  # The counters of a restarted operator begin at zero.
        counts = [_count(kept.operator) for kept in self.operators]
        return Reported(events, sum(counts) if self.is_elected else max(counts))  # The leader counts everything.

    def delete(self, order: Order) -> None:
        """Delete an export, and wait until it has gone."""
        self.insist(lambda: self.api.delete(EXPORTS, order.name))
        exports = partial(self.witness.latest, history.EXPORTS)
        wait_until(f"{order.name} to go", lambda: all(e["metadata"]["name"] != order.name for e in exports()))


@contextmanager
def open_world(
    stage: Stage, operators: int, settings: Mapping[str, str], *, is_hurried: bool = True, has_store: bool = False
) -> Iterator[World]:
    """Run operators that reach the API server through the proxy, with a kubelet and a witness.

    Args:
        stage: their stage.
        operators: their number.
        settings: their settings, beside those of every fault; ``{folder}`` in a value is the folder of the plane.
        is_hurried: whether watches and liveness are checked more often than by default.
        has_store: whether Pods fetch from a real store and publish into it.
    """
    everything = {"MODELEXPORT_NAMESPACES": stage.api.namespace, **(WATCHFUL if is_hurried else {}), **settings}
    probe_seconds = PROBE_SECONDS / HURRY if is_hurried else PROBE_SECONDS
    filled = {key: value.replace("{folder}", str(stage.plane.folder)) for key, value in everything.items() if value}
    folders = [stage.folder / str(index) for index in range(operators)]
    for folder in folders:
        folder.mkdir()
    kept = [Kept(Operator(stage.proxy.address, folder, **filled), probe_seconds) for folder in folders]

    def look() -> None:
        for one in kept:
            one.look()

    world = World(stage, Witness(stage.api), kept, is_elected="MODELEXPORT_LEADER_ELECTION" in settings)
    stage.proxy.choose = world.injector.choose
    with ExitStack() as stack:
        if has_store:
            world.line = stack.enter_context(open_line(stage.api, stage.folder / "line", _is_refused))
        kubelet = world.line or Kubelet(stage.api, _end, WORK_SECONDS)
        stack.callback(_calm, stage.proxy)
        stack.enter_context(world.witness.watching())
        stack.enter_context(meanwhile(lambda: _play(world, kubelet)))
        for one in kept:
            stack.enter_context(one.operator.running())
        stack.enter_context(meanwhile(look))
        yield world


def has_ended(job: Body) -> bool:
    """Whether the Job controller is done with a Job."""
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions") or ())


def leads(kept: Kept) -> bool:
    """Whether an operator leads."""
    return "modelexport_leader 1.0" in kept.operator.ask("/metrics", seconds=5)[1]


def wait_for_leader(world: World) -> Kept:
    """Wait until an operator leads."""
    wait_until("a leader", lambda: any(leads(kept) for kept in world.operators), TIMEOUT_SECONDS)
    return next(kept for kept in world.operators if leads(kept))


def _calm(proxy: Proxy) -> None:
    proxy.choose = lambda _: None
    proxy.deaf_to = ""


def _play(world: World, kubelet: Kubelet | Line) -> None:
    """Take all Pods of the namespace one step on; do nothing while the API server is down."""
    for pod in world.witness.latest(history.PODS):
        if pod["metadata"]["namespace"] != world.api.namespace:
            continue  # Pods of a namespace that is being deleted never start, and their conversions are not counted.
        if world.may_end.is_set() or not pod.get("status", {}).get("initContainerStatuses"):
            try:
                kubelet.step(pod)
            except (*TROUBLE, ApiError):
                time.sleep(0.1)


def _end(api: Api, pod: Body) -> None:
    """Let a Pod end as its order demands."""
    if names.FORMAT_LABEL not in pod["metadata"]["labels"]:
        succeed(api, pod, result_text("FilesRemoved", "2 files were removed"))
    elif _is_refused(pod):
        refuse()(api, pod)
    else:
        succeed(api, pod)


def _is_refused(pod: Body) -> bool:
    """Whether the order of a Pod lets its verification fail."""
    labels = pod["metadata"]["labels"]
    target = f"{labels[names.FORMAT_LABEL]}/{labels[names.PRECISION_LABEL]}"
    return target == REFUSED and int(labels[names.EXPORT_LABEL].rsplit("-", 1)[1]) % 2 == 1


def _is_answered(call: Callable[[], object]) -> bool:
    try:
        call()
    except ApiError as error:
        return error.status in (404, 409)
    except TROUBLE:
        return False
    return True


def _count(operator: Operator) -> int:
    """The number of conversions that an operator counts as ended in the ordered way.

    Where a namespace is deleted, Jobs fail with their Pods; the operator counts that, too.
    """
    reasons = f"{SUCCEEDED}|{REFUSAL}"
    pattern = rf'^modelexport_conversions_total\{{.*reason="(?:{reasons})".*\}} (\S+)$'
    return round(sum(map(float, re.findall(pattern, operator.ask("/metrics")[1], re.MULTILINE))))
