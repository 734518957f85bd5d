"""The clients of a cluster: ``Client``, and ``AsyncClient`` with the same methods for event loops."""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from modelexport.api.body import export_body
from modelexport.api.fields import InvalidSpec
from modelexport.api.spec import ModelExport, parse_export
from modelexport.building import check_export
from modelexport.client.cluster import Body
from modelexport.client.display import StatusDisplay
from modelexport.client.downloads import downloads, uris_of
from modelexport.client.kubernetes_api import CONFLICT, KubernetesApi
from modelexport.client.links import Signer
from modelexport.client.reports import read_report, report_uris_of
from modelexport.client.status import ExportStatus
from modelexport.client.transfer import open_url
from modelexport.console import open_console
from modelexport.crds.strict import read_export
from modelexport.errors import BadInput, ClusterError, ModelExportError
from modelexport.published import choose

POLL_SECONDS = 2.0
OUTAGE_TOLERANCE_SECONDS = 120.0
"""How long ``wait`` goes on while the API server does not answer."""
Export = str | ModelExport | ExportStatus


class Client:
    """Exports on a cluster, in one namespace and with the rights of the user.

    Inside a Pod, the service account is used; elsewhere the kubeconfig, as by kubectl. Use it as a context manager, or
    call ``close``. Every method raises ``ModelExportError`` or one of its kinds, with the field and the way out.
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        endpoint: str | None = None,
        ca_file: str | Path | None = None,
    ) -> None:
        """Connect to a cluster.

        Args:
            namespace: the namespace; by default that of the context or of the Pod.
            kubeconfig: a kubeconfig file; by default ``KUBECONFIG`` or ``~/.kube/config``.
            context: a context of it; by default the current one.
            endpoint: URL of the store from this machine; by default that of the ExportClass.
            ca_file: certificate authority of the store; by default the system's.

        Raises:
            BadInput: no cluster is configured, or ``ca_file`` is no certificate.
        """
        try:
            self._trust = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except OSError as error:
            raise BadInput(f"ca_file: {ca_file} is not a file of certificates: {error}", field="ca_file") from error
        self._endpoint = endpoint
        self._api = KubernetesApi.connect(None if kubeconfig is None else str(kubeconfig), context, namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    @property
    def namespace(self) -> str:
        """The namespace of all exports of this client."""
        return self._api.namespace

    def submit(self, export: ModelExport | Mapping[str, Any]) -> ExportStatus:
        """Create an export in the namespace of the client. An equal one that exists is returned as it is.

        Args:
            export: of ``modelexport.export``, or the body of a ModelExport.

        Raises:
            BadInput: the export is invalid, or another one has its name.
            ClusterError: the API server refuses it.
        """
        wanted, body = self._read(export)
        try:
            return ExportStatus.read(self._api.create_export(body))
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
        found = self._api.read_export(wanted.name)
        if not _has_spec_of(found, wanted):
            problem = f"{self.namespace}/{wanted.name} exists with another spec; use another name, or delete it first"
            raise BadInput(f"metadata.name: {problem}", field="metadata.name")
        return ExportStatus.read(found)

    def _read(self, export: ModelExport | Mapping[str, Any]) -> tuple[ModelExport, Body]:
        """Return an export and its body, after a check that it is valid and meant for this namespace."""
        if isinstance(export, Mapping):
            metadata = export.get("metadata")
            named = {"namespace": self.namespace, **metadata} if isinstance(metadata, Mapping) else metadata
            body = {**export, "metadata": named}
            try:
                wanted = check_export(read_export(body))
            except InvalidSpec as error:
                raise BadInput.from_spec(error) from error
        else:
            namespace = export.namespace if export.namespace != "default" else self.namespace
            wanted = check_export(replace(export, namespace=namespace))
            body = export_body(wanted)
        if wanted.namespace != self.namespace:
            problem = f"{wanted.namespace!r} is not the namespace of this client, {self.namespace!r}"
            way_out = f"use Client(namespace={wanted.namespace!r})"
            raise BadInput(f"metadata.namespace: {problem}; {way_out}", field="metadata.namespace")
        return wanted, body

    def status(self, export: Export) -> ExportStatus:
        """Return the status of an export.

        Raises:
            ClusterError: it does not exist, or the user may not read it.
        """
        return ExportStatus.read(self._api.read_export(_name_of(export)))

    def list(self) -> tuple[ExportStatus, ...]:
        """Return the status of every export of the namespace."""
        return tuple(map(ExportStatus.read, self._api.list_exports()))

    def delete(self, export: Export) -> None:
        """Delete an export; its files stay, unless its ``deletionPolicy`` is ``Delete``."""
        self._api.delete_export(_name_of(export))

    def wait(
        self, export: Export, *, timeout: float | None = None, progress: bool = True, check: bool = True
    ) -> ExportStatus:
        """Wait until every target is published, or the export has failed, and return its status.

        Args:
            export: the export.
            timeout: seconds; by default without limit, but never for an export that has failed or is suspended.
            progress: whether to show progress, as a table in a terminal or a notebook and as lines elsewhere.
            check: whether a failed export raises.

        Raises:
            ExportFailed: a target failed; the message has its reason and the way out.
            ModelExportError: the time is up, the export is suspended or was deleted.
        """
        with _Waiting(self, export, timeout, progress) as waiting:
            while (status := waiting.step()) is None:
                time.sleep(POLL_SECONDS)
        return status.check() if check else status

    def download(
        self, export: Export, target: str | None = None, output: str | Path = ".", *, progress: bool = True
    ) -> dict[str, Path]:
        """Download the published files and check the SHA-256 of each; an interrupted download resumes.

        Args:
            export: the export.
            target: one target such as ``LiteRT/INT8``; by default all that are published.
            output: the folder.
            progress: whether to show progress.

        Returns:
            The path of each file by its target.

        Raises:
            BadInput: nothing is published, or not this target.
            TransferError: a file cannot be downloaded or is not the published one.
        """
        body = self._api.read_export(_name_of(export))
        chosen = choose(ExportStatus.read(body).targets, target)
        links = Signer(self._api, body, self._endpoint).sign(uris_of(chosen))
        console = open_console(error_stream=True) if progress else Console(quiet=True)
        found = {}
        for one in downloads(chosen, {uri: open_url(link, self._trust) for uri, link in links.items()}):
            found[one.target] = one.path_in(Path(output))
            one.fetch(found[one.target], console)
        return found

    def report(self, export: Export, target: str) -> Mapping[str, Any]:
        """Return the report of a published target: what was verified on which images, versions, seconds, memory.

        Raises:
            BadInput: the target is not published.
            TransferError: the report cannot be downloaded, or is of another file.
        """
        body = self._api.read_export(_name_of(export))
        (one,) = choose(ExportStatus.read(body).targets, target)
        links = Signer(self._api, body, self._endpoint).sign(report_uris_of([one]))
        return read_report(one, {uri: open_url(link, self._trust) for uri, link in links.items()})


def _has_spec_of(found: Body, wanted: ModelExport) -> bool:
    """Return whether an existing export asks for the same as another one."""
    try:
        return bool(export_body(parse_export(found))["spec"] == export_body(wanted)["spec"])
    except InvalidSpec:
        return False  # of another version


def _name_of(export: Export) -> str:
    return export if isinstance(export, str) else export.name


class _Waiting:
    """The state of ``wait``: shows each status and decides when it ends."""

    def __init__(self, client: Client, export: Export, timeout: float | None, progress: bool) -> None:
        self._client = client
        self._name = _name_of(export)
        self._uid: str | None = None
        self._end = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._answered = time.monotonic()
        self._display = StatusDisplay(open_console(error_stream=True) if progress else Console(quiet=True))

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.__exit__()

    def step(self) -> ExportStatus | None:
        """Return the last status, or ``None`` while there is something to wait for."""
        status = self._observe()
        if status is not None and status.finished:
            return status
        if status is not None and status.suspended:
            raise ModelExportError(f"{self._name} is suspended; set spec.suspend to false and wait again")
        if self._end is not None and time.monotonic() > self._end:
            state = f"{status.reason}: {status.message}" if status else "the API server did not answer"
            raise ModelExportError(f"{self._name} has not ended within {self._timeout:g} s ({state}); wait longer")
        return None

    def _observe(self) -> ExportStatus | None:
        """Read the status; ``None`` if the API server does not answer, for at most ``OUTAGE_TOLERANCE_SECONDS``."""
        try:
            status = self._client.status(self._name)
        except ClusterError as error:
            if error.can_pass and time.monotonic() - self._answered < OUTAGE_TOLERANCE_SECONDS:
                return None
            raise
        self._answered = time.monotonic()
        if self._uid not in (None, status.uid):
            raise ModelExportError(f"{self._name} was deleted and created anew; wait for the new one")
        self._uid = status.uid
        self._display.show(status)
        return status


class AsyncClient:
    """The methods of ``Client`` for an event loop, each in a thread of its own.

    A cancelled call returns at once; a request that is under way ends within its 30 seconds.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def connect(
        cls,
        *,
        namespace: str | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        endpoint: str | None = None,
        ca_file: str | Path | None = None,
    ) -> Self:
        """Connect to a cluster; the arguments are those of ``Client``."""

        def connect() -> Client:
            return Client(
                namespace=namespace, kubeconfig=kubeconfig, context=context, endpoint=endpoint, ca_file=ca_file
            )

        return cls(await asyncio.to_thread(connect))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    @property
    def namespace(self) -> str:
        """The namespace of all exports of this client."""
        return self._client.namespace

    async def submit(self, export: ModelExport | Mapping[str, Any]) -> ExportStatus:
        """Create an export; see ``Client.submit``."""
        return await asyncio.to_thread(self._client.submit, export)

    async def status(self, export: Export) -> ExportStatus:
        """Return the status of an export; see ``Client.status``."""
        return await asyncio.to_thread(self._client.status, export)

    async def list(self) -> Sequence[ExportStatus]:
        """Return the status of every export of the namespace."""
        return await asyncio.to_thread(self._client.list)

    async def delete(self, export: Export) -> None:
        """Delete an export; see ``Client.delete``."""
        await asyncio.to_thread(self._client.delete, export)

    async def wait(
        self, export: Export, *, timeout: float | None = None, progress: bool = False, check: bool = True
    ) -> ExportStatus:
        """Wait until an export has ended; see ``Client.wait``. Several can wait at once, so progress is off."""
        with _Waiting(self._client, export, timeout, progress) as waiting:
            while (status := await asyncio.to_thread(waiting.step)) is None:
                await asyncio.sleep(POLL_SECONDS)
        return status.check() if check else status

    async def download(
        self, export: Export, target: str | None = None, output: str | Path = ".", *, progress: bool = False
    ) -> dict[str, Path]:
        """Download the published files; see ``Client.download``."""
        return await asyncio.to_thread(self._client.download, export, target, output, progress=progress)

    async def report(self, export: Export, target: str) -> Mapping[str, Any]:
        """Return the report of a published target; see ``Client.report``."""
        return await asyncio.to_thread(self._client.report, export, target)
