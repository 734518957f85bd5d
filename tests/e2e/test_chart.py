"""A release of the chart from its installation to its removal, with the real Helm on the real cluster."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.support import Body, Workspace, build_export, create_namespace, workspace
from testcluster import builder, containerd, oci
from testcluster.bootstrap import kubectl
from testcluster.chart import CHART, RELEASE, helm
from testcluster.installation import build_values
from testcluster.layout import BUILDAH, KUBECONFIG, REPOSITORY, digest_of
from testcluster.shell import exclusive, run, scratch_folder, wait_until

pytestmark = [pytest.mark.own_cluster("images that the tests build and import"), pytest.mark.changes_definitions]

FAKE = REPOSITORY / "tests/e2e/fake_converter.py"
OPERATORS = f"--selector=app.kubernetes.io/instance={RELEASE}"
PREVIOUS = REPOSITORY / "tests/e2e/charts/modelexport-operator-0.0.9.tgz"
"""An older chart, as it was packaged: without pull Secrets of converters, among others."""
UNCOUNTED = ("events", "events.events.k8s.io", "componentstatuses")
"""What comes and goes by itself."""


@pytest.fixture(scope="module")
def fake_converter(operator_image: str) -> str:
    """The image of a fake converter, built on the operator's image."""
    image = f"modelexport.dev/fake-converter:{digest_of([FAKE], operator_image)}"
    with exclusive("images"), scratch_folder("layout") as layout, scratch_folder("fake") as folder:
        if image not in containerd.images():
            shutil.copy(FAKE, folder)
            entrypoint = json.dumps(["python", f"/opt/{FAKE.name}"])
            recipe = f"FROM {operator_image}\nCOPY {FAKE.name} /opt/{FAKE.name}\nENTRYPOINT {entrypoint}\n"
            (Path(folder) / "Dockerfile").write_text(recipe)
            run([*BUILDAH, "bud", f"--tag={image}", folder], env=builder.environment())
            builder.push(image, layout, "--disable-compression")
            oci.import_layout(layout, image)
    return image


@pytest.fixture
def exports(fake_converter: str) -> Iterator[Workspace]:
    """The namespace in which people export."""
    with workspace(fake_converter) as made:
        yield made


@pytest.fixture
def system(cluster: None) -> Iterator[str]:
    """The namespace of the release."""
    name = create_namespace("chart")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


class Release:
    """One release, in its namespace."""

    def __init__(self, namespace: str, values: Body) -> None:
        self._values = values
        self._options = [f"--namespace={namespace}", f"--kubeconfig={KUBECONFIG}"]
        self._namespace = namespace

    def helm(self, command: str, *arguments: str, **values: Any) -> str:
        """Run a Helm command on the release, and wait until its objects are ready."""
        if command in ("install", "upgrade"):
            arguments = (*arguments, "--values=-")
        text = json.dumps({**self._values, **values})
        waits = [] if command == "test" else ["--wait"]
        return helm(command, RELEASE, *arguments, *waits, "--timeout=300s", *self._options, input=text)

    def read(self, kind: str, *options: str) -> list[Body]:
        """The objects of a kind in the namespace of the release."""
        found = kubectl("get", kind, *options, f"--namespace={self._namespace}", "--output=json")
        items: list[Body] = json.loads(found)["items"]
        return items

    def environment(self) -> dict[str, str]:
        """The settings of the operator."""
        [deployment] = self.read("deployments")
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        return {variable["name"]: variable.get("value", "") for variable in container["env"]}

    def disruptions_allowed(self) -> int:
        """The number of operators that may be disrupted at once."""
        [budget] = self.read("poddisruptionbudgets")
        return int(budget["status"].get("disruptionsAllowed", 0))

    def ready_pods(self) -> list[str]:
        """The operators that are ready."""
        pods = self.read("pods", OPERATORS)
        return [pod["metadata"]["name"] for pod in pods if is_ready(pod)]


