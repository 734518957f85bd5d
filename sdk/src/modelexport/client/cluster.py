"""What reading an export and signing its links need of a cluster; kubectl and the Kubernetes API each offer it."""

from typing import Any, Protocol

Body = dict[str, Any]


class Cluster(Protocol):
    """One namespace of a cluster, with the rights of the user."""

    def read_export(self, name: str) -> Body:
        """Return a ModelExport."""

    def list_jobs(self, selector: str) -> list[Body]:
        """Return the Jobs that a label selector matches."""

    def create_pod(self, pod: Body) -> None:
        """Create a Pod."""

    def read_pod(self, name: str) -> Body:
        """Return a Pod."""

    def read_log(self, name: str, limit: int) -> str:
        """Return at most the first ``limit`` bytes of the log of a Pod."""

    def delete_pod(self, name: str) -> None:
        """Delete a Pod, unless it has gone, and do not wait for its end."""
