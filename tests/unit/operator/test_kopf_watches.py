"""The real kopf, with an API server within the test's event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import kopf
import pytest

from benchmarks.operator.fake_api import FakeApi, serve
from modelexport_operator.kube.client import Cluster
from modelexport_operator.kube.resources import CLASSES, EXPORTS
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime import kopf_watches
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.runtime.kopf_watches import build_registry, watch_forever
from testplane.control_plane import write_kubeconfig
from testplane.objects import Body, make_class, make_export
from unit.operator import fake_kopf


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    for library in ("kubernetes", "kubernetes.aio"):
        monkeypatch.setattr(f"{library}.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


@asynccontextmanager
async def watching(api: FakeApi, kubeconfig: Path) -> AsyncIterator[Controller]:
    async with serve(api) as address:
        write_kubeconfig(kubeconfig, address)
        async with Cluster.connect() as cluster:
            controller, stop = Controller(cluster, Metrics()), asyncio.Event()
            watch = asyncio.create_task(watch_forever(build_registry(controller), (), stop))
            try:
                yield controller
            finally:
                stop.set()
                await asyncio.wait_for(watch, 60)


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not is_true():
            await asyncio.sleep(0.01)


def with_metadata(export: Body, **metadata: object) -> Body:
    return {**export, "metadata": {**export["metadata"], **metadata}}


async def test_the_controller_hears_what_users_write(kubeconfig: Path) -> None:
    api = FakeApi(run_seconds=0)
    api.put("exportclasses", make_class())
    async with watching(api, kubeconfig) as controller:
        await until(lambda: controller.cache[CLASSES].values() and api.is_watched("modelexports"))
        export = api.put("modelexports", make_export())
        await until(controller.cache[EXPORTS].values)
        api.delete("modelexports", export)
        await until(lambda: not controller.cache[EXPORTS].values())


async def test_a_broken_annotation_of_kopf_keeps_no_export_out(kubeconfig: Path) -> None:
    api = FakeApi(run_seconds=0)
    annotations = {"kopf.zalando.org/last-handled-configuration": "{"}
    api.put("modelexports", with_metadata(make_export(), annotations=annotations))
    async with watching(api, kubeconfig) as controller:
        await until(controller.cache[EXPORTS].values)


async def test_the_finalizer_of_another_kopf_operator_stays(kubeconfig: Path) -> None:
    api = FakeApi(run_seconds=0)
    api.put("modelexports", with_metadata(make_export(), finalizers=["kopf.zalando.org/KopfFinalizerMarker"]))
    async with watching(api, kubeconfig) as controller:
        await until(controller.cache[EXPORTS].values)
        await asyncio.sleep(0.5)
    assert {asked.split()[0] for asked in api.requests} == {"GET", "WATCH"}


async def test_nameless_object_of_kopf_is_left_out(kubeconfig: Path, caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi(run_seconds=0)
    async with watching(api, kubeconfig) as controller:
        await until(lambda: api.is_watched("modelexports"))
        api.cut("modelexports", b'{"type":"ADDED","object":{"metadata":{"name":"shapes","namespace":"team"}}}\n')
        await until(lambda: "an event of kopf has no name or no version" in caplog.text)
        api.put("modelexports", make_export())
        await until(controller.cache[EXPORTS].values)
    assert "a defect" not in caplog.text


async def test_restarts_kopf_after_a_lost_cancellation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kopf_watches, "KOPF", Path(fake_kopf.__file__))
    monkeypatch.setattr(kopf_watches, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(kopf_watches, "CANCEL_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(kopf, "spawn_tasks", fake_kopf.spawn_tasks)
    stop = asyncio.Event()
    watch = asyncio.create_task(watch_forever(kopf.OperatorRegistry(), (), stop))
    await until(lambda: caplog.text.count("half a line") > 1)
    stop.set()
    await asyncio.wait_for(watch, 10)
    assert [task for task in asyncio.all_tasks() if "lose_cancellation" in repr(task)] == []