def is_ready(pod: Body) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def everything() -> set[str]:
    """The names of all objects of the cluster."""
    kinds = [
        kind for kind in kubectl("api-resources", "--verbs=list", "--output=name").split() if kind not in UNCOUNTED
    ]
    shown = "custom-columns=KIND:.kind,SPACE:.metadata.namespace,NAME:.metadata.name"
    lines = kubectl(
        "get", ",".join(kinds), "--all-namespaces", "--no-headers", "--ignore-not-found", f"--output={shown}"
    )
    # The kubelet creates the Lease of its node at any time.
    return {" ".join(line.split()) for line in lines.splitlines() if " kube-node-lease " not in line}


def upgrade_definitions(chart: Path) -> None:
    """Follow the step of docs/install.md before an upgrade."""
    definitions = helm("show", "crds", str(chart))
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=definitions)


def class_definition() -> str:
    return kubectl("get", "crd", "exportclasses.modelexport.dev", "--output=json")


def identities(space: Workspace) -> dict[str, str]:
    """The Jobs and Pods of the exports."""
    return {body["metadata"]["name"]: body["metadata"]["uid"] for body in space.read_all("jobs,pods")}


def test_upgrade_rollback_and_removal_work_during_exports(operator_image: str, exports: Workspace, system: str) -> None:
    values = build_values(operator_image, exports.image)
    values["exportClass"] |= {"name": f"{exports.name}-usual", "isDefault": False}
    values |= {"watch": {"namespaces": [exports.name]}, "rbac": {"userRole": False}}
    values["leaderElection"] = {"leaseSeconds": 60, "renewSeconds": 40, "retrySeconds": 1}
    release, before = Release(system, values), everything()

    upgrade_definitions(PREVIOUS)
    assert "imagePullSecrets" not in class_definition()
    # The chart's own test asks the operator only once, maybe before the node knows the new Service.
    release.helm("install", str(PREVIOUS), workers=4)
    assert release.environment()["MODELEXPORT_WORKERS"] == "4"
    exports.apply(build_export("model", "ONNX/FP32", "ONNX/FP16", className=f"{exports.name}-usual"))
    exports.wait_for_pod("model")
    running = identities(exports)

    upgrade_definitions(CHART)
    assert "imagePullSecrets" in class_definition()
    release.helm("upgrade", str(CHART), replicas=2)
    assert "Phase:          Succeeded" in release.helm("test")
    assert release.environment()["MODELEXPORT_WORKERS"] == "8"
    wait_until("two operators to be ready", lambda: len(release.ready_pods()) == 2)
    [lease] = release.read("leases")
    assert lease["spec"]["holderIdentity"].rpartition("_")[0] in release.ready_pods()
    wait_until("one of them to be dispensable", lambda: release.disruptions_allowed() == 1)
    exports.wait("mx/model", "condition=Ready")
    assert running.items() <= identities(exports).items()
    assert len(exports.read_all("jobs")) == len(exports.read_all("pods")) == 2

    exports.apply(build_export("later", className=f"{exports.name}-usual"))
    exports.wait_for_pod("later")
    release.helm("rollback", "1")
    assert release.environment()["MODELEXPORT_WORKERS"] == "4"
    assert "MODELEXPORT_LEADER_ELECTION" not in release.environment()
    exports.wait("mx/later", "condition=Ready")
    assert len(exports.read_all("jobs")) == 3

    exports.kubectl("delete", "mx", "--all", "--cascade=foreground")
    release.helm("uninstall")
    left: set[str] = set()

    def is_gone() -> bool:
        nonlocal left
        left = {name for name in everything() - before if "modelexport.dev" not in name}
        return not left

    try:
        wait_until("everything to be gone", is_gone, 180)
    finally:
        assert left == set()
    assert "modelexports.modelexport.dev" in kubectl("get", "crds", "--output=name")
