import base64
import json

import pytest

from modelexport_operator.leadership.lease import (
    ObservedLease,
    build_lease,
    can_acquire,
    claimed,
    observe,
    owner_of_token,
    released,
)
from testplane.objects import Body

LATER = "2026-01-02T03:04:05.000000Z"


def make_lease(holder: str = "a", seconds: int = 15, renewed: str = "2026-01-01T00:00:00.000000Z") -> Body:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed}
    return {"metadata": {"name": "lease", "resourceVersion": "1"}, "spec": spec}


@pytest.mark.parametrize(
    ("holder", "candidate", "seconds_unchanged", "may"),
    [
        ("a", "b", 0, False),
        ("a", "b", 15, False),
        ("a", "b", 15.1, True),
        ("a", "a", 0, True),
        ("a", "a", 99, True),
        ("", "b", 0, True),
    ],
)
def test_lease_is_acquired_only_when_free_or_expired(
    holder: str, candidate: str, seconds_unchanged: float, may: bool
) -> None:
    sighting = ObservedLease(make_lease(holder), since=1000)
    assert can_acquire(sighting, candidate, now=1000 + seconds_unchanged) is may


def test_wait_is_lease_duration_of_holder() -> None:
    assert not can_acquire(ObservedLease(make_lease(seconds=60), since=0), "b", now=59)
    assert can_acquire(ObservedLease(make_lease(seconds=1), since=0), "b", now=2)


def test_lease_times_are_not_compared_with_local_clock() -> None:
    ancient, future = (ObservedLease(make_lease(renewed=f"{year}-01-01T00:00:00Z"), since=0) for year in (1999, 2999))
    assert not can_acquire(ancient, "b", now=10)
    assert can_acquire(future, "b", now=16)


def test_only_renewal_restarts_wait() -> None:
    first = observe(None, make_lease(), now=10)
    same = observe(first, make_lease(), now=20)
    renewed = observe(same, make_lease(renewed=LATER), now=30)
    assert [sighting.since for sighting in (first, same, renewed)] == [10, 10, 30]


def test_metadata_change_is_no_renewal() -> None:
    touched = make_lease()
    touched["metadata"] = {"resourceVersion": "2", "annotations": {"seen": "yes"}}
    sighting = observe(observe(None, make_lease(), now=10), touched, now=20)
    assert (sighting.since, sighting.lease) == (10, touched)


def test_acquisition_counts_transition_but_renewal_does_not() -> None:
    fresh = build_lease("system", "lease", owner=None)
    taken = claimed(fresh, "a", 15, "t1")
    renewed = claimed(taken, "a", 15, "t2")
    lost = claimed(renewed, "b", 30, "t3")
    assert taken["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "t1",
        "renewTime": "t1",
        "leaseTransitions": 0,
    }
    assert renewed["spec"] == {**taken["spec"], "renewTime": "t2"}
    assert lost["spec"] == {
        "holderIdentity": "b",
        "leaseDurationSeconds": 30,
        "acquireTime": "t3",
        "renewTime": "t3",
        "leaseTransitions": 1,
    }
    assert lost["metadata"] == fresh["metadata"]


def test_released_lease_may_be_acquired_at_once() -> None:
    assert can_acquire(observe(None, released(make_lease("a")), now=0), "b", now=0)


def make_token(claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, {})
    )


def test_lease_is_owned_by_service_account() -> None:
    account = {"name": "operator", "uid": "uid-9"}
    token = make_token({"kubernetes.io": {"namespace": "system", "serviceaccount": account}})
    owner = owner_of_token(token, "system")
    assert owner == {"apiVersion": "v1", "kind": "ServiceAccount", **account}
    assert build_lease("system", "lease", owner)["metadata"]["ownerReferences"] == [owner]
    # An owner in another namespace does not exist for the garbage collector, which would delete the Lease.
    assert owner_of_token(token, "elsewhere") is None


@pytest.mark.parametrize("token", ["", "integration-admin", "a.b.c", "a.!.c", make_token([]), make_token({"sub": "x"})])
def test_other_token_names_no_owner(token: str) -> None:
    assert owner_of_token(token, "system") is None
    assert "ownerReferences" not in build_lease("system", "lease", None)["metadata"]
