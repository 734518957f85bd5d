"""The client of the API server: a few writes, some watches, lists, and a Lease.

Errors are one of four classes, by what can be done about them::

    ClusterError
      UnavailableError      retry later (connection, 429, 5xx, expired credentials), no sooner than the server asks
        ExpiredError        the same, but the list or watch cannot be resumed: list again
      ConflictError         the object, or one that it depends on, has changed: read again
        AlreadyExistsError  an object of that name exists
      NotFoundError         the object, its namespace or its kind does not exist
      RejectedError         the server understood the request and refuses it (400, 403, 413, 422)
        ForbiddenError      the operator may not send it, or not yet: an API server that has just started says so, too
"""

import asyncio
import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse

from modelexport import names
from modelexport.matrix.options import TARGETS_LIMIT
from modelexport.text import clean
from modelexport_operator.kube import watch_stream
from modelexport_operator.kube.clock import ServerClock
from modelexport_operator.kube.encoding import decode, encode
from modelexport_operator.kube.objects import (
    EventObject,
    Job,
    JsonObject,
    KubeObject,
    Lease,
    ModelExportObject,
    ModelExportStatus,
    Workload,
)
from modelexport_operator.kube.partial_decoding import VERSIONS, Decode, decoders_of
from modelexport_operator.kube.pruning import prune_workload
from modelexport_operator.kube.resources import EVENTS, EXPORTS, JOBS, LEASES, WORKLOADS, Kind, Scope, T_co
from modelexport_operator.kube.types import controller_of
from modelexport_operator.kube.watch_stream import Page

logger = logging.getLogger(__name__)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
REQUEST_SECONDS = 30
WATCH_SECONDS = 300
"""How long one connection of a watch is used: a silently broken one is noticed by then."""
LONGEST_PAUSE = 60.0
"""The longest Retry-After that is respected; a server that asks for a day or for infinity is broken."""
MOST_CREATIONS = 32
"""Jobs created concurrently: each connection has a TLS buffer of 256 KiB (asyncio/sslproto.py). The number of workers
limits all other writes, which do not wait for these."""
RECONNECT_SECONDS = 1.0
"""Pause before a watch reconnects whose connection ended without an event."""
PAGE, WHOLE_PAGE = 500, 200
"""Objects per page, as metadata or whole: 500 as in client-go, but a whole Job or Pod has 16 KB, and the memory of the
largest pages that were read at once stays with the process. All pages have to be read within the five minutes for which
an API server keeps a version."""
PAGE_BYTES = 8 << 20
"""Bytes of a page. Users control labels and annotations, up to 1.5 MiB per object (etcd's limit)."""
MOST_JOBS = 3 * TARGETS_LIMIT
"""Jobs labelled with one export, each kept unpruned for a moment: one for each target, one for each that is repeated,
and those of others."""
API_MESSAGE_LIMIT = 4096
"""Characters of an API server's message; users control parts of it, such as names of a webhook's objects."""
EXCERPT_LIMIT = 300
"""Characters that are shown of an unexpected response."""
ALREADY_EXISTS = "AlreadyExists"
"""The API server's reason for one of several kinds of 409 (kubernetes, apimachinery/pkg/apis/meta/v1/types.go)."""
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"
"""Kueue's label for the Job of a Workload (kueue, pkg/controller/constants/constants.go)."""
POD_NOT_MADE = "FailedCreate"
"""The reason of the Job controller's events."""
NOT_AUTHORIZED = re.compile(
    r"User .* cannot \S+ (resource|path) |cannot set blockOwnerDeletion|not yet ready to handle request"
)
"""The messages of a 403 that depend on the roles and caches that the API server has loaded: of its authorizer, of the
admission of owner references, and of any admission plugin that still waits for its caches (kubernetes,
staging/src/k8s.io/apiserver: pkg/endpoints/handlers/responsewriters/errors.go and pkg/admission; and
plugin/pkg/admission/gc/gc_admission.go)."""
TOO_NEW = "Too large resource version"
"""The message of an API server that does not know a version yet, or never will after a restore from a backup
(kubernetes, staging/src/k8s.io/apiserver/pkg/storage/errors.go); client-go matches it, too."""


