"""The real Argo CD and the real kstatus judge every status that the operator writes, and exports without one."""

from pathlib import Path

import pytest
import yaml

from health_cases import ARGOCD, Body, argo_message_of, fixtures, golden_bodies, verdict_of
from integration.argocd import run_argocd
from integration.kstatus import ask_kstatus
from testcluster.tools import install_gitops
from testplane.api import EXPORTS, Api
from testplane.objects import make_export

BODIES = {**fixtures(), **golden_bodies()}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    install_gitops()


def ask_argocd(body: Body, file: Path) -> str:
    file.write_text(yaml.safe_dump(body))
    settings = f"--argocd-cm-path={ARGOCD / 'argocd-cm.yaml'}"
    return run_argocd("admin", "settings", "resource-overrides", "health", str(file), settings)


@pytest.mark.parametrize("name", BODIES)
def test_argo_cd_assesses_every_status_as_intended(name: str, tmp_path: Path) -> None:
    said = ask_argocd(BODIES[name], tmp_path / "export.yaml")
    assert said == f"STATUS: {verdict_of(BODIES[name]).argo}\nMESSAGE: {argo_message_of(BODIES[name])}\n"


def test_kstatus_assesses_every_status_as_intended() -> None:
    shown = {name: body for name, body in BODIES.items() if "status" in body}
    found = dict(zip(shown, ask_kstatus(*shown.values()), strict=True))
    assert found == {name: verdict_of(body).flux for name, body in shown.items()}


def test_unseen_export_is_not_considered_done(api: Api, tmp_path: Path) -> None:
    api.create(EXPORTS, make_export() | {"metadata": {"name": "shapes"}})
    unseen = api.get(EXPORTS, "shapes")
    assert ask_kstatus(unseen) == ["InProgress"]
    assert ask_argocd(unseen, tmp_path / "export.yaml").startswith("STATUS: Progressing\n")
    bare = {key: value for key, value in unseen.items() if key != "status"}
    assert ask_kstatus(bare) == ["Current"]  # This is why the definition gives every export an initial status.
