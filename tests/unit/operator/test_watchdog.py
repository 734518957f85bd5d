"""The watchdog ends its whole process, so each case runs in a process of its own."""

import subprocess
import sys

import pytest

BEGIN = """
import asyncio, contextlib, logging, os, sys, time
from modelexport_operator.leadership import watchdog

logging.basicConfig()
grace, watchdog.FAREWELL_SECONDS = map(float, sys.argv[1:])
is_ending = False

async def swallow():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

async def main():
    global is_ending
    watchdog.enforce_end(lambda: is_ending, 75, grace)
"""
CASES = {
    "a task that swallows its cancellation": """
    async with asyncio.TaskGroup() as group:
        group.create_task(swallow())
        await asyncio.sleep(0)
        is_ending = True
        raise ValueError
""",
    "a stray task at the end of the loop": """
    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    is_ending = True
""",
    "a thread that the loop waits for at its end": """
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    is_ending = True
""",
    "a loop that is blocked": """
    is_ending = True
    time.sleep(600)
""",
}


def start(body: str, grace: float = 0.1, farewell: float = 60.0) -> "subprocess.Popen[str]":
    program = f"{BEGIN}{body}\nasyncio.run(main())\n"
    command = [sys.executable, "-c", program, str(grace), str(farewell)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("case", CASES)
def test_hanging_process_is_killed(case: str) -> None:
    with start(CASES[case]) as process:
        assert process.wait(120) == 75
        assert process.stderr is not None
        assert "is killed; still running: " in process.stderr.read()


def test_unread_log_does_not_delay_exit() -> None:
    with start("    is_ending = True\n    logging.error('x' * 10_000_000)", farewell=1.0) as process:
        assert process.wait(120) == 75


def test_process_exiting_in_time_keeps_exit_code() -> None:
    with start("    is_ending = True\n    sys.exit(3)", grace=600) as process:
        assert process.wait(120) == 3


def test_running_process_is_left_alone() -> None:
    with start("    await asyncio.sleep(2)\n    sys.exit(3)", grace=0) as process:
        assert process.wait(120) == 3
