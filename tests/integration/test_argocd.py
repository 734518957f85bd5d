"""The real Argo CD applies definitions, class and exports from a git repository; the tests simulate the kubelet."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from health_cases import UNSEEN_MESSAGE
from integration.argocd import Application, State, in_wave, start_argocd
from integration.kubelet import play_kubelet, refuse, run
from testcluster.chart import NAMESPACE, load
from testcluster.layout import REPOSITORY
from testplane.api import CLASSES, EXPORTS, JOBS, PODS, Api, Body
from testplane.control_plane import ControlPlane, start_control_plane
from testplane.installation import render_rights
from testplane.objects import make_class, make_export
from testplane.process import Operator

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONFIG_MAPS = "/api/v1/namespaces/{0}/configmaps"
PROGRESSING, HEALTHY, DEGRADED, SUSPENDED = "Progressing", "Healthy", "Degraded", "Suspended"


def order(*targets: str, name: str = "shapes", **spec: Any) -> Body:
    """A ModelExport as a user commits it, in the wave after its class."""
    return in_wave(2, make_export(*targets, **spec) | {"metadata": {"name": name}})


def consumer() -> Body:
    """An object that needs the exported file, in the wave after the export."""
    return in_wave(3, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "consumer"}})


def installation() -> dict[str, Body]:
    """The files of a repository that installs everything but the operator's process, by name."""
    definitions = [yaml.safe_load(path.read_text()) for path in (REPOSITORY / "crds").iterdir()]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    bodies = [*definitions, namespace, *load(render_rights())]
    return {f"{index}-{body['kind'].lower()}.yaml": body for index, body in enumerate(bodies)}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without our definitions, and Argo CD."""
    with (
        start_control_plane(tmp_path_factory.mktemp("plane")) as plane,
        start_argocd(plane, tmp_path_factory.mktemp("argocd")),
    ):
        yield plane


@pytest.fixture(scope="module")
def platform(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """An Application of definitions, class and one export; the operator starts when all are there."""
    application = Application(plane, "platform", tmp_path_factory.mktemp("platform"))
    application.commit({**installation(), "class.yaml": in_wave(1, make_class()), "export.yaml": order()})
    application.create()
    application.wait_for("Synced", PROGRESSING)
    assert application.health_of("shapes") == {"status": PROGRESSING, "message": UNSEEN_MESSAGE}
    with Operator(plane.address, tmp_path_factory.mktemp("operator"), plane.certificate).running():
        yield application


@pytest.fixture
def team(platform: Application, plane: ControlPlane, tmp_path: Path) -> Application:
    """An Application of a team, with a repository only for exports."""
    return Application(plane, f"team-{uuid.uuid4().hex[:8]}", tmp_path)


def names_of(api: Api, path: str) -> list[str]:
    return [item["metadata"]["name"] for item in api.list(path)]


def states_of(api: Api) -> set[str]:
    """The states of all targets of all exports."""
    return {target["state"] for export in api.list(EXPORTS) for target in export["status"].get("targets", [])}


def wait_for_running(api: Api) -> None:
    api.wait_for("the conversions", lambda: states_of(api) == {"Running"})


def wait_for_failed_sync(application: Application, words: str) -> None:
    """Wait until a sync has failed with these words; Argo CD retries it, and reports it as running."""
    application.api.wait_for("the failure", lambda: words in str(application.operation()))


def created(api: Api, path: str, name: str) -> str:
    """The creation time of an object; Argo CD pauses for two seconds after each wave."""
    time: str = api.get(path, name)["metadata"]["creationTimestamp"]
    return time


def test_sync_waves_order_crds_class_and_export(platform: Application) -> None:
    definition = created(platform.api, DEFINITIONS, "modelexports.modelexport.dev")
    assert definition < created(platform.api, CLASSES, "standard") < created(platform.api, EXPORTS, "shapes")
    with platform.recorded() as states, play_kubelet(platform.api):
        platform.wait_for("Synced", HEALTHY)
    assert [(state.sync, state.health) for state in states] == [("Synced", PROGRESSING), ("Synced", HEALTHY)]
    assert platform.health_of("shapes") == {"status": HEALTHY, "message": "1 of 1 targets are published"}


def test_export_stays_synced_while_operator_writes_status(team: Application) -> None:
    team.commit({"export.yaml": order("ONNX/FP16", "LiteRT/INT8")})
    team.create()
    with team.recorded() as states:
        with play_kubelet(team.api, run):
            wait_for_running(team.api)
            team.wait_for("Synced", PROGRESSING)
        with play_kubelet(team.api):
            team.wait_for("Synced", HEALTHY)
        team.refresh("hard")
    synced = [state.sync for state in states].index("Synced")
    assert {state.sync for state in states[synced:]} == {"Synced"}
    metadata = team.api.get(EXPORTS, "shapes")["metadata"]
    assert metadata["generation"] == 1
    assert set(metadata["annotations"]) == {"argocd.argoproj.io/sync-wave", "argocd.argoproj.io/tracking-id"}
    writers = {entry["manager"]: entry.get("subresource") for entry in metadata["managedFields"]}
    assert writers.pop("argocd-controller") is None
    assert set(writers.values()) == {"status"}


def test_failed_export_is_degraded_with_message_but_synced(team: Application) -> None:
    team.commit({"export.yaml": order()})
    team.create()
    with play_kubelet(team.api, refuse("cosine 0.91 is below 0.95")):
        team.wait_for("Synced", DEGRADED)
    assert "VerificationFailed: cosine 0.91 is below 0.95" in team.health_of("shapes")["message"]
    team.refresh("hard")
    team.wait_for("Synced", DEGRADED)


def test_suspend_and_resume_work_by_commit(team: Application) -> None:
    team.commit({"export.yaml": order(suspend=True)})
    team.create()
    team.wait_for("Synced", SUSPENDED)
    team.commit({"export.yaml": order(suspend=False)})
    with play_kubelet(team.api):
        team.refresh()
        team.wait_for("Synced", HEALTHY)


def test_export_waits_for_class_committed_later(team: Application) -> None:
    team.commit({"export.yaml": order(className="late")})
    team.create()
    team.wait_for("Synced", PROGRESSING)
    words = "ExportClass 'late' does not exist"
    team.api.wait_for("the reason", lambda: team.health_of("shapes")["message"].startswith(words))
    assert team.state() == State("Synced", PROGRESSING)
    team.commit({"class.yaml": in_wave(1, make_class("late", default=False))})
    with play_kubelet(team.api):
        team.refresh()
        team.wait_for("Synced", HEALTHY)


def test_removal_from_repository_prunes_jobs_and_pods(team: Application) -> None:
    team.commit({"stays.yaml": order(name="stays"), "goes.yaml": order(name="goes")})
    team.create()
    with play_kubelet(team.api):
        team.wait_for("Synced", HEALTHY)
        assert len(team.api.list(JOBS)) == len(team.api.list(PODS)) == 2
        team.commit({"goes.yaml": None})
        team.refresh()
        team.api.wait_for("the pruning", lambda: len(team.api.list(JOBS)) == len(team.api.list(PODS)) == 1)
        team.wait_for("Synced", HEALTHY)
    assert names_of(team.api, EXPORTS) == ["stays"]


def test_later_wave_waits_for_healthy_export(team: Application) -> None:
    team.commit({"export.yaml": order(), "consumer.yaml": consumer()})
    team.create()
    with play_kubelet(team.api, run):
        wait_for_running(team.api)
        team.refresh()
        assert team.operation()["phase"] == "Running"
        assert "consumer" not in names_of(team.api, CONFIG_MAPS)
    with play_kubelet(team.api):
        team.wait_for("Synced", HEALTHY)
    assert "consumer" in names_of(team.api, CONFIG_MAPS)


def test_failed_export_fails_sync_before_later_wave(team: Application) -> None:
    team.commit({"export.yaml": order(), "consumer.yaml": consumer()})
    team.create()
    with play_kubelet(team.api, refuse()):
        wait_for_failed_sync(team, "completed unsuccessfully")
    assert "consumer" not in names_of(team.api, CONFIG_MAPS)


def test_change_of_immutable_field_fails_sync_with_remedy(team: Application) -> None:
    team.commit({"export.yaml": order("ONNX/FP16")})
    team.create()
    with play_kubelet(team.api):
        team.wait_for("Synced", HEALTHY)
    team.commit({"export.yaml": order("ONNX/FP32")})
    team.refresh()
    team.wait_for("OutOfSync", HEALTHY)
    wait_for_failed_sync(team, "targets is immutable; create another ModelExport")
