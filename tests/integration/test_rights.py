"""Each right of the operator is needed: without it a step fails, and the operator names the missing right."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from integration.api import CLASSES, EXPORTS, JOBS, NODES, PODS, Api, Body
from integration.control_plane import OPERATOR_USER, ControlPlane
from integration.installation import rights_of_the_operator
from integration.kubelet import play_kubelet, run, succeed
from integration.process import Operator
from unit.operator.objects import make_class, make_export, make_node

ROLES = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}",
}
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
OFTEN = {"MODELEXPORT_WATCH_CHECK_SECONDS": "0.5", "MODELEXPORT_WATCH_LAG_TOLERANCE_SECONDS": "1"}
ELECTED = {"MODELEXPORT_LEADER_ELECTION": "true", **OFTEN}

Right = tuple[str, str]
"""Resource (with its subresource) and verb."""


def begin(api: Api, **spec: Any) -> None:
    body = make_export("ONNX/FP16", **spec)
    body["metadata"] = {"name": "shapes"}
    api.create(EXPORTS, body)


def end_in_time(api: Api) -> None:
    """Create an export, let it end, and delete it."""
    begin(api, ttlSecondsAfterFinished=1)


def bind_files(api: Api) -> None:
    """Create an export whose files are deleted with it."""
    begin(api, deletionPolicy="Delete")


def suspend(api: Api) -> None:
    """Create an export, and suspend it as soon as it has a Job."""
    begin(api)
    api.wait_for("the Job", lambda: api.list(JOBS))
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})


def wait_in_queue(api: Api) -> None:
    """Create an export whose Jobs wait for Kueue."""
    api.create(CLASSES, make_class(api.namespace, default=False, jobs={"queueName": "exports"}))
    begin(api, className=api.namespace)


def suspend_in_queue(api: Api) -> None:
    """Create an export whose Jobs Kueue would resume, and suspend it as soon as it has a Job."""
    wait_in_queue(api)
    api.wait_for("the Job", lambda: api.list(JOBS))
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})


def lack_priority(api: Api) -> None:
    """Create an export whose Pods are refused."""
    jobs = {"priorityClassName": "nobody-made-it"}
    api.create(CLASSES, make_class(api.namespace, default=False, jobs=jobs))
    begin(api, className=api.namespace)


AT_WORK: dict[Right, tuple[Callable[[Api], None], str]] = {
    ("modelexports", "delete"): (end_in_time, 'cannot delete resource "modelexports"'),
    ("modelexports", "patch"): (bind_files, 'cannot patch resource "modelexports"'),
    ("modelexports/status", "update"): (begin, 'cannot update resource "modelexports/status"'),
    ("modelexports/finalizers", "update"): (begin, "cannot set blockOwnerDeletion"),
    ("jobs", "create"): (begin, 'cannot create resource "jobs"'),
    ("jobs", "patch"): (suspend, 'cannot patch resource "jobs"'),
    ("jobs", "delete"): (suspend_in_queue, 'cannot delete resource "jobs"'),
    ("events", "list"): (lack_priority, 'cannot list resource "events"'),
    ("workloads", "list"): (wait_in_queue, 'cannot list resource "workloads"'),
    ("events", "create"): (begin, 'cannot create resource "events"'),
}
"""What is needed while exports are served: what has to happen to see it, and what is said then."""
AT_START: list[Right] = [
    (resource, verb)
    for resource in ("modelexports", "exportclasses", "jobs", "pods", "nodes")
    for verb in ("list", "watch")
]
"""What is needed to become ready, and to stay healthy."""
TO_LEAD: list[Right] = [("leases", "get"), ("leases", "create"), ("leases", "update")]


def rights_in(role: Body) -> set[Right]:
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def test_every_rbac_rule_of_chart_is_exercised() -> None:
    granted = set().union(*map(rights_in, rights_of_the_operator()))
    assert granted == {*AT_WORK, *AT_START, *TO_LEAD}


@contextmanager
def without(plane: ControlPlane, right: Right) -> Iterator[None]:
    """Take one right from the operator, and give it back."""
    api = Api(plane, "default")
    [role] = [body for body in rights_of_the_operator() if right in rights_in(body)]
    path = ROLES[role["kind"]].format_map(role["metadata"])
    api.patch(path, {"rules": [rule for rule in (narrow(rule, right) for rule in role["rules"]) if rule["verbs"]]})
    try:
        api.wait_for("the right to be gone", lambda: not is_allowed(api, right))
        yield
    finally:
        api.patch(path, {"rules": role["rules"]})
        api.wait_for("the right to be back", lambda: is_allowed(api, right))


def narrow(rule: Body, right: Right) -> Body:
    """Remove a verb on a resource from a rule; each rule of these roles covers one resource."""
    resource, verb = right
    narrowed = deepcopy(rule)
    if rule["resources"] == [resource]:
        narrowed["verbs"] = [kept for kept in rule["verbs"] if kept != verb]
    return narrowed


def is_allowed(api: Api, right: Right) -> bool:
    """Whether a right is in force: the API server's authorizer learns of changes by watching the roles."""
    resource, _, subresource = right[0].partition("/")
    group = next(
        rule["apiGroups"][0]
        for role in rights_of_the_operator()
        for rule in role["rules"]
        if right[0] in rule["resources"]
    )
    attributes = {
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": right[1],
        "namespace": "modelexport-system",
        "name": "" if right[1] == "create" else "modelexport-operator",
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": OPERATOR_USER, "resourceAttributes": attributes},
    }
    return bool(api.create(REVIEWS, review)["status"]["allowed"])


