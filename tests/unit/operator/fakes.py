"""A fake cluster that records writes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from modelexport_operator.kube.client import ClusterError
from modelexport_operator.kube.resources import JOBS, WORKLOADS, Resource, Scope
from modelexport_operator.kube.watch_stream import Page
from testplane.objects import Body


class FakeCluster:
    """Records writes, lists the objects in ``there``, and fails where the test wants it."""

    def __init__(self) -> None:
        self.may_write = True
        self.calls: list[str] = []
        self.asked: list[str] = []
        self.there: dict[Resource, list[Body]] = {}
        self.fail: Callable[[str], ClusterError | None] = lambda _: None
        self.status: Body = {}
        self.jobs: list[Body] = []
        self.created: list[Body] = []

    async def _call(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(0)
        if error := self.fail(what):
            raise error

    async def create_job(self, job: Body) -> None:
        await self._call(f"create {job['metadata']['labels'].get('modelexport.dev/precision', 'clean-up')}")
        self.created.append(job)

    async def list_objects(self, scope: Scope, labels: str = "") -> AsyncIterator[Page]:
        self.asked.append(f"list {scope.resource.plural} {labels}".strip())
        await asyncio.sleep(0)
        if error := self.fail(f"list {scope.resource.plural}"):
            raise error
        for body in self.there.get(scope.resource, []):
            yield Page("1000", [body], "more")
        yield Page("1000")

    async def find_job(self, namespace: str, name: str) -> Body | None:
        self.asked.append(f"find {namespace}/{name}")
        await asyncio.sleep(0)
        return next((job for job in self.there.get(JOBS, []) if job["metadata"]["name"] == name), None)

    async def read_jobs(self, namespace: str, uid: str) -> list[Body]:
        return [job for job in self.jobs if job["metadata"]["labels"]["modelexport.dev/export-uid"] == uid]

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> None:
        await self._call(f"suspend {suspend}")

    async def delete_job(self, namespace: str, name: str) -> None:
        await self._call(f"delete {namespace}/{name}")

    async def write_status(self, export: Body, status: Body) -> Body:
        await self._call("status")
        self.status = status
        version = str(int(export["metadata"]["resourceVersion"]) + 1)
        return {**export, "status": status, "metadata": {**export["metadata"], "resourceVersion": version}}

    async def write_finalizers(self, export: Body, finalizers: tuple[str, ...]) -> None:
        await self._call(f"finalizers {' '.join(finalizers)}".strip())

    async def delete_export(self, export: Body) -> None:
        await self._call("delete")

    async def find_pod_refusal(self, job: Body) -> str | None:
        await self._call("ask why")
        return 'pods "shapes" is forbidden: exceeded quota'

    async def read_workloads(self, namespace: str, uids: Collection[str]) -> list[Body]:
        self.asked.append(f"workloads {namespace} {' '.join(sorted(uids))}")
        await asyncio.sleep(0)
        if error := self.fail("list workloads"):
            raise error
        return self.there.get(WORKLOADS, [])

    async def create_event(self, event: Body) -> None:
        await self._call(f"event {event['reason']}")


def at(body: Body, version: int) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
