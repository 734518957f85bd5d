"""The only place that calls the Kubernetes API by itself: a few writes, some watches, listings to compare them with,
and a Lease.

Errors leave as one of four classes, by what can be done about them::

    ClusterError
      UnavailableError  try again later (connection, 429, 5xx, expired credentials), no sooner than the server asks
        ExpiredError    the same, but what was read cannot be gone on with: list again
      ConflictError     the object, or one that it depends on, has changed; look again
        ExistsError     there is one of that name already
      GoneError         the object, its namespace or its kind does not exist
      RefusedError      the server understood, and will not do it (400, 403, 413, 422)
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse

from modelexport import names
from modelexport.text import clean
from modelexport_operator import stream
from modelexport_operator.clock import ServerClock
from modelexport_operator.encoding import decode, encode
from modelexport_operator.owners import controller_of
from modelexport_operator.pods import Object
from modelexport_operator.resources import EVENTS, EXPORTS, JOBS, LEASES, Scope
from modelexport_operator.stream import Page

logger = logging.getLogger(__name__)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
REQUEST_SECONDS = 30
WATCH_SECONDS = 300
"""How long one connection of a watch is used: one that was cut without a word is noticed by then."""
LONGEST_PAUSE = 60.0
"""Seconds that a server may ask for; one that asks for a day, or for infinity, is not believed."""
RECONNECT_SECONDS = 1.0
"""Before a watch is opened again whose connection ended without a word."""
PAGE = 500
PAGE_BYTES = 8 << 20
"""Of a page of a list. Labels and annotations are the users', up to 1.5 MiB for each object (etcd's limit)."""
MOST_JOBS = 30
"""Labelled with one export, of which nine can be its own: each is kept in full for a moment."""
WORDS_LIMIT = 4096
"""Characters of the API server's words; some of them are a user's, such as the name of a webhook's object."""
SHOWN = 300
"""Characters of an answer that nobody understands."""
ALREADY_EXISTS = "AlreadyExists"
"""Reason of the API server for one of several kinds of 409 (kubernetes, apimachinery/pkg/apis/meta/v1/types.go)."""
POD_NOT_MADE = "FailedCreate"
"""Reason of the Job controller's events."""
TOO_NEW = "Too large resource version"
"""Words of an API server that does not know a version yet, or after a restore from a backup never will (kubernetes,
staging/src/k8s.io/apiserver/pkg/storage/errors.go); client-go goes by them too."""


class ClusterError(Exception):
    """Something that the API server, or the way to it, did not do."""

    retry_after = 0.0
    """How many seconds the server wants to be left alone for."""


