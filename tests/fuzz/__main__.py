"""Fuzzes the readers of untrusted input, each in a process of its own, guided by coverage (atheris).

``python -m fuzz --seconds 1200 [TARGET ...]`` shares the time out; ``--keep`` writes the smallest corpus with the
same coverage. Findings are kept in build/fuzz/TARGET/crash-*, and the exit code is then 1.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import atheris

INSTRUMENTED = ["modelexport", "modelexport_converter", "modelexport_operator", "yaml", "pickletools", "zipfile"]
with atheris.instrument_imports(include=INSTRUMENTED):
    from fuzz.targets import CORPUS, TARGETS, prepare

BUILD = Path("build/fuzz")
MEMORY_MIB, INPUT_SECONDS = 2048, 10
"""Of a process; torch and its libraries alone take 500 MiB."""
MOST_FINDINGS = 5
KEPT_BYTES = 18_000
"""Of a target's corpus."""
STATISTIC = re.compile(r"stat::number_of_executed_units: (\d+)")
TraceFunction = Callable[[FrameType, str, Any], Any]
COVERAGE = re.compile(r"cov: (\d+)")


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, then exit."""
    target = TARGETS[name]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        changed = target.mutate(data, chance) if target.mutate and chance.random() < 0.8 else None
        if changed is None or len(changed) > most:
            changed = atheris.Mutate(data, min(most, len(data) + 64))
        return bytes(changed)

    options = [f"-max_len={target.longest}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
    options += [f"-artifact_prefix={BUILD / name}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *arguments], target.read, custom_mutator=mutate)
    atheris.Fuzz()


def fork(name: str, arguments: list[str]) -> tuple[int, str]:
    """Fuzz one target in a forked child, which has all modules already; return its exit code and output."""
    log = BUILD / name / "log"
    child = os.fork()
    if not child:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        fuzz(name, arguments)
    _, status = os.waitpid(child, 0)
    return status, log.read_text("utf-8", "replace")


def run(name: str, seconds: float) -> tuple[int, int]:
    """Fuzz one target for some seconds; return the numbers of executions and of findings."""
    corpora = [BUILD / name / "corpus", CORPUS / name]
    for corpus in corpora:
        corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(TARGETS[name].seeds()):
        (corpora[0] / f"seed-{index}").write_bytes(seed)
    prepare(name, [path.read_bytes() for corpus in corpora for path in corpus.iterdir()])
    executed, findings, covered, end = 0, 0, "?", time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0 and findings < MOST_FINDINGS:
        status, said = fork(name, [f"-max_total_time={left}", *map(str, corpora)])
        executed += sum(map(int, STATISTIC.findall(said)))
        covered = [covered, *COVERAGE.findall(said)][-1]
        if status:
            findings += 1
            print(said[-4000:])
    print(f"{name}: {executed:,} executions, {findings} findings, {covered} edges", flush=True)
    return executed, findings


def keep(name: str) -> None:
    """Write the smallest inputs, each of which reaches a line of ours that no smaller one reaches."""
    found = {path.read_bytes() for corpus in (BUILD / name / "corpus", CORPUS / name) for path in corpus.iterdir()}
    shutil.rmtree(CORPUS / name)
    (CORPUS / name).mkdir()
    reached: set[tuple[str, int]] = set()
    left = KEPT_BYTES
    for content in sorted(found, key=lambda content: (len(content), content)):
        if len(content) <= left and not reached >= (lines := lines_of(name, content)):
            reached |= lines
            left -= len(content)
            (CORPUS / name / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)


def lines_of(name: str, content: bytes) -> set[tuple[str, int]]:
    """The lines of the product that run when an input is read."""
    lines: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        if "/src/modelexport" not in frame.f_code.co_filename:
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        TARGETS[name].read(content)
    finally:
        sys.settrace(None)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="in total")
    parser.add_argument("--keep", action="store_true", help="write tests/fuzz/corpus anew")
    options = parser.parse_args()
    names = options.names or list(TARGETS)
    part = options.seconds / sum(TARGETS[name].share for name in names)
    results = [run(name, part * TARGETS[name].share) for name in names]
    executed, findings = (sum(column) for column in zip(*results, strict=True))
    print(f"{executed:,} executions of {len(names)} readers, {findings} findings")
    if options.keep:
        for name in names:
            keep(name)
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
