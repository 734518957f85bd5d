"""Fuzzes the readers of what strangers write, each in a process of its own, with coverage as the guide (atheris).

``python -m fuzz --seconds 1200 [TARGET ...]`` shares the time out; ``--keep`` writes the smallest corpus that covers
what was found. What a reader did wrong is kept in build/fuzz/TARGET/crash-*, and the exit code is 1.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

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
COVERAGE = re.compile(r"cov: (\d+)")


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which ends with it."""
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
    """Fuzz one target in a child, which has imported all already; its exit code and what it said."""
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
    """Fuzz one target for some seconds; the number of executions and of findings."""
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
    """Write the smallest inputs that cover what all cover, as far as they are few bytes."""
    merged = BUILD / name / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    corpora = [str(merged), str(CORPUS / name), str(BUILD / name / "corpus")]
    status, said = fork(name, ["-merge=1", *corpora])
    if status:
        raise SystemExit(f"{name} cannot be merged: {said[-2000:]}")
    shutil.rmtree(CORPUS / name, ignore_errors=True)
    (CORPUS / name).mkdir(parents=True)
    kept = 0
    for path in sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        kept += path.stat().st_size
        if kept <= KEPT_BYTES:
            shutil.copyfile(path, CORPUS / name / path.name[:12])


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
