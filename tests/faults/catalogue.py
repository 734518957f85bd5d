"""The faults, each with its effect, the time to recover from it, and advice for administrators."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from faults.history import JOBS
from faults.injection import (
    DENIAL,
    GARBAGE,
    Rule,
    answer,
    cut_in_the_middle,
    delay,
    end_after,
    lose_answer,
    say,
    stay_silent,
    watches,
)
from faults.judge import Order
from faults.line import FILE_BYTES
from faults.load import busy_loop
from faults.world import ALL_TARGETS, REFUSED, Kept, World, leads, wait_for_leader
from integration.proxy import WRITES
from modelexport import names
from testcluster.chart import NAMESPACE
from testcluster.layout import REPOSITORY
from testcluster.tools import FAKETIME
from testplane.api import Api, ApiError
from testplane.control_plane import wait_until
from throttle import Way

READS = ("GET",)
EXIT_DEPOSED = 75
LEAVE_SECONDS = 30.0
"""From a lost Lease to the end of the process: seconds, five times as many on a slow machine."""
DEFINITION = "modelexports.modelexport.dev"

Strike = Callable[[World], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: the fault in a few words.
        strike: causes the fault within its context, and undoes it at the end, apart from a change of the clock.
        bound: seconds after the fault until everything is reported, on a machine five times slower than usual.
        does: the reaction of the operator.
        advice: the advice for administrators.
        share: the share of the Jobs that must end before its seconds begin.
        seconds: its duration, where that does not depend on the size.
        operators: the number of operators.
        settings: the settings of the operators.
        exits: the exit codes that this fault allows.
        deletes: whether an export is deleted with its files after the fault.
        is_elected: whether the operators elect a leader.
        is_hurried: whether watches and liveness are checked ten times as often as by default, so that a silent watch
            is noticed within a test; otherwise no restart heals anything before the bound.
        only_long: whether the short form leaves it out.
        targets: the targets of each export.
        has_store: whether Pods fetch from a real store and publish into it.
    """

    name: str
    strike: Strike
    bound: float
    does: str
    advice: str
    share: float = 0.0
    seconds: float | None = None
    operators: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    exits: Sequence[int] = ()
    deletes: bool = False
    is_elected: bool = False
    is_hurried: bool = True
    only_long: bool = False
    targets: Sequence[str] = ALL_TARGETS
    has_store: bool = False


def by_rules(build: Callable[[], Sequence[Rule]], *, cut: bool = False) -> Strike:
    """Apply rules to requests; ``cut`` cuts the open watches, so that the rules apply to the next ones."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        world.injector.rules = build()
        if cut:
            world.proxy.cut_watches()
        try:
            yield
        finally:
            world.injector.rules = ()

    return strike


def errors() -> list[Rule]:
    """One request in three fails, each in another way."""
    failures = [answer(409), answer(429, retry_after=2), answer(500), answer(504), lose_answer, cut_in_the_middle]
    return [Rule(treat, (*WRITES, *READS), share=0.06) for treat in failures] + [watches(answer(503), times=3)]


def denials() -> list[Rule]:
    """No Job may be created, as by an API server that has not loaded its roles yet."""
    return [Rule(answer(403, message=DENIAL), ("POST",), "jobs")]


def lost_answers() -> list[Rule]:
    """Half of the writes are carried out, and their answers are lost."""
    return [Rule(lose_answer, share=0.5)]


def garbage() -> list[Rule]:
    """The watch of each kind sends every sort of invalid data once."""
    kinds = ("modelexports", "exportclasses", "jobs", "pods", "nodes")
    return [watches(say(words), kind, times=1) for kind in kinds for words in GARBAGE.values()]


@contextmanager
def cut_watches(world: World) -> Iterator[None]:
    """Cut all watches again and again."""

    def cut() -> None:
        for _ in range(world.size.times):
            world.proxy.cut_watches()
            world.injected += 1
            time.sleep(1.0)

    with _beside(cut):
        yield


def silence_of(plural: str) -> Strike:
    """Keep the watches of a kind open, and pass nothing on; a silenced watch stays silent."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        world.proxy.deaf_to = plural
        world.injected += 1
        try:
            yield
        finally:
            world.proxy.deaf_to = ""

    return strike


