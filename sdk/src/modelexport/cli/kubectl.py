"""Runs the user's kubectl, with the user's credentials and rights."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from modelexport import names
from modelexport.client.cluster import Body
from modelexport.errors import BadInput

REQUEST_SECONDS = 60
EXPORTS = f"{names.EXPORT_PLURAL}.{names.GROUP}"


@dataclass(frozen=True)
class Kubectl:
    """A ``Cluster`` through kubectl, with flags for the cluster and the namespace; every method raises ``BadInput``."""

    flags: Sequence[str] = ()

    def run(self, *arguments: str, text: str = "") -> str:
        """Run kubectl and return its output.

        Raises:
            BadInput: kubectl is missing, fails or times out.
        """
        command = ["kubectl", *self.flags, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - arguments, not a shell
                command, input=text, capture_output=True, text=True, check=False, timeout=REQUEST_SECONDS
            )
        except FileNotFoundError as error:
            raise BadInput("kubectl is not on the PATH; install it, or read a local run with --store") from error
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"kubectl {arguments[0]} timed out after {REQUEST_SECONDS} s; try again") from error
        if done.returncode != 0:
            raise BadInput(f"kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def read_export(self, name: str) -> Body:
        """Return a ModelExport."""
        return self._read(EXPORTS, name)

    def list_jobs(self, selector: str) -> list[Body]:
        """Return the Jobs that a label selector matches."""
        jobs: list[Body] = self._read("jobs.batch", f"--selector={selector}")["items"]
        return jobs

    def create_pod(self, pod: Body) -> None:
        """Create a Pod."""
        self.run("create", "--filename=-", text=json.dumps(pod))

    def read_pod(self, name: str) -> Body:
        """Return a Pod."""
        return self._read("pod", name)

    def read_log(self, name: str, limit: int) -> str:
        """Return at most the first ``limit`` bytes of the log of a Pod."""
        return self.run("logs", name, f"--limit-bytes={limit}")

    def delete_pod(self, name: str) -> None:
        """Delete a Pod, unless it has gone, and do not wait for its end."""
        self.run("delete", "pod", name, "--wait=false", "--ignore-not-found")

    def _read(self, *arguments: str) -> Body:
        """Run ``kubectl get`` and return the object or the list."""
        body: Body = json.loads(self.run("get", *arguments, "--output=json"))
        return body
