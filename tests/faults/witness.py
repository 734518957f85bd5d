"""An independent witness: it watches the API server by itself and keeps every state of every object."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from faults import history
from faults.history import Sight
from testplane.api import EXPORTS, JOBS, PODS, Api, ApiError, Body

PATHS = {history.EXPORTS: EXPORTS, history.JOBS: JOBS, history.PODS: PODS}
RETRY_SECONDS = 0.2
GONE = 410
TROUBLE = (OSError, HTTPException, ValueError)
"""What a client meets while an API server comes and goes; half a line of JSON is a ``ValueError``."""


class Witness:
    """Keeps the history of a namespace.

    Attributes:
        history: every state of every ModelExport, Job and Pod, in the order of arrival.
    """

    def __init__(self, api: Api) -> None:
        self.history: list[Sight] = []
        self._api = api
        self._lock = threading.Lock()
        self._latest: dict[str, dict[str, Body]] = {kind: {} for kind in PATHS}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the context ends."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._watch, args=(kind, stop), daemon=True) for kind in PATHS]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def latest(self, kind: str) -> list[Body]:
        """The existing objects of a kind in their last known states."""
        with self._lock:
            return list(self._latest[kind].values())

    def _watch(self, kind: str, stop: threading.Event) -> None:
        version, is_listed = 0, False
        while not stop.is_set():
            try:
                if not is_listed:
                    version, is_listed = self._list(kind, version), True
                for event in self._api.watch(PATHS[kind], str(version)):
                    if event["type"] == "ERROR":
                        is_listed = event["object"].get("code") != GONE
                        break
                    version = int(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] != "BOOKMARK":
                        self._hear(kind, event["type"], event["object"], version)
                    if stop.is_set():
                        return
            except ApiError as error:
                is_listed = is_listed and error.status != GONE
                stop.wait(RETRY_SECONDS)
            except TROUBLE:
                stop.wait(RETRY_SECONDS)

    def _list(self, kind: str, heard: int) -> int:
        """List everything that a watch has missed; the exact times of these changes are unknown."""
        listing = self._api.call("GET", PATHS[kind])
        found = {body["metadata"]["uid"]: body for body in listing["items"]}
        for uid, body in list(self._latest[kind].items()):
            if uid not in found:
                self._hear(kind, "DELETED", body, heard)
        for body in found.values():
            if int(body["metadata"]["resourceVersion"]) > heard:
                self._hear(kind, "MODIFIED", body, heard)
        return int(listing["metadata"]["resourceVersion"])

    def _hear(self, kind: str, change: str, body: Body, since: int) -> None:
        with self._lock:
            self.history.append(Sight(time.monotonic(), kind, change, body, since))
            if change == "DELETED":
                self._latest[kind].pop(body["metadata"]["uid"], None)
            else:
                self._latest[kind][body["metadata"]["uid"]] = body
