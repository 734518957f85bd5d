"""Runs one fault: orders exports before and during it, waits until all is reported, and judges the history."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.pages.tables import table
from faults.catalogue import Fault
from faults.judge import Verdict, judge
from faults.world import LEASE, Stage, World, build_orders, open_world

ELECTION = {"MODELEXPORT_LEADER_ELECTION": "true", **LEASE}
HEADERS = ("fault", "injected", "lost", "double", "wrong", "untrue", "unreported", "ended", "seconds", "bound")


@dataclass(frozen=True)
class Row:
    """The outcome of a fault: numbers of complaints, and the seconds until all was reported and an operator was ready.

    ``ended`` counts processes that ended unexpectedly, and zombies.
    """

    fault: str
    injected: int
    lost: int
    double: int
    wrong: int
    untrue: int
    unreported: int
    ended: int
    seconds: float
    bound: float

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Self:
        """Read what ``asdict`` has written."""
        return cls(**properties)

    @classmethod
    def read(cls, cells: Sequence[str]) -> Self:
        """Read what ``cells`` has written."""
        fault, *numbers, seconds, bound = cells
        injected, lost, double, wrong, untrue, unreported, ended = map(int, numbers)
        return cls(fault, injected, lost, double, wrong, untrue, unreported, ended, float(seconds), float(bound))

    def cells(self) -> list[str]:
        """The row as text."""
        numbers = (self.injected, self.lost, self.double, self.wrong, self.untrue, self.unreported, self.ended)
        return [self.fault, *map(str, numbers), f"{self.seconds:.1f}", f"{self.bound:.0f}"]


def run_fault(fault: Fault, stage: Stage) -> tuple[Row, list[str]]:
    """Run a fault; return its row and its complaints."""
    size = stage.size
    settings = {**(ELECTION if fault.is_elected else {}), **fault.settings}
    orders = build_orders(size.exports, fault.targets, is_deleted=fault.deletes)
    with open_world(stage, fault.operators, settings, is_hurried=fault.is_hurried, has_store=fault.has_store) as world:
        early, late = orders[: size.exports // 2], orders[size.exports // 2 :]
        world.create(early)
        creator = threading.Thread(target=world.create, args=(late,), daemon=True)
        with fault.strike(world):
            creator.start()
            world.wait_for_ends(fault.share * sum(len(order.ends) for order in orders))
            time.sleep(size.seconds if fault.seconds is None else fault.seconds)
        fault_end = time.monotonic()
        creator.join()
        ready = world.wait_until_reported(orders, fault_end, fault.bound)
        for order in orders:
            if order.is_deleted:
                world.delete(order)
        reported, stored = world.read_reported(orders), None
        if world.line:
            ready, stored = max(ready, world.line.recovery_seconds(fault_end)), world.line.stored()
        verdict = judge(world.witness.history, orders, reported, fault_end, stored=stored, denials=world.denials())
        return _sum_up(fault, world, verdict, ready)


def _sum_up(fault: Fault, world: World, verdict: Verdict, ready: float) -> tuple[Row, list[str]]:
    exits = [end for kept in world.operators for end in kept.exits if end[0] not in fault.exits]
    ended = [*world.complaints, *(f"the operator ended with exit code {code}; its log:\n{log}" for code, log in exits)]
    row = Row(
        fault.name,
        world.injected + world.injector.injected,
        len(verdict.lost),
        len(verdict.double),
        len(verdict.wrong),
        len(verdict.untrue),
        len(verdict.unreported),
        len(ended),
        max(verdict.seconds, ready),
        fault.bound,
    )
    late = [] if row.seconds <= row.bound else [f"all is reported after {row.seconds:.0f} s, not {row.bound:.0f}"]
    return row, [*verdict.complaints, *ended, *late]


def to_properties(row: Row) -> dict[str, Any]:
    """The row as properties of a test report."""
    return asdict(row)


def build_table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    return table(HEADERS, [row.cells() for row in rows])