def log_of(operator: Operator, begun: int = 0) -> str:
    """The log of an operator since a position; quotation marks in its JSON lines are escaped."""
    return operator.log.read_bytes()[begun:].decode().replace('\\"', '"')


@pytest.mark.parametrize("right", AT_WORK, ids="-".join)
def test_running_operator_reports_missing_right(
    api: Api, plane: ControlPlane, operator: Operator, right: Right
) -> None:
    happen, words = AT_WORK[right]
    begun = operator.log.stat().st_size

    def is_told() -> bool:
        return words in log_of(operator, begun) or words in str(api.get(EXPORTS, "shapes").get("status"))

    with without(plane, right), play_kubelet(api, run if happen is suspend else succeed):
        happen(api)
        api.wait_for("the lack to be told", is_told)


@pytest.fixture(scope="module")
def busy_namespace(plane: ControlPlane, operator: Operator) -> Iterator[None]:
    """One object of each kind that the operator watches."""
    api = Api(plane, "default")
    api.create(NODES, make_node("busy"))
    begin(api)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    yield
    api.delete(EXPORTS, "shapes")
    api.delete(NODES, "busy")


@pytest.mark.parametrize("right", AT_START, ids="-".join)
def test_operator_without_list_rights_is_unhealthy(
    plane: ControlPlane, tmp_path: Path, busy_namespace: None, right: Right
) -> None:
    operator = Operator(plane.address, tmp_path, plane.certificate, **OFTEN)
    api, changes = Api(plane, "default"), count()
    deaf = re.compile(rf"the watch is behind by \d+ {right[0]}")

    def has_failed() -> bool:
        """Whether it has ended, or is unhealthy at both addresses; a restarting watch is silent only for a moment."""
        touch(api, right[0], str(next(changes)))
        answers = [operator.ask(path) for path in ("/healthz", "/readyz")]
        return not operator.is_alive() or all(code == 503 and deaf.search(text) for code, text in answers)

    with without(plane, right), operator.started():
        api.wait_for("the end, or the alarm", has_failed)
    assert f'cannot {right[1]} resource "{right[0]}"' in log_of(operator)


def touch(api: Api, resource: str, value: str) -> None:
    """Annotate every object of a kind, so that the watch sends an event."""
    path = {"modelexports": EXPORTS, "exportclasses": CLASSES, "jobs": JOBS, "pods": PODS, "nodes": NODES}[resource]
    for body in api.list(path):
        api.patch(f"{path}/{body['metadata']['name']}", {"metadata": {"annotations": {"touched": value}}})


@pytest.mark.parametrize("right", TO_LEAD, ids="-".join)
def test_operator_without_lease_rights_is_not_ready(plane: ControlPlane, tmp_path: Path, right: Right) -> None:
    api = Api(plane, "default")
    operator = Operator(plane.address, tmp_path, plane.certificate, **ELECTED)
    words = f'cannot {right[1]} resource "leases"'
    with without(plane, right), operator.started():
        api.wait_for("the lack to be told", lambda: words in operator.ask("/readyz")[1])
        assert operator.ask("/readyz")[0] == 503
        assert "modelexport_leader 0.0" in operator.ask("/metrics")[1]
    plane.kubectl("delete", "leases", "--all", "--namespace=modelexport-system")
