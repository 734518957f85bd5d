"""The files that users give to Argo CD cannot drift from the statuses that the operator writes."""

import pytest
import yaml

from health_cases import (
    ARGOCD,
    BY_CONDITIONS,
    SCRIPT_FOLDER,
    TERMINATING,
    VERDICTS,
    Verdict,
    argo_message_of,
    fixtures,
    verdict_of,
)
from modelexport import names
from modelexport_operator.status.conditions import CONDITIONS, Phase
from testcluster.layout import REPOSITORY
from unit.operator.golden import check

BODIES = fixtures()


def test_phases_with_same_conditions_have_same_verdict() -> None:
    assert set(VERDICTS) == set(Phase)
    assert {phase: BY_CONDITIONS[CONDITIONS[phase]] for phase in Phase} == VERDICTS


@pytest.mark.parametrize("name", BODIES)
def test_fixture_holds_operator_status_and_is_named_by_health(name: str) -> None:
    check(SCRIPT_FOLDER / "testdata" / name, BODIES[name])
    assert name.startswith(f"{verdict_of(BODIES[name]).argo.lower()}_")


def test_fixtures_show_every_verdict() -> None:
    shown = {verdict_of(body) for body in BODIES.values()}
    assert shown >= set(VERDICTS.values())


def test_test_list_names_every_fixture_with_health_and_message() -> None:
    healths = {
        name: {"status": verdict_of(body).argo, "message": argo_message_of(body)} for name, body in BODIES.items()
    }
    tests = [{"healthStatus": health, "inputPath": f"testdata/{name}"} for name, health in healths.items()]
    check(SCRIPT_FOLDER / "health_test.yaml", {"tests": tests})
    assert {path.name for path in (SCRIPT_FOLDER / "testdata").iterdir()} == set(BODIES)


def test_page_documents_every_verdict() -> None:
    lines = (REPOSITORY / "docs/gitops.md").read_text().splitlines()
    _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert {Verdict(argo, flux) for _, argo, flux in rows} == {*VERDICTS.values(), TERMINATING}


def test_config_map_contains_same_script() -> None:
    data = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]
    key = f"resource.customizations.health.{names.GROUP}_{names.EXPORT_KIND}"
    assert data == {key: (SCRIPT_FOLDER / "health.lua").read_text()}
