"""The manifests that users give to Argo CD and Flux name existing files, charts and values."""

import re
from typing import Any

import pytest
import yaml

from modelexport.api.spec import parse_class
from testcluster.chart import CHART
from testcluster.layout import REPOSITORY

Body = dict[str, Any]
DEPLOY = REPOSITORY / "deploy"
FILES = sorted(path for path in DEPLOY.glob("*/*.yaml") if path.name != "argocd-cm.yaml")
BODIES: list[Body] = [body for path in FILES for body in yaml.safe_load_all(path.read_text())]
VERSIONS = {
    "Application": "argoproj.io/v1alpha1",
    "GitRepository": "source.toolkit.fluxcd.io/v1",
    "HelmRelease": "helm.toolkit.fluxcd.io/v2",
    "Kustomization": "kustomize.toolkit.fluxcd.io/v1",
}
PAGE = (REPOSITORY / "docs/gitops.md").read_text()


def find(kind: str, name: str) -> Body:
    [spec] = [body["spec"] for body in BODIES if (body["kind"], body["metadata"]["name"]) == (kind, name)]
    return dict(spec)


def argocd() -> tuple[Body, Body]:
    """The source of the operator's Application, and its values."""
    source = find("Application", "modelexport-operator")["source"]
    return source, source["helm"]["valuesObject"]


def flux() -> tuple[Body, Body]:
    """The chart of the operator's HelmRelease, and its values."""
    release = find("HelmRelease", "modelexport-operator")
    return release["chart"]["spec"], release["values"]


def test_every_kind_uses_served_version() -> None:
    assert {body["kind"]: body["apiVersion"] for body in BODIES} == VERSIONS


def test_both_tools_install_chart_at_its_version() -> None:
    (source, _), (chart, _) = argocd(), flux()
    assert REPOSITORY / source["path"] == REPOSITORY / chart["chart"] == CHART
    repository = find("GitRepository", chart["sourceRef"]["name"])
    assert (source["repoURL"], source["targetRevision"]) == (repository["url"], repository["ref"]["tag"])
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert source["targetRevision"] == f"v{version}"


def test_both_tools_create_same_class_at_this_version() -> None:
    (source, values), (_, others) = argocd(), flux()
    assert values == others
    body = {"apiVersion": "modelexport.dev/v1alpha1", "kind": "ExportClass", "metadata": {"name": "default"}}
    found = parse_class(body | {"spec": values["exportClass"]["spec"]})
    assert found.image == f"registry.example/modelexport-converter:{source['targetRevision'].removeprefix('v')}"


def test_crd_sources_are_never_pruned() -> None:
    assert find("Application", "modelexport-operator")["syncPolicy"]["automated"]["prune"] is False
    assert find("HelmRelease", "modelexport-operator")["upgrade"]["crds"] == "CreateReplace"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_page_links_every_manifest(path: Any) -> None:
    assert f"(../{path.relative_to(REPOSITORY)})" in PAGE


def test_page_links_resolve() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE):
        assert (REPOSITORY / "docs" / link).exists(), link
    for path in re.findall(r"\b(?:crds|deploy|helm)/[\w./-]*", PAGE):
        assert (REPOSITORY / path).exists(), path


def test_page_lists_every_mutable_field() -> None:
    [listed] = re.findall(r"\*\*Mutable fields\*\* are ([^.]*)\.", PAGE)
    definition = yaml.safe_load((REPOSITORY / "crds/modelexports.yaml").read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = " ".join(rule["message"] for rule in spec["x-kubernetes-validations"])
    changeable = {field for field in spec["properties"] if f"{field} is immutable" not in rules}
    assert set(re.findall(r"`(\w+)`", listed)) == changeable
