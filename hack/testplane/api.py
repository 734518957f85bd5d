"""A plain client of the API server for the tests: bodies in and out, and errors with the server's message."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any

from testplane.control_plane import TIMEOUT_SECONDS, ControlPlane, wait_until
from testplane.tls import trusting

Body = dict[str, Any]
EXPORTS = "/apis/modelexport.dev/v1alpha1/namespaces/{0}/modelexports"
CLASSES = "/apis/modelexport.dev/v1alpha1/exportclasses"
JOBS = "/apis/batch/v1/namespaces/{0}/jobs"
PODS = "/api/v1/namespaces/{0}/pods"
NODES = "/api/v1/nodes"
EVENTS = "/api/v1/namespaces/{0}/events"


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """The administrator's view of one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.namespace = namespace
        self._address = plane.address
        self._token = plane.token
        self._trust = trusting(plane.certificate)

    def call(self, method: str, path: str, body: Body | None = None, content_type: str = "application/json") -> Body:
        with self._open(method, path, body, content_type) as response:
            answer: Body = json.load(response)
            return answer

    def watch(self, path: str, version: str, seconds: int = 5) -> Iterator[Body]:
        """The events of a watch from a version on, for some seconds."""
        query = f"watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}"
        with self._open("GET", f"{path}?{query}") as response:
            yield from map(json.loads, response)

    def _open(
        self, method: str, path: str, body: Body | None = None, content_type: str = "application/json"
    ) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path.format(self.namespace), data, headers, method=method)
        try:
            answer: HTTPResponse = urllib.request.urlopen(request, context=self._trust, timeout=60)
            return answer
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, json.load(error)["message"]) from error

    def get(self, path: str, name: str) -> Body:
        return self.call("GET", f"{path}/{name}")

    def list(self, path: str) -> list[Body]:
        items: list[Body] = self.call("GET", path)["items"]
        return items

    def create(self, path: str, body: Body) -> Body:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Body) -> Body:
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str, name: str) -> Body:
        return self.call("DELETE", f"{path}/{name}?propagationPolicy=Background")

    def ready(self, name: str = "shapes") -> Body:
        """The Ready condition of an export; empty before there is one."""
        conditions = self.get(EXPORTS, name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready"), {})

    def targets(self, name: str = "shapes") -> dict[str, Body]:
        """The targets in the status of an export, by format and precision."""
        entries = self.get(EXPORTS, name).get("status", {}).get("targets", [])
        return {f"{entry['format']}/{entry['precision']}": entry for entry in entries}

    def wait_for_reason(self, reason: str, name: str = "shapes") -> Body:
        """Wait until the Ready condition has a reason, and return the export."""
        wait_until(f"{name} to be {reason}", lambda: self.ready(name).get("reason") == reason)
        return self.get(EXPORTS, name)

    def reasons_of_events(self) -> set[str]:
        """The reasons in the events of the namespace."""
        return {event["reason"] for event in self.list(EVENTS)}

    def wait_for_event(self, reason: str) -> None:
        """Wait for an event: the operator sends events after it has written the status that they are about."""
        self.wait_for(f"the event {reason}", lambda: reason in self.reasons_of_events())

    def wait_for(self, what: str, is_true: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> None:
        wait_until(what, is_true, seconds)