@contextmanager
def burst_end(world: World) -> Iterator[None]:
    """Restart an operator whose watches end within their first burst, while Jobs go on."""
    kept = world.operator
    world.wait_for_ends(5)
    kept.is_watched = False
    kept.operator.kill()
    time.sleep(1.0)  # Some Jobs end while no operator watches.
    share = max(2, len(world.jobs()) // 4)
    world.injector.rules = [watches(end_after(share), kind, times=1) for kind in (JOBS, "pods")]
    kept.operator.start()
    kept.lives += 1
    kept.is_watched = True
    yield


@contextmanager
def operator_kills(world: World) -> Iterator[None]:
    """Kill the operator again and again, soon after it has become ready."""

    def kill() -> None:
        for index in range(world.size.times):
            wait_until("the operator to be ready", lambda: world.operator.operator.ask("/readyz")[0] == 200)
            time.sleep(0.3 * (index % 4))
            world.operator.operator.kill()
            world.injected += 1

    with _beside(kill):
        yield


def server_kill(*names_: str) -> Strike:
    """Kill servers of the control plane, and restart them at the end."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        servers = [world.plane.servers[name] for name in names_]
        for server in servers:
            server.kill()
            world.injected += 1
        try:
            yield
        finally:
            for server in servers:
                server.start()
            world.plane.wait_until_ready()

    return strike


@contextmanager
def frozen_leader(world: World) -> Iterator[None]:
    """Freeze the leader, and expect it to exit when it wakes up."""
    leader = wait_for_leader(world)
    leader.is_watched = False
    leader.operator.signal(signal.SIGSTOP)
    world.injected += 1
    try:
        time.sleep(world.size.freeze_seconds)
        others = [kept for kept in world.operators if kept is not leader]
        wait_until("another leader", lambda: any(leads(kept) for kept in others))
        yield
    finally:
        leader.operator.signal(signal.SIGCONT)
        _expect_exit(world, leader)


@contextmanager
def lease_losses(world: World) -> Iterator[None]:
    """Take the Lease from a busy leader repeatedly, while its writes are not answered either."""
    world.may_end.clear()
    wait_until("Jobs", lambda: len(world.jobs()) >= 9)
    yield  # More is ordered before the first loss.
    blocked = [Rule(stay_silent, plural=plural) for plural in ("modelexports", "jobs", "events")]
    for _ in range(world.size.times):
        kept = wait_for_leader(world)
        kept.is_watched = False
        world.injector.rules = blocked
        world.may_end.set()
        time.sleep(1.0)
        with busy_loop(kept.operator):
            world.injector.rules = [*blocked, Rule(stay_silent, (*WRITES, *READS), "leases")]
            _expect_exit(world, kept)
        world.injector.rules = blocked
        # The restarted operator leads at once.
        world.plane.kubectl("delete", "leases", "--all", f"--namespace={NAMESPACE}")
    world.injector.rules = ()


@contextmanager
def clock_jump(world: World) -> Iterator[None]:
    """Set the clock of a running operator ten minutes ahead."""
    path = world.plane.folder / "clock"
    path.write_text("+600s")
    world.injected += 1
    yield


@contextmanager
def as_it_is(world: World) -> Iterator[None]:
    """Do nothing: the fault lies in the settings of the operators."""
    world.injected += 1
    yield


@contextmanager
def deleted_namespace(world: World) -> Iterator[None]:
    """Delete another namespace while its exports run."""
    doomed = Api(world.plane, f"{world.api.namespace}-doomed")
    doomed.create("/api/v1/namespaces", {"metadata": {"name": doomed.namespace}})
    world.create([Order("doomed-0", {"ONNX/FP32": "", "ONNX/INT8": ""}), Order("doomed-2", {"ONNX/FP32": ""})], doomed)
    wait_until("Jobs", lambda: doomed.list("/apis/batch/v1/namespaces/{0}/jobs"))
    doomed.delete("/api/v1/namespaces", doomed.namespace)
    world.injected += 1
    yield
    wait_until("the namespace to go", lambda: _is_gone(doomed))


@contextmanager
def changed_definition(world: World) -> Iterator[None]:
    """Add a column to our definition, and remove it again."""
    column = {"name": "Fault", "type": "string", "jsonPath": ".metadata.name"}
    path = "/spec/versions/0/additionalPrinterColumns/-"
    patch = json.dumps([{"op": "add", "path": path, "value": column}])
    world.plane.kubectl("patch", "crd", DEFINITION, "--type=json", f"--patch={patch}")
    world.injected += 1
    try:
        yield
    finally:
        world.plane.kubectl("replace", f"--filename={REPOSITORY}/crds/{names.EXPORT_PLURAL}.yaml")


def store_outage(way: Way, *, is_frozen: bool) -> Strike:
    """Kill or freeze the store in the middle of uploads or of downloads."""

    @contextmanager
    def strike(world: World) -> Iterator[None]:
        assert world.line is not None
        server, throttle, struck = world.line.server, world.line.throttle, threading.Event()

        def act() -> None:
            if is_frozen:
                server.signal(signal.SIGSTOP)
            else:
                server.kill()
                throttle.cut()
            struck.set()

        throttle.arm(way, FILE_BYTES * 5 // 2, act)
        wait_until("the middle of a transfer", struck.is_set)
        world.injected += 1
        try:
            yield
        finally:
            if is_frozen:
                time.sleep(world.size.freeze_seconds)
                server.signal(signal.SIGCONT)
            else:
                server.start()

    return strike


def _expect_exit(world: World, kept: Kept) -> None:
    """Expect an operator that has lost its Lease to exit; kill it if it does not."""
    world.injected += 1
    if not kept.leaves_within(LEAVE_SECONDS):
        health = kept.operator.ask("/healthz", seconds=5)[0]
        world.complaints.append(f"a zombie {LEAVE_SECONDS:.0f} s after its Lease was lost; /healthz says {health}")
        kept.operator.kill()
    kept.is_watched = True


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Run something in a thread, and wait for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _is_gone(api: Api) -> bool:
    try:
        api.get("/api/v1/namespaces", api.namespace)
    except ApiError as error:
        return error.status == 404
    return False


DOWN, DEAF, LEADER, NOTHING, SYSTEM = (
    f"[{name}](runbooks/ModelExport{name}.md)"
    for name in ("OperatorDown", "OperatorDeaf", "NoLeader", "NothingSynced", "SystemFaults")
)
CLOCK = {"LD_PRELOAD": FAKETIME, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
OFTEN = {"MODELEXPORT_RESYNC_SECONDS": "5"}
"""Each export is reconciled several times within a test, so that faults of a later reconcile show."""
NOBODY = "Nothing; look at the API server."
GIVEN_UP = "The same; an unanswered request is given up within a minute."
FETCHING = {
    "killed": "Says `Retrying` where a Pod gave up: `fetch` tries again for 2 minutes, then the Job makes another Pod.",
    "frozen": GIVEN_UP,
}
PUBLISHING = {
    "killed": "Says `Running`: `publish` keeps the finished file and tries again for 15 minutes. No status names "
    "a file before it is whole.",
    "frozen": GIVEN_UP,
}
FAULTS = (
    Fault(
        "requests fail in six ways",
        by_rules(errors),
        bound=90,
        does="Tries each export again, later each time and no sooner than `Retry-After` says.",
        advice=f"{NOBODY} If it lasts: {NOTHING}.",
        share=0.5,
    ),
    Fault(
        "the API server has not loaded its roles",
        by_rules(denials),
        bound=90,
        does="Says `Retrying`, and creates the Jobs as soon as it may. After two minutes: `JobRefused`.",
        advice="If it lasts: compare the operator's role with the chart's.",
        seconds=10.0,
    ),
    Fault(
        "answers to writes are lost",
        by_rules(lost_answers),
        bound=90,
        does="Finds its writes already done, and counts and reports each once.",
        advice=NOBODY,
        share=1.0,
    ),
    Fault(
        "every request takes a second",
        by_rules(lambda: [Rule(delay(1.0), (*WRITES, *READS))]),
        bound=90,
        does="Keeps working, more slowly.",
        advice=NOBODY,
        share=0.5,
    ),
    Fault(
        "requests are never answered",
        by_rules(lambda: [Rule(stay_silent, (*WRITES, *READS), share=0.5)]),
        bound=120,
        does="Gives up a request after 30 s and tries again.",
        advice=f"{NOBODY} If it lasts: {NOTHING}.",
        seconds=45.0,
        only_long=True,
    ),
    Fault(
        "watches speak garbage",
        by_rules(garbage, cut=True),
        bound=120,
        does="Drops the watch and opens a new one; the process keeps running.",
        advice="Look for a proxy or load balancer in between that alters streams.",
        share=0.5,
    ),
    Fault(
        "watches are cut",
        cut_watches,
        bound=60,
        does="Reopens each at the version that it had reached.",
        advice="Nothing.",
        share=0.5,
    ),
    Fault(
        "watches end in their first burst",
        burst_end,
        bound=60,
        does="Trusts no list that did not arrive whole.",
        advice="Look for a proxy or load balancer in between that ends streams.",
        is_hurried=False,
    ),
    *(
        Fault(
            f"the watch of {plural} falls silent",
            silence_of(plural),
            bound=150,
            does="Notices it by listing, fails `/healthz` and is restarted; a missing event alone ends no target.",
            advice=f"Nothing; if it happens again: {DEAF}.",
            only_long=plural != "jobs",
        )
        for plural in ("modelexports", "jobs", "nodes")
    ),
    Fault(
        "the watch of pods falls silent for a minute",
        silence_of("pods"),
        bound=300,
        does="The same; by default it is noticed within 75 s.",
        advice=f"Nothing; if it happens again: {DEAF}.",
        seconds=60.0,
        is_hurried=False,
        only_long=True,
    ),
    Fault(
        "the watch of pods falls silent, the clock is ahead",
        silence_of("pods"),
        bound=150,
        does="The same: a local clock is no proof that a Pod is gone.",
        advice=f"Nothing; if it happens again: {DEAF}.",
        settings={**CLOCK, "FAKETIME": "+600s"},
    ),
    Fault(
        "the operator is killed",
        operator_kills,
        bound=90,
        does="Restarts, lists, and continues where it was; it keeps no state of its own.",
        advice=f"Nothing. If it does not come back: {DOWN}.",
    ),
    Fault(
        "the API server is killed",
        server_kill("kube-apiserver"),
        bound=120,
        does="Waits and reconnects; meanwhile it is not ready.",
        advice=f"Restore the API server; while it is away: {DEAF}.",
    ),
    Fault(
        "etcd is killed",
        server_kill("etcd"),
        bound=120,
        does="Waits and tries again.",
        advice="Restore etcd.",
    ),
    Fault(
        "API server and etcd are killed",
        server_kill("kube-apiserver", "etcd"),
        bound=150,
        does="Waits and reconnects.",
        advice="Restore both.",
        only_long=True,
    ),
    Fault(
        "two operators without election",
        as_it_is,
        bound=90,
        does="Reconciles again after each conflict; nothing is created twice, since names follow from the spec. Each "
        "operator counts every conversion, so sums over both are doubled.",
        advice="Switch leader election on (`replicas: 2` of the chart).",
        operators=2,
    ),
    Fault(
        "the leader is frozen",
        frozen_leader,
        bound=120,
        does="Another one leads as soon as the Lease expires; the frozen one writes nothing more and exits.",
        advice=f"Nothing. If nobody leads: {LEADER}.",
        operators=2,
        exits=(EXIT_DEPOSED,),
        is_elected=True,
    ),
    Fault(
        "the leader loses its Lease",
        lease_losses,
        bound=120,
        does="Exits with code 75 within seconds, whatever its tasks do, and comes back as a follower.",
        advice=f"Nothing. If nobody leads: {LEADER}.",
        exits=(EXIT_DEPOSED,),
        is_elected=True,
    ),
    *(
        Fault(
            f"the operator's clock is ten minutes {word}",
            as_it_is,
            bound=90,
            does="Counts durations on a monotonic clock or between two times of the server.",
            advice="Correct the clock of the node (NTP).",
            settings={**CLOCK, **OFTEN, "FAKETIME": offset},
            deletes=True,
        )
        for word, offset in (("ahead", "+600s"), ("behind", "-600s"))
    ),
    Fault(
        "the operator's clock jumps ten minutes ahead",
        clock_jump,
        bound=90,
        does="The same.",
        advice="Correct the clock of the node (NTP).",
        settings={**CLOCK, **OFTEN, "FAKETIME_TIMESTAMP_FILE": "{folder}/clock", "FAKETIME_NO_CACHE": "1"},
        deletes=True,
    ),
    Fault(
        "a namespace is deleted",
        deleted_namespace,
        bound=90,
        does="Forgets the exports of that namespace; the others continue.",
        advice="Nothing.",
        settings={"MODELEXPORT_NAMESPACES": ""},
    ),
    Fault(
        "our definition is changed",
        changed_definition,
        bound=90,
        does="Reopens the watch, which the API server ends.",
        advice="Nothing.",
    ),
    *(
        Fault(
            f"the store is {word} {where}",
            store_outage(way, is_frozen=word == "frozen"),
            bound=120,
            does=does[word],
            advice=f"Restore the store: {SYSTEM}.",
            only_long=(word, way) not in (("killed", Way.DOWN), ("frozen", Way.UP)),
            targets=("ONNX/FP32", REFUSED, "LiteRT/INT8"),
            has_store=True,
        )
        for where, way, does in (("in downloads", Way.DOWN, FETCHING), ("in uploads", Way.UP, PUBLISHING))
        for word in ("killed", "frozen")
    ),
)
"""All faults; their names are those of the tests."""
