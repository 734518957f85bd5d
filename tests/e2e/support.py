"""Shared by the tests of the whole product: objects to apply, a namespace for them, and waiting for results."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from modelexport import names
from testcluster import installation
from testcluster.bootstrap import kubectl
from testcluster.foreign import FOREIGN
from testcluster.layout import KUBECONFIG, STORE_ENDPOINT, tool

Body = dict[str, Any]

INPUTS, RESULTS = "e2e-inputs", "e2e-exports"
"""Buckets: what the exports read, and where they publish."""
CLASSIFIER = f"s3://{INPUTS}/yolov8n-cls.pt"
SECONDS = 600
"""How long a single conversion may take here, its turn on a busy machine included."""
LOOK_SECONDS = 0.3
SHARED_CPU = [{"name": "shared", "resources": {"cpu": "100m"}}]
"""Node pools for what waits: with the usual request of one CPU, a Pod would keep a node of two for itself."""


def build_class(name: str, image: str, **changes: Any) -> Body:
    """An ExportClass; ``storage``, ``converter`` and ``jobs`` in ``changes`` are laid over the usual ones.

    Other parts are taken as they are.
    """
    usual: Body = {
        "storage": {
            "endpoint": STORE_ENDPOINT,
            "bucket": RESULTS,
            "credentialsSecretName": installation.STORE_SECRET,
        },
        "converter": {"image": image, "imagePullPolicy": "IfNotPresent" if FOREIGN else "Never"},
        "jobs": {"deadlineSeconds": 3600, "retries": 3},
    }
    spec = changes | {part: {**usual[part], **changes.get(part, {})} for part in usual}
    return {"apiVersion": names.API_VERSION, "kind": names.CLASS_KIND, "metadata": {"name": name}, "spec": spec}


def build_export(name: str, *targets: str, **spec: Any) -> Body:
    """A ModelExport, by default of the smallest and fastest cell: the classifier as ONNX in FP32."""
    model = {"architecture": "YOLOv8-CLS", "checkpoint": {"uri": CLASSIFIER}, "parameters": {"inputSize": [64, 64]}}
    pairs = [target.split("/") for target in targets or ("ONNX/FP32",)]
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.EXPORT_KIND,
        "metadata": {"name": name},
        "spec": {"model": model, "targets": [{"format": f, "precision": p} for f, p in pairs], **spec},
    }


def ask(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Run kubectl and return its exit status, stdout and stderr."""
    command = [tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Workspace:
    """A namespace of its own, with ExportClasses that nobody else uses."""

    name: str
    image: str

    def close(self) -> None:
        """Delete the namespace with everything in it, and the classes."""
        kubectl("delete", "exportclass", f"--selector=workspace={self.name}")
        kubectl("delete", "namespace", self.name, "--wait=false")

    def kubectl(self, *arguments: str, **options: str) -> str:
        """Run kubectl in the namespace; see ``cluster.bootstrap.kubectl``."""
        return kubectl(*arguments, f"--namespace={self.name}", **options)

    def create_class(self, name: str = "usual", **changes: Any) -> str:
        """Create an ExportClass and return its full name."""
        full = f"{self.name}-{name}"
        body = build_class(full, self.image, **changes)
        body["metadata"]["labels"] = {"workspace": self.name}
        kubectl("create", "--filename=-", input=json.dumps(body))
        return full

    def apply(self, *bodies: Body) -> None:
        """Apply objects, all at once."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self.kubectl("apply", "--filename=-", input=json.dumps(items))

    def read(self, resource: str) -> Body:
        """Return one object, named as ``kind/name``."""
        body: Body = json.loads(self.kubectl("get", resource, "--output=json"))
        return body

    def read_all(self, kind: str) -> list[Body]:
        """Return every object of a kind."""
        items: list[Body] = json.loads(self.kubectl("get", kind, "--output=json"))["items"]
        return items

    def wait(self, resource: str, until: str, seconds: int = SECONDS) -> None:
        """Wait as ``kubectl wait --for=UNTIL`` does, for one object or for all objects of a kind."""
        scope = [resource] if "/" in resource else [resource, "--all"]
        self.kubectl("wait", f"--for={until}", *scope, f"--timeout={seconds}s")

    def wait_for_pod(self, export: str, seconds: int = SECONDS) -> str:
        """Wait until at least one Pod of an export runs, and return its name."""
        deadline = time.monotonic() + seconds
        while not (running := self.running_pods(export)):
            assert time.monotonic() < deadline, f"no Pod of {export} ran within {seconds} s"
            time.sleep(LOOK_SECONDS)
        return running[0]

    def wait_for_first(self, export: str, seconds: int = SECONDS) -> None:
        """Wait until at least one target of an export is published."""
        deadline = time.monotonic() + seconds
        while self.read(f"mx/{export}").get("status", {}).get("ready", "0/").startswith("0/"):
            assert time.monotonic() < deadline, f"nothing of {export} was published within {seconds} s"
            time.sleep(LOOK_SECONDS)

    def running_pods(self, export: str) -> list[str]:
        """Return the names of the Pods of an export that convert now; their phase is still Pending."""
        found = self.kubectl("get", "pods", f"--selector={names.EXPORT_LABEL}={export}", "--output=json")
        return [pod["metadata"]["name"] for pod in json.loads(found)["items"] if "running" in state_of(pod)]

    def wait_for_reason(self, export: str, reason: str, seconds: int = SECONDS) -> Body:
        """Wait until the only target of an export has a reason, and return that target's status."""
        self.wait(f"mx/{export}", f"jsonpath={{.status.targets[0].reason}}={reason}", seconds)
        return self.target(export)

    def target(self, export: str) -> Body:
        """Return the status of the only target of an export."""
        [target] = self.read(f"mx/{export}")["status"]["targets"]
        return dict(target)

    def events(self, export: str) -> list[tuple[str, str, str]]:
        """Return type, reason and message of the events of an export, oldest first."""
        selector = f"involvedObject.kind={names.EXPORT_KIND},involvedObject.name={export}"
        found = json.loads(self.kubectl("get", "events", f"--field-selector={selector}", "--output=json"))["items"]
        # Times are in whole seconds; resource versions order the events within one.
        found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [(event["type"], event["reason"], event["message"]) for event in found]


@contextmanager
def workspace(image: str) -> Iterator[Workspace]:
    """A new namespace that admits restricted Pods only and holds MinIO's keys; it goes with everything in it."""
    with closing(open_workspace(image)) as space:
        yield space


def open_workspace(image: str) -> Workspace:
    """Create a workspace, which its user closes."""
    name = create_namespace("e2e")
    kubectl("create", "--filename=-", input=installation.build_secret(name))
    return Workspace(name, image)


def create_namespace(prefix: str) -> str:
    """Create a namespace that admits restricted Pods only, and return its name."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename=-", input=json.dumps(body))
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=120s")
    return name


def state_of(pod: Body, container: str = names.CONVERT) -> Body:
    """Return the state of one container of a Pod; empty while it has none."""
    statuses = [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]
    return next((dict(status["state"]) for status in statuses if status["name"] == container), {})


def containers_of(pod: Body) -> list[Body]:
    """Return the containers of a Pod in the order in which they run."""
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


def find_condition(body: Body, kind: str) -> Body:
    """Return a condition of an object."""
    return next(dict(condition) for condition in body["status"]["conditions"] if condition["type"] == kind)
