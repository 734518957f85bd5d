"""Argo CD with all its parts against a control plane: redis, the repository server, the application controller."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from health_cases import ARGOCD
from integration.api import Api, Body
from integration.control_plane import TIMEOUT_SECONDS, ControlPlane, run_process, wait_until
from ports import free_port
from testcluster.layout import module_dir
from testcluster.tools import install_gitops

NAMESPACE = "argocd"
APPLICATIONS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/applications"
PROJECT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default", "namespace": NAMESPACE},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}
"""What Argo CD's own server makes at its first start."""
REFRESH = "argocd.argoproj.io/refresh"


def in_wave(wave: int, body: Body) -> Body:
    """Set the sync wave of an object: it is applied when all earlier waves are healthy."""
    annotations = {**body["metadata"].get("annotations", {}), "argocd.argoproj.io/sync-wave": str(wave)}
    return body | {"metadata": body["metadata"] | {"annotations": annotations}}


def run_argocd(*arguments: str) -> str:
    """Run the real command line of Argo CD and return its output.

    Raises:
        AssertionError: it failed; the message is its output.
    """
    command = [str(module_dir("argocd") / "argocd"), *arguments]
    environment = {**os.environ, "ARGOCD_BINARY_NAME": "argocd"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def start_argocd(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """Install Argo CD by its own manifests, add our health script as users do, and run it."""
    install_gitops()
    _install(plane)
    redis, repositories = free_port(), free_port()
    server = [f"--port={repositories}", "--address=127.0.0.1", "--metrics-address=127.0.0.1", "--disable-tls"]
    controller = [f"--repo-server=127.0.0.1:{repositories}", "--repo-server-plaintext", f"--namespace={NAMESPACE}"]
    # A sync that starts before a definition is served would wait two minutes for Argo CD's next refresh.
    controller += ["--app-resync=5", "--app-resync-jitter=0", "--persist-resource-health"]
    with ExitStack() as stack:
        store = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        stack.enter_context(run_process(store, folder / "redis.log"))
        for role, flags in (("argocd-repo-server", server), ("argocd-application-controller", controller)):
            command = [str(module_dir("argocd") / "argocd"), *flags]
            command += [f"--redis=127.0.0.1:{redis}", f"--metrics-port={free_port()}"]
            environment = _environment(plane, folder) | {"ARGOCD_BINARY_NAME": role}
            stack.enter_context(run_process(command, folder / f"{role}.log", environment))
        yield


def _install(plane: ControlPlane) -> None:
    manifests = module_dir("argocd") / "manifests"
    plane.kubectl("create", "namespace", NAMESPACE)
    definitions = [f"--filename={path}" for path in manifests.glob("crds/*-crd.yaml")]
    plane.kubectl("create", *definitions)
    settings = [f"--filename={path}" for path in manifests.glob("base/config/argocd-*.yaml")]
    plane.kubectl("create", f"--namespace={NAMESPACE}", *settings)
    wait_until("the projects to be served", lambda: "appprojects" in plane.kubectl("api-resources", "--output=name"))
    plane.kubectl("create", "--filename=-", text=json.dumps(PROJECT))
    script = f"--filename={ARGOCD / 'argocd-cm.yaml'}"
    plane.kubectl("apply", "--server-side", "--field-manager=modelexport", script)


def _environment(plane: ControlPlane, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        # Applications name the API server of the kubeconfig kubernetes.default.svc.
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_ASK_PASS_SOCK": str(folder / "ask-pass.sock"),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


@dataclass(frozen=True)
class State:
    """The state of an Application in Argo CD."""

    sync: str
    health: str


class Application:
    """An Application with a git repository of its own, built from the manifest that users start with.

    ``api`` is the administrator's view of the namespace into which it syncs.
    """

    def __init__(self, plane: ControlPlane, name: str, repository: Path) -> None:
        self.name = name
        self.api = Api(plane, name)
        self._argocd = Api(plane, NAMESPACE)
        self._repository = repository
        _git(repository, "init", "--quiet", "--initial-branch=main")

    def create(self) -> None:
        """Create the Application; its objects go to a namespace of the same name."""
        body: Body = yaml.safe_load((ARGOCD / "application.yaml").read_text())
        body["metadata"]["name"] = body["spec"]["destination"]["namespace"] = self.name
        body["spec"]["source"]["repoURL"] = f"file://{self._repository}"
        self._argocd.create(APPLICATIONS, body)

    def commit(self, files: Mapping[str, Body | None]) -> None:
        """Commit objects by file name (None removes the file), and have Argo CD refresh at once."""
        for name, content in files.items():
            path = self._repository / name
            path.unlink() if content is None else path.write_text(yaml.safe_dump(content))
        _git(self._repository, "add", "--all")
        author = ("-c", "user.name=test", "-c", "user.email=test@modelexport.dev")
        _git(self._repository, *author, "commit", "--quiet", "--allow-empty", f"--message={', '.join(files)}")

    def refresh(self, how: str = "normal") -> None:
        """Have Argo CD compare, and wait until it has; ``hard`` ignores its caches."""
        self._argocd.patch(f"{APPLICATIONS}/{self.name}", {"metadata": {"annotations": {REFRESH: how}}})
        wait_until("the refresh", lambda: REFRESH not in self.body()["metadata"].get("annotations", {}))

    def body(self) -> Body:
        return self._argocd.get(APPLICATIONS, self.name)

    def state(self) -> State:
        status = self.body().get("status", {})
        return State(status.get("sync", {}).get("status", ""), status.get("health", {}).get("status", ""))

    def health_of(self, name: str) -> Body:
        """The health of a resource: status and message."""
        resources = self.body()["status"]["resources"]
        health: Body = next(resource["health"] for resource in resources if resource["name"] == name)
        return health

    def operation(self) -> dict[str, Any]:
        """The last sync: its phase, its message, and the results of its resources."""
        state: dict[str, Any] = self.body().get("status", {}).get("operationState", {})
        return state

    def wait_for(self, sync: str, health: str, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait for a state."""
        wanted = State(sync, health)
        try:
            wait_until(f"{self.name} to be {wanted}", lambda: self.state() == wanted, seconds)
        except TimeoutError as error:
            raise AssertionError(json.dumps(self.body().get("status"), indent=1)) from error

    @contextmanager
    def recorded(self) -> Iterator[list[State]]:
        """Record every observed state, without repetitions in a row, including the first and the last one."""
        stop, seen = threading.Event(), list[State]()

        def look() -> None:
            state = self.state()
            if seen[-1:] != [state]:
                seen.append(state)

        def work() -> None:
            while not stop.wait(0.05):
                look()

        look()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
            look()


def _git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repository), *arguments], check=True)