class UnavailableError(ClusterError):
    """Trying again can help."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLargeError(UnavailableError):
    """An answer has more bytes, or is nested more deeply, than what is read; ``head`` is its beginning."""

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__(message)
        self.head = head


class ExpiredError(UnavailableError):
    """A list or a watch cannot go on from where it was: list again."""


class ConflictError(ClusterError):
    """The object is not what the caller saw."""


class ExistsError(ConflictError):
    """An object of that name is there already."""


class GoneError(ClusterError):
    """What is asked for does not exist."""


class RefusedError(ClusterError):
    """The server will not do it, and says why."""


ERRORS: Mapping[int, type[ClusterError]] = {
    400: RefusedError,
    403: RefusedError,
    404: GoneError,
    409: ConflictError,
    410: ExpiredError,
    413: RefusedError,
    422: RefusedError,
}
"""Every other status that is not a success is ``UnavailableError``."""


@dataclass(frozen=True)
class Listing:
    """What existed at a version: key -> version of the object."""

    version: int
    objects: Mapping[tuple[str, str], int]


class Cluster:
    """The API server as the operator uses it."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        if not isinstance(api.rest_client, _RestClient):
            api.rest_client = _RestClient(api.configuration)
        self.clock = ServerClock()
        """What time it is for the API server."""
        self.seconds_to_write: Callable[[], float] = lambda: math.inf
        """Asked before every write but those of the Lease; a write that takes longer is given up.

        A process that was frozen while it connected thereby sends nothing when it wakes up.
        """

    @property
    def may_write(self) -> bool:
        """Whether a write would be sent now; every loop that writes asks before each round, and ends if not."""
        return self.seconds_to_write() > 0

    @classmethod
    @asynccontextmanager
    async def connect(cls) -> AsyncIterator[Self]:
        """Connect by the service account of the Pod, or else by the kubeconfig of the user."""
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 0  # no limit: watches of many namespaces would leave no room for others
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        # With it aiohttp looks for a netrc file in a thread before every request: two thirds of what a request costs.
        configuration.client_session_kwargs = {"trust_env": False}
        async with client.ApiClient(configuration) as api:
            yield cls(api)

    async def create_job(self, job: Object) -> None:
        """Create a Job; ``ExistsError`` when there is one of its name.

        A quota that changes meanwhile is a conflict, too, and then there is no Job.
        """
        await self._request("POST", JOBS.path(job["metadata"]["namespace"]), job)

    async def find_job(self, namespace: str, name: str) -> Object | None:
        """Return the Job of a name, if there is one. It is listed, so that no right is needed that watches do not."""
        async for page in self._pages(JOBS.path(namespace), {"fieldSelector": f"metadata.name={name}"}):
            for job in page.items:
                return job
        return None

    async def read_jobs(self, namespace: str, uid: str) -> list[Object]:
        """The Jobs that are labelled with an export, in full; of what the watch tells only a part is kept.

        Those that something else controls are left out, and of the rest what comes after ``MOST_JOBS``: anybody in the
        namespace can label a Job like this.
        """
        query = {"labelSelector": f"{JOBS.selector},{names.EXPORT_UID_LABEL}={uid}"}
        found: list[Object] = []
        async for page in self._pages(JOBS.path(namespace), query):
            found += (job for job in page.items if controller_of(job) in (None, uid))
            if len(found) > MOST_JOBS:
                logger.warning("more than %d Jobs in %s are labelled with one export", MOST_JOBS, namespace)
                break
        return found[:MOST_JOBS]

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> None:
        """Suspend a Job or let it go on."""
        await self._request("PATCH", JOBS.path(namespace, name), {"spec": {"suspend": suspend}})

    async def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job; it goes when its Pods are gone."""
        await self._request("DELETE", JOBS.path(namespace, name), {"propagationPolicy": "Foreground"})

    async def write_status(self, export: Object, status: Object) -> Object:
        """Replace the status of an export and return its new body; ``ConflictError`` when it has changed."""
        metadata = export["metadata"]
        path = EXPORTS.path(metadata["namespace"], metadata["name"], "status")
        # The server keeps the rest as it is, and need not be sent it.
        body = {"apiVersion": names.API_VERSION, "kind": names.EXPORT_KIND, "metadata": metadata, "status": status}
        return await self._request("PUT", path, body)

    async def write_finalizers(self, export: Object, finalizers: tuple[str, ...]) -> None:
        """Replace the finalizers of this very version of an export; ``ConflictError`` when it has changed."""
        metadata = export["metadata"]
        path = EXPORTS.path(metadata["namespace"], metadata["name"])
        change = {"resourceVersion": metadata["resourceVersion"], "finalizers": list(finalizers)}
        await self._request("PATCH", path, {"metadata": change})

    async def delete_export(self, export: Object) -> None:
        """Delete this very version of an export; its Jobs follow by their owner reference."""
        metadata = export["metadata"]
        version = {key: metadata[key] for key in ("uid", "resourceVersion")}
        body = {"preconditions": version, "propagationPolicy": "Background"}
        await self._request("DELETE", EXPORTS.path(metadata["namespace"], metadata["name"]), body)

    async def create_event(self, event: Object) -> None:
        """Create an event; its name tells its content."""
        await self._request("POST", EVENTS.path(event["metadata"]["namespace"]), event)

    async def find_pod_refusal(self, job: Object) -> str | None:
        """The Job controller's last words on why it could make no Pod for a Job; ``None`` if it has said nothing."""
        metadata = job["metadata"]
        query = {"fieldSelector": f"involvedObject.uid={metadata['uid']},reason={POD_NOT_MADE}"}
        told: list[tuple[str, str]] = []
        async for page in self._pages(EVENTS.path(metadata["namespace"]), query):
            told += [(str(e.get("lastTimestamp") or ""), str(e.get("message", ""))) for e in page.items]
            told = sorted(told, key=lambda pair: pair[0])[-1:]
        return clean(told[0][1].removeprefix("Error creating: "), WORDS_LIMIT) if told else None

    @property
    def token(self) -> str:
        """The token by which the API server knows this process; empty when it is known otherwise."""
        return str(self._api.configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")

    async def read_lease(self, namespace: str, name: str) -> Object:
        """Read a Lease."""
        return await self._request("GET", LEASES.path(namespace, name))

    async def create_lease(self, lease: Object) -> Object:
        """Create a Lease; ``ExistsError`` when there is one."""
        path = LEASES.path(lease["metadata"]["namespace"])
        return await self._request("POST", path, lease, is_claim=True)

    async def write_lease(self, lease: Object) -> Object:
        """Replace a Lease and return its new body; ``ConflictError`` when it has changed."""
        metadata = lease["metadata"]
        path = LEASES.path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, lease, is_claim=True)

    async def list_versions(self, scope: Scope) -> Listing:
        """List which objects of a scope exist, and in which version; nothing else of them is read."""
        objects: dict[tuple[str, str], int] = {}
        version = 0
        async for page in self.list_objects(scope, accept=METADATA_ONLY):
            version = version or int(page.version)
            for item in (*page.items, *([page.left_out] if page.left_out else [])):
                metadata = item["metadata"]
                objects[metadata.get("namespace", ""), metadata["name"]] = int(metadata["resourceVersion"])
        return Listing(version, objects)

    async def list_objects(self, scope: Scope, labels: str = "", accept: str = JSON) -> AsyncIterator[Page]:
        """List the objects of a scope page by page, as they all were at one version.

        No page is older than the call: without ``resourceVersion`` in the request the API server answers from etcd, or
        from a cache that has caught up with it (Kubernetes, API concepts, "Semantics for get and list").

        Args:
            scope: which objects.
            labels: a selector that narrows it.
            accept: the form in which they come.

        Raises:
            ExpiredError: it took so long that the version is forgotten.
            ClusterError: there is no list.
        """
        selectors = ",".join(filter(None, (scope.resource.selector, labels)))
        async for page in self._pages(scope.path, {"labelSelector": selectors} if selectors else {}, accept):
            if not page.version.isdecimal() or not all(map(stream.is_object, page.items)):
                raise UnavailableError(f"listing of {scope.resource.plural}: an item has no name or no version")
            yield page

    async def watch(self, scope: Scope, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Tell of every change after a version in the order of versions: ``ADDED``, ``MODIFIED``, ``DELETED``.

        ``BOOKMARK`` tells of none, but how far the watch has come. Connections that end are followed by others that go
        on from there. An object that cannot be read is told as deleted, with nothing but its name and version, and
        logged. Ends by an exception only.

        Args:
            scope: which objects.
            version: that of a list. A watch without one would begin with all objects, in the order of their names, and
                where its connection ended among them, nobody could say from which version to go on.

        Raises:
            ExpiredError: changes may be lost; a new list tells of everything again.
            ClusterError: it can go on from the version of the last event.
        """
        while True:
            is_new = True
            async with aclosing(self._hear(scope, version)) as events:
                async for change, body in events:
                    version, is_new = body["metadata"]["resourceVersion"], False
                    yield change, body
            if is_new:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear(self, scope: Scope, version: str) -> AsyncGenerator[tuple[str, Object]]:
        """Tell what one connection of a watch tells, bookmarks too."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        if scope.resource.selector:
            query["labelSelector"] = scope.resource.selector
        async with await self._send("GET", scope.path, query=query, seconds=WATCH_SECONDS) as response:
            try:
                async for line in stream.read_lines(response.content.iter_any()):
                    event = _parse(line, scope)
                    if event is not None:
                        yield event
            except TimeoutError:
                return  # it was open for as long as one is used
            except (aiohttp.ClientError, OSError) as error:
                raise UnavailableError(f"watch of {scope.resource.plural}: {clean(repr(error), SHOWN)}") from error
            except ValueError as error:
                raise ExpiredError(f"watch of {scope.resource.plural}: {clean(repr(error), SHOWN)}") from error

    async def _pages(self, path: str, query: Mapping[str, str], accept: str = JSON) -> AsyncIterator[Page]:
        """Read a list page by page. Where objects are large a page has fewer: its bytes are bounded, not its number.

        An object that cannot even be read alone is left out and logged, and the others are listed.
        """
        size, token = PAGE, ""
        while True:
            asked = {**query, "limit": str(size), **({"continue": token} if token else {})}
            most = PAGE_BYTES if size > 1 else stream.OBJECT_LIMIT
            try:
                page = stream.parse_page(await self._request("GET", path, query=asked, accept=accept, most=most))
            except TooLargeError as error:
                if size > 1:
                    size = max(1, size // 8)
                    continue
                page = _skip(error)
            except ValueError as error:
                raise UnavailableError(f"GET {path}: {error}") from error
            yield page
            size, token = min(2 * size, PAGE), page.token
            if not token:
                return

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        most: int = stream.OBJECT_LIMIT,
        is_claim: bool = False,
    ) -> Object:
        """Send a request and return what it is answered in time, an object of at most ``most`` bytes."""
        seconds = REQUEST_SECONDS if method == "GET" or is_claim else min(REQUEST_SECONDS, self.seconds_to_write())
        if seconds <= 0:
            raise UnavailableError(f"{method} {path}: not sent, because this operator does not lead")
        try:
            # asyncio's timeout and not aiohttp's, which loses a cancellation that comes in the same turn of the loop
            # (https://github.com/aio-libs/aiohttp/issues/5979): writes time out just as the Lease and their tasks end.
            async with asyncio.timeout(seconds):
                return await _read(await self._send(method, path, body, query=query, accept=accept), most)
        except TimeoutError as error:
            raise UnavailableError(f"{method} {path}: no answer within {seconds:.1f} s") from error

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        seconds: float | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the answer, not read yet, if it is a success; ``seconds`` bound both."""
        headers = {"Accept": accept, "Content-Type": MERGE_PATCH if method == "PATCH" else JSON}
        parameters = list((query or {}).items())
        try:
            # The body is plain data: the client's search for its own models in it would cost more than the writing.
            _, url, headers, _, _ = await self._api.param_serialize(
                method, path, query_params=parameters, header_params=headers, auth_settings=["BearerToken"]
            )
            content = None if body is None else encode(body)
            timeout = aiohttp.ClientTimeout(total=seconds)
            answer = await self._api.call_api(method, url, headers, content, _request_timeout=timeout)
            self.clock.hear(answer.headers.get("Date"))
            if 200 <= answer.status < 300:
                response: aiohttp.ClientResponse = answer.response
                return response
            content = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{method} {path}: {error!r}") from error
        raise _map_error(f"{method} {path}", answer.status, answer.headers, content)


class _RestClient(RESTClientObject):  # type: ignore[misc]  # It has no types.
    """Sends bodies that are bytes already; that of the library would write them as JSON once more, and slower."""

    pool_manager: aiohttp.ClientSession | None

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        post_params: None = None,
        _request_timeout: aiohttp.ClientTimeout | None = None,
    ) -> Any:
        """Send a request by the proxy and to the name that the kubeconfig gives."""
        self.pool_manager = self.pool_manager or self._create_pool_manager()
        response = await self.pool_manager.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=_request_timeout,
            proxy=self.proxy,
            proxy_headers=self.proxy_headers,
            server_hostname=self.configuration.tls_server_name,
        )
        return RESTResponse(response)


async def _read(response: aiohttp.ClientResponse, most: int) -> Object:
    """Return what a request was answered, an object of at most so many bytes.

    Reading to the end is also what frees its connection.
    """
    what = f"{response.method} {response.url.path}"
    content = bytearray()
    async with response:
        try:
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > most:
                    raise TooLargeError(f"{what}: the answer has more than {most} bytes", bytes(content[: stream.HEAD]))
            answer = decode(content)
        except RecursionError as error:
            raise TooLargeError(f"{what}: the answer is nested too deeply", bytes(content[: stream.HEAD])) from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(f"{what}: {clean(repr(error), SHOWN)}") from error
    if not isinstance(answer, Mapping):
        raise UnavailableError(f"{what}: the answer is no object")
    return answer


def _skip(error: TooLargeError) -> Page:
    """Return a page of one object, which cannot be read, without it."""
    page = stream.skip_page(error.head)
    if page is None or page.left_out is None:
        raise error
    logger.error("%s; %s is left out", error, _spell(page.left_out))
    return page


def _spell(stub: Object) -> str:
    return "/".join(stub["metadata"][key] for key in ("namespace", "name"))


def _parse(line: stream.Line, scope: Scope) -> tuple[str, Object] | None:
    """Return the event that a line tells; ``None`` where it tells of an object that cannot even be named.

    Raises:
        ExpiredError: the server says that the watch is lost.
        ValueError: the line is no event.
    """
    try:
        change, body = stream.parse_event(line)
    except stream.UnreadableError as error:
        name = _spell(error.stub) if error.stub else "an object"
        logger.error("%s: %s %s; it is left out", scope.resource.plural, name, error)
        return ("DELETED", error.stub) if error.stub else None
    if change == stream.ERROR:
        words = ": ".join(str(body[key]) for key in ("code", "reason", "message") if key in body)
        raise ExpiredError(f"watch of {scope.resource.plural}: {clean(words, SHOWN) or 'an error without a word'}")
    return change, body


def _map_error(what: str, status: int, headers: Mapping[str, str], content: bytes) -> ClusterError:
    words, reason = _words(content)
    message = f"{what}: {status}: {words}"
    kind = ExistsError if reason == ALREADY_EXISTS else ExpiredError if TOO_NEW in words else ERRORS.get(status)
    if kind is not None:
        return kind(words if kind is RefusedError else message)
    return UnavailableError(message, _seconds(headers.get("Retry-After")))


def _words(content: bytes) -> tuple[str, str]:
    """The message and the reason of a Status object; of anything else its beginning, and no reason."""
    try:
        answer: Any = decode(content)
        return clean(str(answer["message"]), WORDS_LIMIT), str(answer.get("reason", ""))
    except (ValueError, TypeError, KeyError, RecursionError):
        return clean(content[:SHOWN].decode(errors="replace")), ""


def _seconds(text: str | None) -> float:
    """Read ``Retry-After``; of its two forms API servers use the seconds."""
    return min(float(text), LONGEST_PAUSE) if text and text.isdecimal() else 0.0
