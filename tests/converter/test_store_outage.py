"""A store that goes away and comes back: a conversion waits for it up to the given limit."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport_converter import local as local_run
from modelexport_converter.failures import Failure
from modelexport_converter.stores import open_store, retry
from modelexport_converter.stores.retry import FIRST_DELAY, LONGEST_DELAY, RetryPolicy, read_retry_policy
from ports import free_port
from s3_servers import PROGRAMS, S3Server, serve
from throttle import Throttle, Way

LIMIT = 1 << 30
SIZE = 12 << 20
UNAVAILABLE = Failure(Reason.STORAGE_UNAVAILABLE, "s3://b/k: the store cannot be reached. Check it.")


class Clock:
    """Time that passes only by waiting; ``on_pause`` happens in each pause, whose number it is given."""

    def __init__(self, on_pause: Callable[[int], None] = lambda _: None) -> None:
        self.pauses: list[float] = []
        self._on_pause = on_pause

    def policy(self, seconds: float) -> RetryPolicy:
        return RetryPolicy(seconds, lambda: sum(self.pauses), self.sleep)

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


def longest_wait(pauses: int) -> float:
    """Return the longest time in seconds of so many pauses: each bound doubles the one before."""
    return sum(min(FIRST_DELAY * 2**number, LONGEST_DELAY) for number in range(pauses))


def test_outage_of_minutes_is_survived() -> None:
    clock = Clock()
    assert clock.policy(900).attempt(fail_times(20)) == "done"
    assert len(clock.pauses) == 20
    assert longest_wait(20) / 2 <= sum(clock.pauses) <= longest_wait(20)
    assert longest_wait(20) / 2 > 180, "each pause is at least half of its bound: minutes, whatever chance says"


def test_permanent_outage_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(retry, "announce", lambda event, **fields: told.append({"event": event, **fields}))
    clock = Clock()
    with pytest.raises(Failure, match=r"Check it\. It was retried for \d\d\d s\.$") as caught:
        clock.policy(300).attempt(fail_times(1000))
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert 300 - LONGEST_DELAY <= sum(clock.pauses) <= 300
    assert len(told) == len(clock.pauses), "each pause is a line in the log"
    assert [line["left"] for line in told] == sorted((line["left"] for line in told), reverse=True)


def test_retry_delays_grow_with_jitter() -> None:
    seconds = []
    for seed in range(2):
        random.seed(seed)
        clock = Clock()
        clock.policy(900).attempt(fail_times(12))
        whole = [min(FIRST_DELAY * 2**index, LONGEST_DELAY) for index in range(12)]
        assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, whole, strict=True))
        seconds.append(clock.pauses)
    assert seconds[0] != seconds[1]


def test_failure_is_reported_at_once_without_retry_time() -> None:
    clock = Clock()
    with pytest.raises(Failure, match=r"Check it\.$"):
        clock.policy(0).attempt(fail_times(1))
    assert clock.pauses == []


def test_permanent_error_is_not_retried() -> None:
    clock, denied = Clock(), Failure(Reason.STORAGE_DENIED, "no")

    def operation() -> None:
        raise denied

    with pytest.raises(Failure, match="no"):
        clock.policy(900).attempt(operation)
    assert clock.pauses == []


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "1e9"])
def test_retry_time_must_be_number(text: str) -> None:
    with pytest.raises(Failure, match="MODELEXPORT_STORE_TIMEOUT_SECONDS is not a number of seconds from 0") as caught:
        read_retry_policy({names.STORE_TIMEOUT_ENV: text})
    assert caught.value.reason is Reason.CLASS_INVALID


def test_mistyped_endpoint_fails_fast() -> None:
    clock = Clock()
    store: Any = open_store({"MODELEXPORT_STORE": f"http://127.0.0.1:{free_port()}"})
    store._retry_policy = clock.policy(store._retry_policy.seconds)
    with pytest.raises(Failure, match="cannot be reached"):
        store.read_text("s3://exports/report.json")
    assert sum(clock.pauses) < 5


def test_local_run_retries_only_after_first_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run_step(step: str, environ: dict[str, str], request: object) -> str | None:
        seen[step] = read_retry_policy(environ).seconds
        return "published" if step == names.PUBLISH else None

    monkeypatch.setattr(local_run, "run_step", run_step)
    monkeypatch.setattr(local_run, "_convert", lambda *_: None)
    request: ConversionRequest = None  # type: ignore[assignment]
    assert local_run.run_here({names.WORK_DIR_ENV: str(tmp_path)}, request, None) == "published"  # type: ignore[arg-type, comparison-overlap]
    assert seen == {names.FETCH: retry.SHORT_SECONDS, names.PUBLISH: local_run.RETRY_SECONDS}
    local_run.run_here({names.WORK_DIR_ENV: str(tmp_path), names.STORE_TIMEOUT_ENV: "7"}, request, None)  # type: ignore[arg-type]
    assert seen == {names.FETCH: 7, names.PUBLISH: 7}


class Outage:
    """A store behind a throttle: it dies after 4 MiB of a transfer, and is back after the third pause."""

    def __init__(self, server: S3Server, throttle: Throttle) -> None:
        self.server = server
        self.clock = Clock(self._repair)
        self._throttle = throttle

    def begin(self, way: Way) -> Any:
        """The store as a conversion sees it, from now on."""
        self._throttle.arm(way, 4 << 20, self._die)
        store: Any = open_store({**self.server.environ, "MODELEXPORT_STORE": f"http://{self._throttle.address}"})
        store._retry_policy = self.clock.policy(900)
        return store

    def _die(self) -> None:
        self.server.kill()
        self._throttle.cut()

    def _repair(self, pause: int) -> None:
        if pause == 3:
            self.server.start()


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.name)
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    with serve(request.param, tmp_path / "data") as server:
        server.client.make_bucket("exports")
        throttle = Throttle(server.address)
        with throttle.listening():
            yield Outage(server, throttle)


def test_upload_survives_server_restart(outage: Outage, tmp_path: Path) -> None:
    path, uri = tmp_path / "file", "s3://exports/a/file"
    path.write_bytes(os.urandom(SIZE))
    outage.begin(Way.UP).upload(path, uri, {})
    assert len(outage.clock.pauses) >= 3, "the server was not ended in the upload"
    open_store(outage.server.environ).download(uri, tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert [item.object_name for item in outage.server.client.list_objects("exports", recursive=True)] == ["a/file"]


def test_download_survives_server_restart(outage: Outage, tmp_path: Path) -> None:
    path, uri = tmp_path / "file", "s3://exports/a/file"
    path.write_bytes(os.urandom(SIZE))
    open_store(outage.server.environ).upload(path, uri, {})
    outage.begin(Way.DOWN).download(uri, tmp_path / "copy", LIMIT)
    assert len(outage.clock.pauses) >= 3, "the server was not ended in the download"
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
