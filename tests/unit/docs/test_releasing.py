"""The version of a release stands in several files: RELEASING.md lists them, and they agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from modelexport import __version__

ROOT = Path(__file__).parents[3]
CHART = yaml.safe_load((ROOT / "helm/modelexport-operator/Chart.yaml").read_text(encoding="utf-8"))
DEPLOYED = ["deploy/argocd/operator.yaml", "deploy/flux/operator.yaml"]


def test_package_and_chart_have_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == CHART["version"] == CHART["appVersion"] == __version__


@pytest.mark.parametrize("path", DEPLOYED)
def test_what_gitops_installs_has_the_version_of_the_chart(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.findall(r"(?:targetRevision|tag): v(\S+)", text) == [__version__]
    assert re.findall(r"/modelexport-converter:(\S+)", text) == [__version__]


@pytest.mark.parametrize(
    "path", [*DEPLOYED, "pyproject.toml", "helm/modelexport-operator/Chart.yaml", "docs/install.md"]
)
def test_the_steps_of_a_release_name_every_file(path: str) -> None:
    assert f"`{path}`" in (ROOT / "RELEASING.md").read_text(encoding="utf-8")
