"""Rendering the chart: golden files for usual values, and messages for wrong ones."""

import json
import os
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelexport import names
from modelexport.client.links import signing_pod
from modelexport_converter.stores.addresses import is_allowed
from testcluster.chart import CHART, NAMESPACE, RELEASE, Body, helm, load, render
from testcluster.layout import REPOSITORY, tool
from testcluster.tools import install
from testplane.objects import build_all, make_class, make_export

GOLDEN = Path(__file__).parent / "golden"
NAMES = [path.name.removesuffix(".values.yaml") for path in sorted(GOLDEN.glob("*.values.yaml"))]
WORKLOADS = ("Deployment", "Pod")
DIGEST = "sha256:" + "ab" * 32
KEYS = {"create": True, "accessKeyId": "a", "secretAccessKey": "b"}
SPECIAL = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
            *("::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "2002::/16", "::ffff:10.0.0.0/104"),
        ),
    )
)


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Install Helm."""
    install()


def values_of(name: str) -> Body:
    values: Body = yaml.safe_load((GOLDEN / f"{name}.values.yaml").read_text()) or {}
    return values


def objects(values: Body | None = None, *options: str) -> dict[str, Body]:
    """The rendered objects of the chart, by kind and name."""
    return {f"{body['kind']}/{body['metadata']['name']}": body for body in load(render(values, *options))}


def test_linter_finds_nothing() -> None:
    said = helm("lint", "--strict", str(CHART))
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("name", NAMES)
def test_linter_accepts_rendered_manifests(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), f"--values={GOLDEN / name}.values.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_rendered_chart_matches_golden_file(name: str) -> None:
    rendered = load(render(values_of(name)))
    for body in rendered:
        # The content of rules and dashboard is tested beside them; here only that the chart passes them on unchanged.
        if body["kind"] == "PrometheusRule":
            assert body.pop("spec") == yaml.safe_load((CHART / "files/rules.yaml").read_text())
        if body["metadata"]["name"].endswith("-dashboard"):
            [content] = body.pop("data").values()
            assert json.loads(content) == json.loads((CHART / "files/dashboard.json").read_text())
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("MODELEXPORT_UPDATE_GOLDEN"):
        golden.write_text(yaml.safe_dump_all(rendered, sort_keys=False, width=120))
    assert rendered == list(yaml.safe_load_all(golden.read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_is_restricted(name: str) -> None:
    for body in load(render(values_of(name))):
        if body["kind"] in WORKLOADS:
            pod = body["spec"]["template"]["spec"] if body["kind"] == "Deployment" else body["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            [container] = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_notes_name_next_steps() -> None:
    options = [RELEASE, str(CHART), "--namespace=ml", "--dry-run=client"]
    notes = subprocess.run([tool("helm"), "install", *options], capture_output=True, text=True, check=True).stdout
    for words in (
        "helm test modelexport-operator --namespace ml",
        "Exports need an ExportClass",
        "--force-conflicts",
        "converters can reach DNS, public addresses and the store only, in\nml.",
        "serves all namespaces: add the other namespaces",
        "Before helm uninstall, delete the ModelExports with deletionPolicy: Delete, or set Retain",
    ):
        assert words in notes


def test_notes_and_docs_agree_on_removing_stuck_exports() -> None:
    """tests/integration/test_uninstall.py follows these steps."""
    notes = (CHART / "templates/NOTES.txt").read_text()
    page = (REPOSITORY / "docs/operator.md").read_text()
    operations = [[line.strip() for line in text.splitlines() if '"op":' in line] for text in (notes, page)]
    assert operations[0] == operations[1]
    assert names.FINALIZER in operations[0][0]


def test_chart_version_matches_application() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_namespaced_operator_has_read_only_cluster_rights() -> None:
    rendered = objects(values_of("namespaced"))
    roles = [body for body in rendered.values() if body["kind"] == "ClusterRole"]
    verbs = {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch"}


def test_releases_of_two_teams_share_no_name() -> None:
    def cluster_wide(team: str) -> set[str]:
        values = {"watch": {"namespaces": [team]}, "rbac": {"userRole": False}}
        rendered = load(
            helm("template", RELEASE, str(CHART), f"--namespace={team}", "--values=-", input=json.dumps(values))
        )
        return {
            f"{body['kind']}/{body['metadata']['name']}" for body in rendered if "namespace" not in body["metadata"]
        }

    assert cluster_wide("team-a") & cluster_wide("team-b") == set()


def test_network_policy_covers_pods_with_store_credentials() -> None:
    [policy] = job_policies({})
    [expression] = policy["spec"]["podSelector"]["matchExpressions"]
    export = make_export("ONNX/FP16")
    job = build_all(export, make_class())["ONNX/FP16"]
    pods = [job["spec"]["template"], signing_pod(export, job, ["s3://exports/a"], "http://minio:9000")]
    assert {pod["metadata"]["labels"][expression["key"]] for pod in pods} == set(expression["values"])


def job_policies(values: Body) -> list[Body]:
    return [body for body in load(render(values)) if body["metadata"]["name"].endswith("-jobs")]


@pytest.mark.parametrize(
    ("values", "namespaces"),
    [
        ({}, [NAMESPACE]),
        ({"watch": {"namespaces": ["a", "b"]}}, ["a", "b"]),
        ({"networkPolicy": {"jobs": {"namespaces": ["a", NAMESPACE]}}}, [NAMESPACE, "a"]),
        ({"credentials": {**KEYS, "namespaces": ["a", "b"]}}, [NAMESPACE, "a", "b"]),
        ({"credentials": {**KEYS, "create": False, "namespaces": ["a"]}}, [NAMESPACE]),
        ({"networkPolicy": {"enabled": False}}, [NAMESPACE]),
        ({"networkPolicy": {"jobs": {"enabled": False, "namespaces": ["a"]}}}, []),
    ],
)
def test_jobs_are_isolated_in_every_known_namespace(values: Body, namespaces: list[str]) -> None:
    policies = job_policies(values)
    assert [policy["metadata"]["namespace"] for policy in policies] == namespaces
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in policy["spec"], "nobody reaches a converter"


def test_jobs_reach_only_public_or_named_addresses() -> None:
    [policy] = job_policies({"networkPolicy": {"jobs": {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}}})
    dns, web, store = policy["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert web["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert store["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    blocks: list[tuple[Any, list[Any]]] = [
        (ip_network(peer["ipBlock"]["cidr"]), list(map(ip_network, peer["ipBlock"]["except"]))) for peer in web["to"]
    ]
    for block, excepted in blocks:
        assert all(inner.subnet_of(block) for inner in excepted), "the API server refuses the policy"

    def is_reached(address: str) -> bool:
        one = ip_address(address)
        return any(one in block and not any(one in inner for inner in excepted) for block, excepted in blocks)

    probes = [str(network[offset]) for network in SPECIAL for offset in (0, -1)]
    assert not [address for address in probes if is_reached(address)]
    for address in ("8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111"):
        assert is_reached(address)
    for address in probes:
        assert not is_allowed(address, ()), "the converter agrees"


def test_chart_accepts_argo_cd_values() -> None:
    application = yaml.safe_load((REPOSITORY / "deploy/argocd/operator.yaml").read_text())
    rendered = objects(application["spec"]["source"]["helm"]["valuesObject"], "--include-crds")
    assert {"CustomResourceDefinition/modelexports.modelexport.dev", "ExportClass/default"} <= rendered.keys()
    [container] = rendered[f"Deployment/{RELEASE}"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/modelexport-operator:0.1.0"


@pytest.mark.parametrize("folder", ["https://wiki.example/runbooks", "https://wiki.example/runbooks/"])
def test_every_alert_links_to_configured_runbooks(folder: str) -> None:
    rendered = objects({"metrics": {"prometheusRule": {"enabled": True, "runbookUrl": folder}}})
    [group] = rendered[f"PrometheusRule/{RELEASE}"]["spec"]["groups"]
    alerts = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"] if "alert" in rule}
    assert alerts == {name: f"https://wiki.example/runbooks/{name}.md" for name in alerts}
    assert len(alerts) == len(list((REPOSITORY / "docs/runbooks").iterdir()))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "modelexport.dev/operator:0.1.0"),
        ({"repository": "registry.example:5000/ml/operator", "tag": "7"}, "registry.example:5000/ml/operator:7"),
        ({"tag": "7", "digest": DIGEST}, f"modelexport.dev/operator@{DIGEST}"),
    ],
)
def test_image_digest_takes_precedence_over_tag(image: Body, expected: str) -> None:
    rendered = objects({"image": image})
    [container] = rendered[f"Deployment/{RELEASE}"]["spec"]["template"]["spec"]["containers"]
    [test] = rendered[f"Pod/{RELEASE}-test"]["spec"]["containers"]
    assert (container["image"], test["image"]) == (expected, expected)


@pytest.mark.parametrize(
    ("release", "name"),
    [("modelexport-operator", "modelexport-operator"), ("ml", "ml-modelexport-operator")],
)
def test_resources_are_named_after_release(release: str, name: str) -> None:
    rendered = load(helm("template", release, str(CHART), "--namespace=ml"))
    assert [body["metadata"]["name"] for body in rendered if body["kind"] == "Deployment"] == [name]


REFUSED: dict[str, tuple[Any, str]] = {
    "an unknown value": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "an unknown value deep inside": ({"image": {"name": "x"}}, "at '/image': additional properties 'name' not allowed"),
    "no operator": ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    "a number as text": ({"replicas": "2"}, "at '/replicas': got string, want integer"),
    "a tag in the repository": ({"image": {"repository": "operator:1"}}, "at '/image/repository'"),
    "a digest of another kind": ({"image": {"digest": "md5:00"}}, "at '/image/digest'"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Often"}}, "value must be one of 'Always'"),
    "a namespace that is none": ({"watch": {"namespaces": ["Team A"]}}, "at '/watch/namespaces/0'"),
    "a namespace twice": ({"watch": {"namespaces": ["a", "a"]}}, "at '/watch/namespaces'"),
    "an unknown level": ({"logLevel": "TRACE"}, "at '/logLevel'"),
    "a variable without a name": ({"extraEnv": [{"value": "x"}]}, "missing property 'name'"),
    "a port that is none": ({"networkPolicy": {"apiServerPorts": [0]}}, "at '/networkPolicy/apiServerPorts/0'"),
    "a port of the web that is none": (
        {"networkPolicy": {"jobs": {"httpsPorts": ["https"]}}},
        "at '/networkPolicy/jobs/httpsPorts/0'",
    ),
    "an address without its length": (
        {"networkPolicy": {"apiServerCIDRs": ["192.0.2.10"]}},
        "at '/networkPolicy/apiServerCIDRs/0'",
    ),
    "a place of runbooks that is none": (
        {"metrics": {"prometheusRule": {"runbookUrl": "docs/runbooks"}}},
        "at '/metrics/prometheusRule/runbookUrl'",
    ),
    "a class without a store": (
        {"exportClass": {"create": True, "spec": {"converter": {"image": "c"}}}},
        "at '/exportClass/spec': missing property 'storage'",
    ),
    "keys without a namespace": (
        {"credentials": {"create": True, "accessKeyId": "a", "secretAccessKey": "b"}},
        "at '/credentials/namespaces': minItems: got 0, want 1",
    ),
    "keys that are empty": (
        {"credentials": {"create": True, "namespaces": ["a"], "accessKeyId": "a"}},
        "at '/credentials/secretAccessKey'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_value_is_rejected_and_named(name: str) -> None:
    values, words = REFUSED[name]
    command = [tool("helm"), "template", RELEASE, str(CHART), "--values=-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_values_and_schema_have_same_keys() -> None:
    def keys(schema: Body) -> set[str]:
        found = set()
        for key, part in schema.get("properties", {}).items():
            found |= {key, *(f"{key}.{inner}" for inner in keys(part))}
        return found

    def paths(values: Any) -> set[str]:
        if not isinstance(values, dict):
            return set()
        return {path for key, part in values.items() for path in (key, *(f"{key}.{inner}" for inner in paths(part)))}

    schema = json.loads((CHART / "values.schema.json").read_text())
    known, defaults = keys(schema) - {"global"}, paths(yaml.safe_load((CHART / "values.yaml").read_text()))
    assert {path for path in known if not path.startswith("extraEnv.")} <= defaults
    open_ended = ("resources.", "podAnnotations.", "metrics.dashboard.labels.")
    assert {path for path in defaults if not path.startswith(open_ended)} <= known
