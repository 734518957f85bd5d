"""A local conversion: the environment of its child process, and how the child's end becomes its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import SOURCES, is_alive, wait_for
from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from tiny_request import REQUEST

SECRETS = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_SESSION_TOKEN": "a-session-token",
    "AWS_PROFILE": "admin",
    "AWS_CONFIG_FILE": "/home/me/.aws/config",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    "HTTPS_PROXY": "http://user:password@proxy",
    "https_proxy": "http://user:password@proxy",
    "HF_TOKEN": "a-token",
    "GITHUB_TOKEN": "a-token",
    "KUBECONFIG": "/home/me/.kube/config",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "DATABASE_URL": "postgres://user:password@host",
    "MODELEXPORT_CA_FILE": "/etc/ca.crt",
    "MODELEXPORT_EXPORT_UID": "uid",
}
START = """
import os, pathlib, signal, sys, time
if pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\\0")[-2] == b"convert":
    folder = pathlib.Path({folder!r})
    {action}
"""
"""Runs when Python starts: whatever a checkpoint that took the child over could do, this can."""


class Run:
    """Runs the converter with a child that does something of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.message = folder, folder / "message.json"
        for name in ("store/checkpoints", "site", "work"):
            (folder / name).mkdir(parents=True)
        (folder / "store/checkpoints/tiny.pt").write_bytes(b"weights")

    def start(self, action: str) -> "subprocess.Popen[bytes]":
        (self.folder / "site/sitecustomize.py").write_text(START.format(folder=str(self.folder), action=action))
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder / "site", *SOURCES))),
            "HOME": "/home/me",
            "OMP_NUM_THREADS": "1",
            names.REQUEST_ENV: REQUEST.to_json(),
            names.STORE_ENV: str(self.folder / "store"),
            names.WORK_DIR_ENV: str(self.folder / "work"),
            names.TERMINATION_LOG_ENV: str(self.message),
            **SECRETS,
        }
        command = [sys.executable, "-m", "modelexport_converter"]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __call__(self, action: str) -> tuple[int, ConversionResult | None, list[dict[str, Any]]]:
        child = self.start(action)
        output, _ = child.communicate(timeout=120)
        assert not list((self.folder / "work").iterdir()), "scratch space is left"
        result = ConversionResult.from_json(self.message.read_text("utf-8")) if self.message.exists() else None
        return child.returncode, result, [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_conversion_process_gets_no_credentials(run: Run) -> None:
    code, result, events = run('(folder / "environ").write_bytes(pathlib.Path("/proc/self/environ").read_bytes())')
    assert result is not None
    assert (code, result.reason) == (65, Reason.CHECKPOINT_UNREADABLE)
    assert [event["stage"] for event in events if event.get("state") == "finished"] == ["fetch", "start"]
    seen = (run.folder / "environ").read_bytes().decode()
    variables = dict(entry.split("=", 1) for entry in seen.rstrip("\0").split("\0"))
    places = {names.INPUTS_ENV, names.OUTPUTS_ENV, names.WORK_DIR_ENV, "HOME", names.TERMINATION_LOG_ENV}
    assert set(variables) - {"LC_CTYPE"} == {"PATH", "PYTHONPATH", "OMP_NUM_THREADS", names.REQUEST_ENV, *places}
    assert {variables[name].startswith(str(run.folder / "work/conversion-")) for name in places} == {True}
    for value in (*SECRETS.values(), str(run.folder / "store")):
        assert value not in seen


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os._exit(3)", 3),
        ("os._exit(65)", 65),
    ],
)
def test_conversion_fails_when_process_dies_silently(run: Run, action: str, code: int) -> None:
    assert run(action)[:2] == (code, None)


SAY = "pathlib.Path(os.environ['MODELEXPORT_TERMINATION_LOG']).write_text({text!r}); os._exit({code})"
SUCCEEDED = ConversionResult(Reason.SUCCEEDED, "trust me").to_json()
REFUSED = ConversionResult(Reason.CHECKPOINT_MISMATCH, "another model").to_json()


@pytest.mark.parametrize(
    ("text", "code"),
    [(SUCCEEDED, 70), (SUCCEEDED, 65), (REFUSED, 75), (REFUSED, 70), ("x" * 100_000, 65), ("{}", 65), ("\x1b[2J", 70)],
)
def test_result_contradicting_exit_code_is_ignored(run: Run, text: str, code: int) -> None:
    assert run(SAY.format(text=text, code=code))[:2] == (code, None)


def test_process_without_output_publishes_nothing(run: Run) -> None:
    code, result, _ = run(SAY.format(text=SUCCEEDED, code=0))
    assert result is not None
    assert (code, result.reason) == (70, Reason.OUTPUT_REFUSED)
    assert not (run.folder / "store/exports").exists()


def test_termination_stops_conversion_process(run: Run) -> None:
    running = run.start("(folder / 'pid').write_text(str(os.getpid())); time.sleep(300)")
    pid = int(wait_for(lambda: (run.folder / "pid").exists() and (run.folder / "pid").read_text(), "a child"))
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert (running.returncode, run.message.exists()) == (143, False)
    assert not is_alive(pid)
    assert not list((run.folder / "work").iterdir())
