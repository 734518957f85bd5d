"""Pods whose steps ``fetch`` and ``publish`` are the converter's own, as processes, with a real store.

The step between them needs no store and is simulated: it leaves a file and a draft report, as a conversion does.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from command_line import SOURCES
from integration.kubelet import fail, refuse, run, succeed, terminate
from modelexport import names
from modelexport.api.request import ConversionRequest
from modelexport.environment import unescape
from modelexport.matrix.support import lookup
from modelexport_converter.local import make_places
from modelexport_converter.publishing.converted_output import DRAFT_FILE
from s3_servers import VERSITYGW, S3Server, serve
from security.test_hostile_outputs import good_draft
from testplane.api import Api, Body
from testplane.control_plane import start_process
from testplane.objects import make_export
from throttle import Throttle

FILE_BYTES = 4 << 20
"""Of each checkpoint and each artifact: more than a frozen server takes before it is asked for more."""
ROOM = 8
"""How many Pods the node of this world runs at once."""


@dataclass
class Work:
    """The current step of a Pod: its process, its start, and its folder with the variables that name its parts."""

    step: str
    process: "subprocess.Popen[bytes]"
    begun: float
    folder: Path
    places: dict[str, str]


class Line:
    """Simulates the kubelet for Pods that convert.

    Args:
        api: the namespace of the Pods.
        folder: holds their files.
        server: the store.
        throttle: the proxy through which they reach it.
        is_refused: whether the verification of a Pod's conversion fails.
    """

    def __init__(
        self, api: Api, folder: Path, server: S3Server, throttle: Throttle, is_refused: Callable[[Body], bool]
    ) -> None:
        self.server, self.throttle = server, throttle
        self._api, self._folder, self._is_refused = api, folder, is_refused
        self._at_work: dict[str, Work] = {}
        self._ended: set[str] = set()
        self._spans: dict[tuple[str, str], tuple[float, float]] = {}

    def step(self, pod: Body) -> None:
        """Take a Pod one step on; the next call retries a step that failed."""
        uid = pod["metadata"]["uid"]
        work = self._at_work.get(uid)
        if pod["metadata"].get("deletionTimestamp"):
            self._leave(uid)
            terminate(self._api, pod)
        elif work is None:
            if uid not in self._ended and len(self._at_work) < ROOM:
                run(self._api, pod, names.FETCH)
                folder = self._folder / uid
                folder.mkdir()
                self._at_work[uid] = self._start(pod, names.FETCH, folder, make_places(folder))
        elif (code := work.process.poll()) is not None:
            self._spans.setdefault((uid, work.step), (work.begun, time.monotonic()))
            self._go_on(pod, work, code)

    def _go_on(self, pod: Body, work: Work, code: int) -> None:
        uid = pod["metadata"]["uid"]
        if code:
            fail(code if code > 0 else 128 - code, _message(work.folder), container=work.step)(self._api, pod)
        elif work.step == names.PUBLISH:
            succeed(self._api, pod, _message(work.folder))
        elif self._is_refused(pod):
            refuse()(self._api, pod)
        else:
            _convert(pod, Path(work.places[names.OUTPUTS_ENV]))
            run(self._api, pod, names.PUBLISH)
            self._at_work[uid] = self._start(pod, names.PUBLISH, work.folder, work.places)
            return
        self._leave(uid)

    def _start(self, pod: Body, step: str, folder: Path, places: dict[str, str]) -> Work:
        store = {**self.server.environ, names.STORE_ENV: f"http://{self.throttle.address}"}
        asked = {e["name"]: unescape(e["value"]) if "value" in e else store[e["name"]] for e in _find(pod, step)["env"]}
        environment = {
            **asked,
            **places,
            names.STORE_ENV: store[names.STORE_ENV],
            names.TERMINATION_LOG_ENV: str(folder / "message"),
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        }
        command = [sys.executable, "-m", "modelexport_converter", *_find(pod, step)["args"]]
        return Work(step, start_process(command, folder / "log", environment), time.monotonic(), folder, places)

    def _leave(self, uid: str) -> None:
        self._ended.add(uid)
        if work := self._at_work.pop(uid, None):
            work.process.kill()
            work.process.wait()

    def end(self) -> None:
        """End the steps that still run."""
        for uid in list(self._at_work):
            self._leave(uid)

    def recovery_seconds(self, fault_end: float) -> float:
        """The seconds from the end of a fault until every step that it met had ended."""
        return max((end - fault_end for begun, end in self._spans.values() if begun < fault_end < end), default=0.0)

    def stored(self) -> dict[str, str]:
        """The SHA-256 of every published file, by its URI."""
        client = self.server.client
        found = {}
        for item in client.list_objects("exports", recursive=True):
            with client.get_object("exports", str(item.object_name)) as response:
                found[f"s3://exports/{item.object_name}"] = hashlib.sha256(response.read()).hexdigest()
        return found


@contextmanager
def open_line(api: Api, folder: Path, is_refused: Callable[[Body], bool]) -> Iterator[Line]:
    """Run a store with the checkpoint of all exports, and a line that uses it."""
    folder.mkdir()
    with serve(VERSITYGW, folder / "store") as server:
        for bucket in ("checkpoints", "exports"):
            server.client.make_bucket(bucket)
        bucket, _, key = make_export()["spec"]["model"]["checkpoint"]["uri"].removeprefix("s3://").partition("/")
        server.client.put_object(bucket, key, io.BytesIO(os.urandom(FILE_BYTES)), FILE_BYTES)
        throttle = Throttle(server.address)
        with throttle.listening():
            line = Line(api, folder, server, throttle, is_refused)
            try:
                yield line
            finally:
                line.end()


def _find(pod: Body, step: str) -> Body:
    """The container of a step."""
    containers: list[Body] = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    return next(container for container in containers if container["name"] == step)


def _message(folder: Path) -> str:
    path = folder / "message"
    return path.read_text() if path.exists() else ""


def _convert(pod: Body, outputs: Path) -> None:
    """Leave a new file and the draft of its report."""
    environment = {e["name"]: e["value"] for e in _find(pod, names.CONVERT)["env"]}
    request = ConversionRequest.from_json(unescape(environment[names.REQUEST_ENV]))
    (outputs / request.artifact_name).write_bytes(os.urandom(FILE_BYTES))
    asked = {"metric": request.threshold.metric, "threshold": f"{request.threshold.minimum:g}", "value": "1.000000"}
    draft = good_draft()
    draft["verification"] |= asked
    draft["verification"]["fidelity"]["threshold"] = f"{lookup(request.model.architecture, request.target).fidelity:g}"
    (outputs / DRAFT_FILE).write_text(json.dumps(draft))