class ClusterError(Exception):
    """A request that the API server, or the network, did not fulfil."""

    retry_after = 0.0
    """How many seconds the server asks to wait."""


class UnavailableError(ClusterError):
    """A retry can help."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLargeError(UnavailableError):
    """A response is too large or too deeply nested to be read; ``head`` is its start."""

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__(message)
        self.head = head


class ExpiredError(UnavailableError):
    """A list or a watch cannot be resumed: list again."""


class ConflictError(ClusterError):
    """The object has changed since the caller read it."""


class AlreadyExistsError(ConflictError):
    """An object of that name exists."""


class NotFoundError(ClusterError):
    """The object does not exist."""


class RejectedError(ClusterError):
    """The server refuses the request, and the message says why."""


class ForbiddenError(RejectedError):
    """The server denies the operator the right to send the request.

    A server that has just started denies everything until it has loaded its roles. So only a denial that lasts means
    that the right is missing. A quota or an admission policy that refuses an object is a ``RejectedError``.
    """


ERRORS: Mapping[int, type[ClusterError]] = {
    400: RejectedError,
    403: RejectedError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
    413: RejectedError,
    422: RejectedError,
}
"""Any other status that is not a success is ``UnavailableError``."""


@dataclass(frozen=True)
class Listing:
    """The objects that existed at a version: key -> version of the object."""

    version: int
    objects: Mapping[tuple[str, str], int]


class Cluster:
    """The API server as the operator uses it."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        if not isinstance(api.rest_client, _RestClient):
            api.rest_client = _RestClient(api.configuration)
        self._creations = asyncio.Semaphore(MOST_CREATIONS)
        self.clock = ServerClock()
        """The time of the API server."""
        self.seconds_to_write: Callable[[], float] = lambda: math.inf
        """Called before every write except those of the Lease; a write that takes longer is abandoned.

        So a process that was frozen while connecting sends nothing when it wakes up."""

    @property
    def may_write(self) -> bool:
        """Whether a write would be sent now; every writing loop checks it before each round."""
        return self.seconds_to_write() > 0

    @classmethod
    @asynccontextmanager
    async def connect(cls) -> AsyncIterator[Self]:
        """Connect with the service account of the Pod, or else with the user's kubeconfig."""
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 0  # No limit: watches of many namespaces would block other requests.
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        # Otherwise aiohttp looks for a netrc file in a thread before every request: two thirds of its cost.
        configuration.client_session_kwargs = {"trust_env": False}
        async with client.ApiClient(configuration) as api:
            yield cls(api)

    async def create_job(self, job: Job) -> None:
        """Create a Job; raise ``AlreadyExistsError`` if its name is taken.

        A concurrent change of a quota is a conflict, too, and then no Job was created.
        """
        async with self._creations:
            await self._request("POST", JOBS.path(job["metadata"]["namespace"]), job)

    async def find_job(self, namespace: str, name: str) -> Job | None:
        """Return the Job with a name, or ``None``. It is listed, which needs no right beyond those of the watches."""
        async for page in self._pages(JOBS.path(namespace), {"fieldSelector": f"metadata.name={name}"}):
            for job in page.items:
                return JOBS.typed(job)
        return None

    async def read_jobs(self, namespace: str, uid: str) -> list[Job]:
        """Return the unpruned Jobs that are labelled with an export.

        Jobs with another controller are skipped, and so are all beyond ``MOST_JOBS``: any user of the namespace can
        label a Job like this.
        """
        query = {"labelSelector": f"{JOBS.selector},{names.EXPORT_UID_LABEL}={uid}"}
        found: list[Job] = []
        async for page in self._pages(JOBS.path(namespace), query):
            found += (JOBS.typed(job) for job in page.items if controller_of(job) in (None, uid))
            if len(found) > MOST_JOBS:
                logger.warning("more than %d Jobs in %s are labelled with one export", MOST_JOBS, namespace)
                break
        return found[:MOST_JOBS]

    async def read_workloads(self, namespace: str, uids: Iterable[str]) -> list[Workload]:
        """Return the pruned Workloads of these Jobs, at most ``MOST_JOBS``.

        Raises:
            NotFoundError: Kueue is not installed.
            ClusterError: they cannot be listed.
        """
        query = {"labelSelector": f"{WORKLOAD_JOB_LABEL} in ({','.join(sorted(uids))})"}
        found: list[Workload] = []
        async for page in self._pages(WORKLOADS.path(namespace), query):
            found += map(prune_workload, page.items[:MOST_JOBS])
            if len(found) >= MOST_JOBS:
                break
        return found[:MOST_JOBS]

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> None:
        """Suspend or resume a Job."""
        await self._request("PATCH", JOBS.path(namespace, name), {"spec": {"suspend": suspend}})

    async def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job once its Pods are gone."""
        await self._request("DELETE", JOBS.path(namespace, name), {"propagationPolicy": "Foreground"})

    async def write_status(self, export: ModelExportObject, status: ModelExportStatus) -> ModelExportObject:
        """Replace the status of an export and return its new body; ``ConflictError`` if it has changed."""
        metadata = export["metadata"]
        path = EXPORTS.path(metadata["namespace"], metadata["name"], "status")
        # The server keeps the other fields, so they are not sent.
        body = {"apiVersion": names.API_VERSION, "kind": names.EXPORT_KIND, "metadata": metadata, "status": status}
        return _checked(EXPORTS, await self._request("PUT", path, body))

    async def write_finalizers(self, export: ModelExportObject, finalizers: tuple[str, ...]) -> None:
        """Replace the finalizers of this version of an export; ``ConflictError`` if it has changed."""
        metadata = export["metadata"]
        path = EXPORTS.path(metadata["namespace"], metadata["name"])
        change = {"resourceVersion": metadata["resourceVersion"], "finalizers": list(finalizers)}
        await self._request("PATCH", path, {"metadata": change})

    async def delete_export(self, export: ModelExportObject) -> None:
        """Delete this version of an export; its Jobs follow by their owner reference."""
        metadata = export["metadata"]
        version = {key: metadata[key] for key in ("uid", "resourceVersion")}
        body = {"preconditions": version, "propagationPolicy": "Background"}
        await self._request("DELETE", EXPORTS.path(metadata["namespace"], metadata["name"]), body)

    async def create_event(self, event: EventObject) -> None:
        """Create an event, whose name is derived from its content."""
        await self._request("POST", EVENTS.path(event["metadata"]["namespace"]), event)

    async def find_pod_refusal(self, job: Job) -> str | None:
        """Return the Job controller's last message on why it could not create a Pod, or ``None``."""
        metadata = job["metadata"]
        query = {"fieldSelector": f"involvedObject.uid={metadata['uid']},reason={POD_NOT_MADE}"}
        found: list[tuple[str, str]] = []
        async for page in self._pages(EVENTS.path(metadata["namespace"]), query):
            found += [
                (str(e.get("lastTimestamp") or ""), str(e.get("message", ""))) for e in map(EVENTS.typed, page.items)
            ]
            found = sorted(found, key=lambda pair: pair[0])[-1:]
        return clean(found[0][1].removeprefix("Error creating: "), API_MESSAGE_LIMIT) if found else None

    @property
    def token(self) -> str:
        """The bearer token of this process; empty if it authenticates otherwise."""
        return str(self._api.configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")

    async def read_lease(self, namespace: str, name: str) -> Lease:
        """Read a Lease."""
        return _checked(LEASES, await self._request("GET", LEASES.path(namespace, name)))

    async def create_lease(self, lease: Lease) -> Lease:
        """Create a Lease; raise ``AlreadyExistsError`` if it exists."""
        path = LEASES.path(lease["metadata"]["namespace"])
        return _checked(LEASES, await self._request("POST", path, lease, is_lease_write=True))

    async def write_lease(self, lease: Lease) -> Lease:
        """Replace a Lease and return its new body; raise ``ConflictError`` if it has changed."""
        metadata = lease["metadata"]
        path = LEASES.path(metadata["namespace"], metadata["name"])
        return _checked(LEASES, await self._request("PUT", path, lease, is_lease_write=True))

    async def try_list(self, scope: Scope) -> None:
        """Request the first object of a list.

        Raises:
            NotFoundError: its kind is not installed.
            RejectedError: it may not be listed.
            ClusterError: it cannot be listed now.
        """
        await self._request("GET", scope.path, query={**_selection(scope), "limit": "1"}, accept=METADATA_ONLY)

    async def list_versions(self, scope: Scope) -> Listing:
        """List the objects of a scope with their versions; nothing else of them is read."""
        objects: dict[tuple[str, str], int] = {}
        version = 0
        async for page in self.list_objects(scope, is_version_enough=True):
            version = version or int(page.version)
            for item in (*page.items, *([page.skipped] if page.skipped else [])):
                metadata = item["metadata"]
                objects[metadata.get("namespace", ""), metadata["name"]] = int(metadata["resourceVersion"])
            del page
        return Listing(version, objects)

    async def list_objects(
        self, scope: Scope, labels: str = "", *, is_version_enough: bool = False
    ) -> AsyncGenerator[Page]:
        """List the objects of a scope page by page, all at one version.

        No page is older than the call: without ``resourceVersion`` in the request the API server answers from etcd, or
        from a cache that has caught up with it (Kubernetes, API concepts, "Semantics for get and list").

        Args:
            scope: which objects.
            labels: a selector that narrows it.
            is_version_enough: whether to read nothing but names and versions.

        Raises:
            ExpiredError: the list took so long that its version has expired.
            ClusterError: the objects cannot be listed.
        """
        accept, decoders = (METADATA_ONLY, VERSIONS) if is_version_enough else (JSON, decoders_of(scope.resource))
        async for page in self._pages(scope.path, _selection(scope, labels), accept, decoders.page):
            if not page.version.isdecimal() or not all(map(watch_stream.is_object, page.items)):
                raise UnavailableError(f"listing of {scope.resource.plural}: an item has no name or no version")
            yield page
            del page

    async def watch(self, scope: Scope, version: str) -> AsyncIterator[Sequence[tuple[str, KubeObject]]]:
        """Yield every change after a version, in the order of versions: ``ADDED``, ``MODIFIED``, ``DELETED``.

        Changes that arrive together are yielded together. A ``BOOKMARK`` is no change; it carries the version up to
        which the watch has come. When a connection ends, the next one resumes from there. An unreadable object is
        logged and reported as deleted, with only its name and version. The watch ends only by an exception.

        Args:
            scope: which objects.
            version: that of a list. A watch without one would begin with all objects, ordered by name, and could not be
                resumed if its connection ended among them.

        Raises:
            ExpiredError: changes may be lost; list again.
            ClusterError: the watch can resume from the version of the last event.
        """
        while True:
            is_new = True
            async with aclosing(self._watch_once(scope, version)) as batches:
                async for events in batches:
                    version, is_new = events[-1][1]["metadata"]["resourceVersion"], False
                    yield events
            if is_new:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _watch_once(self, scope: Scope, version: str) -> AsyncGenerator[Sequence[tuple[str, KubeObject]]]:
        """Yield the events of one connection of a watch, including bookmarks, those of each piece together."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, **_selection(scope)}
        async with await self._send("GET", scope.path, query=query, seconds=WATCH_SECONDS) as response:
            try:
                async for lines in watch_stream.read_lines(response.content.iter_any()):
                    if events := [event for line in lines if (event := _parse(line, scope))]:
                        yield events
            except TimeoutError:
                return  # The connection was used for its full time.
            except (aiohttp.ClientError, OSError) as error:
                raise UnavailableError(
                    f"watch of {scope.resource.plural}: {clean(repr(error), EXCERPT_LIMIT)}"
                ) from error
            except ValueError as error:
                raise ExpiredError(f"watch of {scope.resource.plural}: {clean(repr(error), EXCERPT_LIMIT)}") from error

    async def _pages(
        self, path: str, query: Mapping[str, str], accept: str = JSON, decode_page: Decode = decode
    ) -> AsyncIterator[Page]:
        """Read a list page by page. With large objects a page has fewer of them: its bytes are limited, not its number.

        An object that cannot be read even alone is skipped and logged.
        """
        largest = PAGE if accept == METADATA_ONLY else WHOLE_PAGE
        size, token = largest, ""
        while True:
            asked = {**query, "limit": str(size), **({"continue": token} if token else {})}
            most = PAGE_BYTES if size > 1 else watch_stream.OBJECT_LIMIT
            try:
                answer = await self._request("GET", path, query=asked, accept=accept, most=most, decoder=decode_page)
                page = watch_stream.parse_page(answer)
            except TooLargeError as error:
                if size > 1:
                    size = max(1, size // 8)
                    continue
                without = watch_stream.skip_page(error.head)
                if without is None or without.skipped is None:
                    raise
                page = without
                logger.error("%s; %s is left out", error, _name_of(without.skipped))
            except ValueError as error:
                raise UnavailableError(f"GET {path}: {error}") from error
            yield page
            size, token = min(2 * size, largest), page.token
            del page  # Otherwise it stays in memory while the next one is read.
            if not token:
                return

    async def _request(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        most: int = watch_stream.OBJECT_LIMIT,
        decoder: Decode = decode,
        is_lease_write: bool = False,
    ) -> JsonObject:
        """Send a request and return its response within the time limit, an object of at most ``most`` bytes."""
        seconds = (
            REQUEST_SECONDS if method == "GET" or is_lease_write else min(REQUEST_SECONDS, self.seconds_to_write())
        )
        if seconds <= 0:
            raise UnavailableError(f"{method} {path}: not sent, because this operator is not the leader")
        try:
            # asyncio's timeout and not aiohttp's, which loses a cancellation that comes in the same turn of the loop
            # (https://github.com/aio-libs/aiohttp/issues/5979): writes time out just as the Lease and their tasks end.
            async with asyncio.timeout(seconds):
                return await _read(await self._send(method, path, body, query=query, accept=accept), most, decoder)
        except TimeoutError as error:
            raise UnavailableError(f"{method} {path}: no answer within {seconds:.1f} s") from error

    async def _send(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        seconds: float | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the unread response if it is a success; ``seconds`` limits both."""
        headers = {"Accept": accept, "Content-Type": MERGE_PATCH if method == "PATCH" else JSON}
        parameters = list((query or {}).items())
        try:
            # The body is plain data: the client's search for its own models in it would cost more than the encoding.
            _, url, headers, _, _ = await self._api.param_serialize(
                method, path, query_params=parameters, header_params=headers, auth_settings=["BearerToken"]
            )
            content = None if body is None else encode(body)
            timeout = aiohttp.ClientTimeout(total=seconds)
            answer = await self._api.call_api(method, url, headers, content, _request_timeout=timeout)
            self.clock.observe(answer.headers.get("Date"))
            if 200 <= answer.status < 300:
                response: aiohttp.ClientResponse = answer.response
                return response
            content = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{method} {path}: {error!r}") from error
        raise _map_error(f"{method} {path}", answer.status, answer.headers, content)


class _RestClient(RESTClientObject):  # type: ignore[misc]  # It has no types.
    """Sends bodies that are already bytes; the client of the library would encode them as JSON again, and slower."""

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
        """Send a request through the proxy and with the server name of the kubeconfig."""
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


async def _read(response: aiohttp.ClientResponse, most: int, decoder: Decode) -> JsonObject:
    """Read a response, an object of at most so many bytes.

    Reading it to the end also frees its connection.
    """
    what = f"{response.method} {response.url.path}"
    content = bytearray()
    async with response:
        try:
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > most:
                    raise TooLargeError(
                        f"{what}: the response has more than {most} bytes", bytes(content[: watch_stream.HEAD])
                    )
            answer = decoder(content)
        except RecursionError as error:
            raise TooLargeError(
                f"{what}: the response is nested too deeply", bytes(content[: watch_stream.HEAD])
            ) from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(f"{what}: {clean(repr(error), EXCERPT_LIMIT)}") from error
    if not isinstance(answer, Mapping):
        raise UnavailableError(f"{what}: the response is not an object")
    return answer


def _checked(kind: Kind[T_co], answer: JsonObject) -> T_co:
    """Return the body of one object with its type.

    Raises:
        UnavailableError: something between here and the API server has changed the response.
    """
    if not watch_stream.is_object(answer):
        raise UnavailableError(f"{kind.plural}: the response has no name or no version")
    return kind.typed(answer)


def _selection(scope: Scope, labels: str = "") -> dict[str, str]:
    """Return the query that selects the objects of a scope."""
    selectors = ",".join(filter(None, (scope.resource.selector, labels)))
    return {"labelSelector": selectors} if selectors else {}


def _name_of(stub: KubeObject) -> str:
    return "/".join(stub["metadata"][key] for key in ("namespace", "name"))


def _parse(line: watch_stream.Line, scope: Scope) -> tuple[str, KubeObject] | None:
    """Parse a line as an event; ``None`` if its object cannot even be identified.

    Raises:
        ExpiredError: the server reports that the watch is lost.
        ValueError: the line is not an event.
    """
    try:
        return watch_stream.parse_event(line, decoders_of(scope.resource).event)
    except watch_stream.UnreadableError as error:
        name = _name_of(error.stub) if error.stub else "an object"
        logger.error("%s: %s %s; it is left out", scope.resource.plural, name, error)
        return ("DELETED", error.stub) if error.stub else None
    except watch_stream.WatchEndedError as error:
        status = error.status
        words = ": ".join(str(status[key]) for key in ("code", "reason", "message") if key in status)
        raise ExpiredError(
            f"watch of {scope.resource.plural}: {clean(words, EXCERPT_LIMIT) or 'an error without a message'}"
        ) from error


def _map_error(what: str, status: int, headers: Mapping[str, str], content: bytes) -> ClusterError:
    try:
        answer: Any = decode(content)
        words, reason = clean(str(answer["message"]), API_MESSAGE_LIMIT), str(answer.get("reason", ""))
    except (ValueError, TypeError, KeyError, RecursionError):
        words, reason = clean(content[:EXCERPT_LIMIT].decode(errors="replace")), ""
    message = f"{what}: {status}: {words}"
    kind = AlreadyExistsError if reason == ALREADY_EXISTS else ExpiredError if TOO_NEW in words else ERRORS.get(status)
    if status == 403 and NOT_AUTHORIZED.search(words):
        kind = ForbiddenError
    if kind is not None:
        return kind(words if issubclass(kind, RejectedError) else message)
    return UnavailableError(message, _seconds(headers.get("Retry-After")))


def _seconds(text: str | None) -> float:
    """Parse ``Retry-After``; of its two forms API servers use the seconds."""
    return min(float(text), LONGEST_PAUSE) if text and text.isdecimal() else 0.0
