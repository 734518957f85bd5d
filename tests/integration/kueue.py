"""The real Kueue against a control plane: definitions and webhooks of its own chart, and its controller manager."""

import base64
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from testcluster.chart import helm, load
from testcluster.layout import module_dir
from testcluster.ports import free_port
from testcluster.tools import install_kueue
from testplane.api import Api, Body
from testplane.control_plane import ControlPlane, run_process, wait_until

NAMESPACE = "kueue-system"
GROUP_VERSION = "kueue.x-k8s.io/v1beta2"
WORKLOADS = f"/apis/{GROUP_VERSION}/namespaces/{{0}}/workloads"
LOCAL_QUEUES = f"/apis/{GROUP_VERSION}/namespaces/{{0}}/localqueues"
CLUSTER_QUEUES = f"/apis/{GROUP_VERSION}/clusterqueues"
FLAVORS = f"/apis/{GROUP_VERSION}/resourceflavors"
CHECKS = f"/apis/{GROUP_VERSION}/admissionchecks"
PRIORITIES = f"/apis/{GROUP_VERSION}/workloadpriorityclasses"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUPS = ("batch", "kueue.x-k8s.io")
"""The groups of the objects that go through its webhooks: the only Jobs here are those of Kubernetes."""
METRICS_CERTIFICATES = "/etc/kueue/metrics"
"""A compiled-in path (kueue, cmd/kueue/main.go); a mount namespace has a file system of its own there."""


@contextmanager
def start_kueue(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """Install Kueue and run it with its files in a folder."""
    install_kueue()
    port, health, metrics = (free_port() for _ in range(3))
    certificates = folder / "certificates"
    certificates.mkdir()
    # The API server's certificate is self-signed for loopback, and the webhooks listen there.
    for end, name in (("crt", "tls.crt"), ("key", "tls.key")):
        (certificates / name).symlink_to(plane.certificate.with_suffix(f".{end}"))
    bodies = _render()
    _install(plane, bodies, f"https://127.0.0.1:{port}")
    [settings] = (body["data"] for body in bodies if body["kind"] == "ConfigMap")
    config = yaml.safe_load(settings["controller_manager_config.yaml"]) | {
        "internalCertManagement": {"enable": False},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manager = f"exec {module_dir('kueue') / 'kueue'} --config={folder / 'config.yaml'}"
    mounts = f"mount -t tmpfs none /etc && mkdir -p {METRICS_CERTIFICATES}"
    script = f"{mounts} && ln -s {certificates} {METRICS_CERTIFICATES}/certs && {manager}"
    log, environment = folder / "kueue.log", {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "HOME": str(folder)}
    with run_process(["unshare", "--mount", "sh", "-c", script], log, environment) as process:
        wait_until("Kueue", lambda: _is_ready(health) or process.poll() is not None)
        assert process.poll() is None, log.read_text()[-3000:]
        yield


def _render() -> list[Body]:
    return load(helm("template", "kueue", str(module_dir("kueue") / "chart"), f"--namespace={NAMESPACE}"))


def _install(plane: ControlPlane, bodies: list[Body], address: str) -> None:
    """Create Kueue's definitions and webhooks; it runs as the administrator, so it needs no roles."""
    authority = base64.b64encode(plane.certificate.read_bytes()).decode()

    def reach(client: Body) -> Body:
        """Point a webhook at loopback, since Services lead nowhere without a node."""
        return {"url": address + client["service"].get("path", "/convert"), "caBundle": authority}

    definitions = [body for body in bodies if body["kind"] == "CustomResourceDefinition"]
    for definition in definitions:
        if webhook := definition["spec"].get("conversion", {}).get("webhook"):
            webhook["clientConfig"] = reach(webhook["clientConfig"])
    hooks = [body for body in bodies if body["kind"].endswith("WebhookConfiguration")]
    for hook in hooks:
        own = [one for one in hook["webhooks"] if one["rules"][0]["apiGroups"][0] in GROUPS]
        hook["webhooks"] = [one | {"clientConfig": reach(one["clientConfig"])} for one in own]
    api = Api(plane, NAMESPACE)
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for definition in definitions:
        api.create(DEFINITIONS, definition)
    wait_until("the definitions of Kueue", lambda: all(map(_is_established, api.list(DEFINITIONS))))
    plane.kubectl("create", "--filename=-", text=yaml.safe_dump_all(hooks))


def _is_established(definition: Body) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any((c["type"], c["status"]) == ("Established", "True") for c in conditions)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30):
            return True
    except OSError:
        return False


def create(api: Api, path: str, kind: str, name: str, **fields: object) -> None:
    """Create an object of Kueue."""
    api.create(path, {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, **fields})


class Queue:
    """The LocalQueue ``exports`` of a namespace, and behind it a ClusterQueue with a quota of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, cpu: str = "2", checks: tuple[str, ...] = ()) -> None:
        """Create both, with the given CPUs and plenty of everything else."""
        name, strategy = self._api.namespace, {"admissionChecks": [{"name": check} for check in checks]}
        create(self._api, FLAVORS, "ResourceFlavor", name)
        spec = {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": self._quota(cpu),
            **({"admissionChecksStrategy": strategy} if checks else {}),
        }
        create(self._api, CLUSTER_QUEUES, "ClusterQueue", name, spec=spec)
        create(self._api, LOCAL_QUEUES, "LocalQueue", "exports", spec={"clusterQueue": name})

    def resize(self, cpu: str) -> None:
        """Change the quota of the ClusterQueue."""
        self._api.patch(f"{CLUSTER_QUEUES}/{self._api.namespace}", {"spec": {"resourceGroups": self._quota(cpu)}})

    def _quota(self, cpu: str) -> list[Body]:
        amounts = {"cpu": cpu, "memory": "1Ti", "ephemeral-storage": "1Ti"}
        quotas = [{"name": resource, "nominalQuota": amount} for resource, amount in amounts.items()]
        return [{"coveredResources": list(amounts), "flavors": [{"name": self._api.namespace, "resources": quotas}]}]
