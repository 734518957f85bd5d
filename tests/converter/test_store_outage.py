"""A store that goes away and comes back: a conversion waits for it, for as long as it was told to."""

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minio_server import MinioServer, serve
from modelexport import names
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport_converter import local as local_run
from modelexport_converter.failures import Failure
from modelexport_converter.stores import open_store, retry
from modelexport_converter.stores.retry import FIRST_DELAY, LONGEST_DELAY, Patience, read_patience
from ports import free_port

LIMIT = 1 << 30
SIZE = 12 << 20
UNAVAILABLE = Failure(Reason.STORAGE_UNAVAILABLE, "s3://b/k: the store cannot be reached. Check it.")


class Clock:
    """Time that passes only by waiting; ``on_pause`` happens in each pause, whose number it is given."""

    def __init__(self, on_pause: Callable[[int], None] = lambda _: None) -> None:
        self.pauses: list[float] = []
        self._on_pause = on_pause

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, lambda: sum(self.pauses), self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._on_pause(len(self.pauses))


def fail_times(count: int) -> Callable[[], str]:
    left = iter(range(count))

    def operation() -> str:
        if next(left, None) is not None:
            raise UNAVAILABLE
        return "done"

    return operation


def test_an_outage_of_minutes_is_waited_out() -> None:
    clock = Clock()
    assert clock.patience(900).attempt(fail_times(20)) == "done"
    assert len(clock.pauses) == 20
    assert 300 < sum(clock.pauses) < 900


def test_a_store_that_stays_away_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(retry, "announce", lambda event, **fields: told.append({"event": event, **fields}))
    clock = Clock()
    with pytest.raises(Failure, match=r"Check it\. It was tried again for \d\d\d s\.$") as caught:
        clock.patience(300).attempt(fail_times(1000))
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert 300 - LONGEST_DELAY <= sum(clock.pauses) <= 300
    assert len(told) == len(clock.pauses), "each pause is a line in the log"
    assert [line["left"] for line in told] == sorted((line["left"] for line in told), reverse=True)


def test_pauses_grow_and_differ() -> None:
    seconds = []
    for seed in range(2):
        random.seed(seed)
        clock = Clock()
        clock.patience(900).attempt(fail_times(12))
        whole = [min(FIRST_DELAY * 2**index, LONGEST_DELAY) for index in range(12)]
        assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, whole, strict=True))
        seconds.append(clock.pauses)
    assert seconds[0] != seconds[1]


def test_without_patience_a_failure_is_told_at_once() -> None:
    clock = Clock()
    with pytest.raises(Failure, match=r"Check it\.$"):
        clock.patience(0).attempt(fail_times(1))
    assert clock.pauses == []


def test_what_time_does_not_heal_is_not_tried_again() -> None:
    clock, denied = Clock(), Failure(Reason.STORAGE_DENIED, "no")

    def operation() -> None:
        raise denied

    with pytest.raises(Failure, match="no"):
        clock.patience(900).attempt(operation)
    assert clock.pauses == []


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "1e9"])
def test_patience_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="MODELEXPORT_STORE_PATIENCE is no number of seconds from 0") as caught:
        read_patience({names.PATIENCE_ENV: text})
    assert caught.value.reason is Reason.CLASS_INVALID


def test_nobody_waits_minutes_for_a_mistyped_endpoint() -> None:
    clock = Clock()
    store: Any = open_store({"MODELEXPORT_STORE": f"http://127.0.0.1:{free_port()}"})
    store._patience = clock.patience(store._patience.seconds)
    with pytest.raises(Failure, match="cannot be reached"):
        store.read_text("s3://exports/report.json")
    assert sum(clock.pauses) < 5


def test_a_local_run_waits_once_the_store_has_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run_step(step: str, environ: dict[str, str], request: object) -> str | None:
        seen[step] = read_patience(environ).seconds
        return "published" if step == names.PUBLISH else None

    monkeypatch.setattr(local_run, "run_step", run_step)
    monkeypatch.setattr(local_run, "_convert", lambda *_: None)
    request: ConversionRequest = None  # type: ignore[assignment]
    assert local_run.run_here({names.WORK_DIR_ENV: str(tmp_path)}, request, None) == "published"  # type: ignore[arg-type, comparison-overlap]
    assert seen == {names.FETCH: retry.SHORT_SECONDS, names.PUBLISH: local_run.PATIENCE_SECONDS}
    local_run.run_here({names.WORK_DIR_ENV: str(tmp_path), names.PATIENCE_ENV: "7"}, request, None)  # type: ignore[arg-type]
    assert seen == {names.FETCH: 7, names.PUBLISH: 7}


class Throttle:
    """Passes bytes to a server, in both directions, until so many have passed; then the server is ended."""

    def __init__(self, server: str, budget: int, end: Callable[[], None]) -> None:
        host, port = server.split(":")
        self._server = host, int(port)
        self._budget, self._end = budget, end
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close(self) -> None:
        """End every connection and thread."""
        for one in self._sockets:
            _shut(one)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _run(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    upstream = socket.create_connection(self._server)
                except OSError:
                    _shut(client)
                    continue
                self._sockets.append(upstream)
                self._run(self._pass, client, upstream)
                self._run(self._pass, upstream, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
                with self._lock:
                    before, self._budget = self._budget, self._budget - len(chunk)
                if before > 0 >= self._budget:
                    self._end()
                    break
        _shut(source)
        _shut(target)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


class Outage:
    """A store behind a throttle: it dies after 4 MiB, and is back after the third pause."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, contextlib.ExitStack()
        self.server: MinioServer = self.running.enter_context(serve(folder))
        self.server.client.make_bucket("exports")
        self.clock = Clock(self._repair)
        self.throttle: Throttle | None = None

    def begin(self) -> Any:
        """The store as a conversion sees it, from now on."""
        self.throttle = Throttle(self.server.address, 4 << 20, self.running.close)
        environ = {**self.server.environ, "MODELEXPORT_STORE": f"http://{self.throttle.address}"}
        store: Any = open_store(environ)
        store._patience = self.clock.patience(900)
        return store

    def _repair(self, pause: int) -> None:
        if pause == 3:
            self.running = contextlib.ExitStack()
            self.running.enter_context(serve(self.folder, self.server.address))

    def close(self) -> None:
        self.running.close()
        if self.throttle:
            self.throttle.close()


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    outage = Outage(tmp_path / "data")
    yield outage
    outage.close()


def test_an_upload_survives_the_end_of_its_server(outage: Outage, tmp_path: Path) -> None:
    path, uri = tmp_path / "file", "s3://exports/a/file"
    path.write_bytes(os.urandom(SIZE))
    outage.begin().upload(path, uri, {})
    assert len(outage.clock.pauses) >= 3, "the server was not ended in the upload"
    open_store(outage.server.environ).download(uri, tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert [item.object_name for item in outage.server.client.list_objects("exports", recursive=True)] == ["a/file"]


def test_a_download_survives_the_end_of_its_server(outage: Outage, tmp_path: Path) -> None:
    path, uri = tmp_path / "file", "s3://exports/a/file"
    path.write_bytes(os.urandom(SIZE))
    open_store(outage.server.environ).upload(path, uri, {})
    outage.begin().download(uri, tmp_path / "copy", LIMIT)
    assert len(outage.clock.pauses) >= 3, "the server was not ended in the download"
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
