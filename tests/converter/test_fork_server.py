"""The fork server of a local run: what its children get, and how they and it end."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import SOURCES, is_alive, wait_for
from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.environment import scrub
from modelexport_converter import fork_server
from modelexport_converter.fork_server import ForkedChild, serve, start_child
from tiny_request import REQUEST

PROGRAM = """
import os, pathlib, signal, socket, sys, tempfile, time
from modelexport_converter.fork_server import serve
tempfile.gettempdir()  # as libraries may when they are imported
serve(socket.socket(fileno=0), lambda: exec(os.environ["ACTION"]))
"""
"""Each child runs the code in its environment, as a hostile checkpoint could do that controls the child."""


class Server:
    """A fork server, as the runner starts it."""

    def __init__(self, secret: str = "") -> None:
        self.requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {**scrub(os.environ), "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "SECRET": secret}
        with other:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=other.fileno(), env=environ)

    def start(self, action: str, folder: Path) -> ForkedChild:
        with (folder / "output").open("w") as stream:
            child = start_child(self.requests.fileno(), {"ACTION": action, names.WORK_DIR_ENV: str(folder)}, stream)
        assert child is not None
        return child

    def close(self) -> None:
        self.requests.close()
        assert self.process.wait(60) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(secret="a-secret")
    yield server
    server.close()


SLEEP = "pathlib.Path(os.environ['TMPDIR'], 'pid').write_text(str(os.getpid())); time.sleep(300)"


def pid_in(folder: Path) -> int:
    return int(wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "a child"))


def test_child_has_environment_of_its_conversion_alone(server: Server, tmp_path: Path) -> None:
    action = "import json; print(json.dumps(dict(os.environ)), flush=True); os._exit(0)"
    assert server.start(action, tmp_path).wait(60) == 0
    environ = json.loads((tmp_path / "output").read_text())
    assert environ == {"ACTION": action, names.WORK_DIR_ENV: str(tmp_path)}


def test_child_has_scratch_folder_of_its_conversion(server: Server, tmp_path: Path) -> None:
    assert server.start("print(tempfile.gettempdir(), flush=True); os._exit(0)", tmp_path).wait(60) == 0
    assert (tmp_path / "output").read_text() == f"{tmp_path}\n"


def test_child_has_no_descriptor_of_another_child(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = server.start(SLEEP, tmp_path / "other")
    action = "print(*(os.readlink(f'/proc/self/fd/{fd}') for fd in range(2)), len(os.listdir('/proc/self/fd'))"
    assert server.start(f"{action}, flush=True); os._exit(0)", tmp_path).wait(60) == 0
    stdin, stdout, count = (tmp_path / "output").read_text().split()
    assert (stdin, stdout) == ("/dev/null", str(tmp_path / "output"))
    assert count == "4", "the streams, and the folder that is listed"
    other.kill()
    assert other.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("action", "code"),
    [("os._exit(0)", 0), ("os._exit(65)", 65), ("os.kill(os.getpid(), 11)", -11), ("sys.exit(0)", 70), ("1/0", 70)],
)
def test_end_of_child_is_passed_on(server: Server, tmp_path: Path, action: str, code: int) -> None:
    assert server.start(action, tmp_path).wait(60) == code


def test_child_is_terminated_on_request(server: Server, tmp_path: Path) -> None:
    child = server.start(SLEEP, tmp_path)
    pid_in(tmp_path)
    with pytest.raises(TimeoutError):
        child.wait(0.01)
    child.terminate()
    assert child.wait(60) == -signal.SIGTERM
    child.terminate()


def test_child_ends_with_its_conversion(server: Server, tmp_path: Path) -> None:
    child = server.start(SLEEP, tmp_path)
    pid = pid_in(tmp_path)
    child.connection.close()
    wait_for(lambda: not is_alive(pid), "the end of the child")


def test_children_end_with_the_run(tmp_path: Path) -> None:
    server = Server()
    child = server.start(SLEEP, tmp_path)
    pid = pid_in(tmp_path)
    server.close()
    assert child.wait(60) == -signal.SIGKILL
    assert not is_alive(pid)


def test_child_ends_without_its_server(tmp_path: Path) -> None:
    server = Server()
    child = server.start(SLEEP, tmp_path)
    pid = pid_in(tmp_path)
    server.process.kill()
    assert child.wait(60) == -signal.SIGKILL
    server.process.wait()
    wait_for(lambda: not is_alive(pid), "the end of the child")
    with (tmp_path / "output").open("w") as stream:
        assert start_child(server.requests.fileno(), {}, stream) is None
    server.requests.close()


def test_server_with_a_second_thread_forks_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = threading.Thread(target=serve, args=(other, pytest.fail))
    serving.start()
    with requests, (tmp_path / "output").open("w") as stream:
        assert start_child(requests.fileno(), {}, stream) is None
    serving.join(60)
    other.close()


def test_kernel_without_descriptors_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.close()
    with requests, pytest.raises(OSError, match="not implemented"):
        serve(requests, pytest.fail)


@pytest.mark.parametrize("fmt", fork_server._FORKED_WITH)
def test_libraries_before_a_fork_start_no_thread(fmt: str) -> None:
    program = f"""
import os
from modelexport.matrix.support import Format
from modelexport_converter import pipeline
from modelexport_converter.backends import load_backend
load_backend(Format({str(fmt)!r}))
print(len(os.listdir("/proc/self/task")))
"""
    environ = {**scrub(os.environ), "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


RECORD = """
import pathlib
with open({path!r}, "a") as file:
    file.write(pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\\0")[-2].decode() + " ")
"""


def test_conversion_asks_the_server_for_its_child(tmp_path: Path) -> None:
    """The child reports a checkpoint that cannot be read, and no other process has started for it."""
    for name in ("store/checkpoints", "site"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "store/checkpoints/tiny.pt").write_bytes(b"weights")
    (tmp_path / "site/sitecustomize.py").write_text(RECORD.format(path=str(tmp_path / "started")))
    requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "site", *SOURCES))),
        names.REQUEST_ENV: REQUEST.to_json(),
        names.STORE_ENV: str(tmp_path / "store"),
        names.FORK_SERVER_ENV: str(requests.fileno()),
        names.TERMINATION_LOG_ENV: str(tmp_path / "message"),
    }
    command = [sys.executable, "-m", "modelexport_converter"]
    with requests, other:
        server = subprocess.Popen([*command, names.FORK_SERVER], stdin=other.fileno(), env=environ)
        done = subprocess.run(command, env=environ, capture_output=True, pass_fds=[requests.fileno()], check=False)
    assert server.wait(60) == 0
    result = ConversionResult.from_json((tmp_path / "message").read_text())
    assert (done.returncode, result.reason) == (65, Reason.CHECKPOINT_UNREADABLE)
    assert sorted((tmp_path / "started").read_text().split()) == ["fork-server", "modelexport_converter"]
    assert b'"stage": "load"' in done.stdout
