"""Three contenders that create the same Jobs: a single client, our operator, and JobSet.

Each creates the Jobs that the operator would create, with the same Pods.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from benchmarks.operator.jobset import JOBSETS, run_jobset
from benchmarks.operator.scale_plane import NAMESPACE, wait_until_served
from benchmarks.targets import NINE
from testplane.api import CLASSES, EXPORTS, JOBS, Api
from testplane.control_plane import ControlPlane
from testplane.installation import install_definitions
from testplane.objects import build_all, make_class, make_export
from testplane.process import Operator

JOBS_EACH = len(NINE)
JOBS_PATH = JOBS.format(NAMESPACE)

Body = dict[str, Any]


class Contender(ABC):
    """Creates Jobs by some kind of objects, whose status may report when Jobs are done.

    ``parents`` is the path of the objects that report on Jobs; empty if nothing reports.
    """

    name: str
    path: str
    parents: str = ""

    @abstractmethod
    def bodies(self, objects: int) -> Iterator[Body]:
        """Yield the objects that the client creates, for ``objects`` parents of nine Jobs each."""

    @abstractmethod
    def running(self, plane: ControlPlane) -> Any:
        """Return a context in which the controller runs; yields its process id, if it is a process."""

    def finished_jobs(self, parent: Body) -> Sequence[str]:
        """Return the Jobs that the status of a parent reports as done: their names, or an empty name each if it only
        counts.
        """
        raise NotImplementedError(f"{self.name} has no parents: {parent}")

    def is_finished(self, parent: Body) -> bool:
        """Return whether the status of a parent reports that all Jobs are done."""
        raise NotImplementedError(f"{self.name} has no parents: {parent}")


class PlainJobs(Contender):
    """The upper bound: the client creates the Jobs itself, and nothing reports."""

    name = "plain Jobs"
    path = JOBS_PATH

    def bodies(self, objects: int) -> Iterator[Body]:
        for index in range(objects):
            yield from _jobs_of(index)

    @contextmanager
    def running(self, plane: ControlPlane) -> Iterator[None]:
        yield None


class ModelExports(Contender):
    """Our operator as a process."""

    name = "ModelExport"
    path = parents = EXPORTS.format(NAMESPACE)

    def bodies(self, objects: int) -> Iterator[Body]:
        yield from map(self.body, range(objects))

    def body(self, index: int) -> Body:
        """Return one export as a client creates it."""
        export = _export(index)
        del export["metadata"]["uid"], export["metadata"]["generation"]
        return export

    @contextmanager
    def running(self, plane: ControlPlane) -> Iterator[int]:
        install_definitions(plane)
        for path in (CLASSES, self.path):
            wait_until_served(plane, path)
        Api(plane, NAMESPACE).create(CLASSES, make_class())
        operator = Operator(plane.address, plane.folder, plane.certificate)
        with operator.running():
            yield operator.pid

    def finished_jobs(self, parent: Body) -> Sequence[str]:
        targets = parent.get("status", {}).get("targets", [])
        return [target["jobName"] for target in targets if target["state"] == "Succeeded"]

    def is_finished(self, parent: Body) -> bool:
        conditions = parent.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class JobSets(Contender):
    """JobSet, with nine replicas of one Job, which is less work than nine different Jobs."""

    name = "JobSet"
    path = parents = JOBSETS

    def bodies(self, objects: int) -> Iterator[Body]:
        job = _jobs_of(0)[0]
        template = {"metadata": {"labels": job["metadata"]["labels"]}, "spec": job["spec"]}
        # Its webhook would add this. NonIndexed Jobs and Pods without DNS names need the least work.
        template["spec"]["completionMode"] = "NonIndexed"
        spec = {
            "network": {"enableDNSHostnames": False},
            "successPolicy": {"operator": "All"},
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "replicatedJobs": [{"name": "target", "replicas": JOBS_EACH, "template": template}],
        }
        for index in range(objects):
            metadata = {"name": f"export-{index}", "namespace": NAMESPACE}
            yield {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": metadata, "spec": spec}

    def running(self, plane: ControlPlane) -> Any:
        return run_jobset(plane)

    def finished_jobs(self, parent: Body) -> Sequence[str]:
        groups = parent.get("status", {}).get("replicatedJobsStatus", [])
        return [""] * sum(group["succeeded"] for group in groups)

    def is_finished(self, parent: Body) -> bool:
        return bool(parent.get("status", {}).get("terminalState") == "Completed")


CONTENDERS: tuple[Contender, ...] = (PlainJobs(), ModelExports(), JobSets())


def _export(index: int) -> Body:
    export = make_export(*map(str, NINE), name=f"export-{index}", uid=f"uid-{index}")
    export["metadata"]["namespace"] = NAMESPACE
    return export


def _jobs_of(index: int) -> list[Body]:
    """Return the Jobs that the operator would create for one export, without their owner."""
    jobs = [deepcopy(job) for job in build_all(_export(index), make_class()).values()]
    for job in jobs:
        del job["metadata"]["ownerReferences"]
    return jobs
