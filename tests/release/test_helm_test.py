"""The script that ``helm test`` runs in a Pod of the release."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from testcluster.chart import RELEASE, load, render
from testcluster.tools import install

ADDRESS = f"http://{RELEASE}.modelexport-system.svc:8080"


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def closed_server() -> Iterator[HTTPServer]:
    """A server that is bound to its port, and refuses connections until it is activated."""
    with HTTPServer(("127.0.0.1", 0), Ready, bind_and_activate=False) as server:
        server.server_bind()
        server.timeout = 0.1
        yield server


def ask(server: HTTPServer, attempts: int = 60) -> "subprocess.Popen[str]":
    """Run the part of the script that asks the operator; a server of the test plays it."""
    install()
    [pod] = [body for body in load(render()) if body["kind"] == "Pod" and body["metadata"]["name"] == f"{RELEASE}-test"]
    script = pod["spec"]["containers"][0]["args"][0]
    kept = [line for line in script.splitlines() if not line.startswith(("kinds", "with", "    kinds", "trust"))]
    asking = "\n".join(kept[: 1 + next(at for at, line in enumerate(kept) if line.startswith('print("operator'))])
    asking = asking.replace(ADDRESS, f"http://127.0.0.1:{server.server_port}")
    asking = asking.replace("attempts=60", f"attempts={attempts}")
    command = [sys.executable, "-u", "-c", asking]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_service_not_yet_routable_is_retried() -> None:
    with closed_server() as server, ask(server) as asking:
        said = asking.stdout.readline() if asking.stdout else ""
        server.server_activate()
        while asking.poll() is None:
            server.handle_request()
        answer, problems = asking.communicate()
    assert said.startswith("no answer yet")
    assert asking.returncode == 0, problems
    assert answer.endswith("operator: ok\n")


def test_silent_operator_fails_with_reason() -> None:
    with closed_server() as server, ask(server, attempts=2) as asking:
        _, problems = asking.communicate()
    assert asking.returncode == 1
    assert "Connection refused" in problems
