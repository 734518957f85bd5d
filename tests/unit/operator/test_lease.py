import base64
import json

import pytest

from modelexport_operator.lease import Sighting, build_lease, claim, look, may_hold, owner_of_token, release
from unit.operator.objects import Body

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
def test_a_lease_is_taken_only_from_nobody_or_after_its_time(
    holder: str, candidate: str, seconds_unchanged: float, may: bool
) -> None:
    sighting = Sighting(make_lease(holder), since=1000)
    assert may_hold(sighting, candidate, now=1000 + seconds_unchanged) is may


def test_how_long_to_wait_is_what_the_holder_promised() -> None:
    assert not may_hold(Sighting(make_lease(seconds=60), since=0), "b", now=59)
    assert may_hold(Sighting(make_lease(seconds=1), since=0), "b", now=2)


def test_the_times_in_the_lease_are_not_compared_with_any_clock() -> None:
    ancient, future = (Sighting(make_lease(renewed=f"{year}-01-01T00:00:00Z"), since=0) for year in (1999, 2999))
    assert not may_hold(ancient, "b", now=10)
    assert may_hold(future, "b", now=16)


def test_a_renewal_begins_the_wait_anew_and_another_look_does_not() -> None:
    first = look(None, make_lease(), now=10)
    same = look(first, make_lease(), now=20)
    renewed = look(same, make_lease(renewed=LATER), now=30)
    assert [sighting.since for sighting in (first, same, renewed)] == [10, 10, 30]


def test_what_others_write_beside_the_spec_is_no_renewal() -> None:
    touched = make_lease()
    touched["metadata"] = {"resourceVersion": "2", "annotations": {"seen": "yes"}}
    sighting = look(look(None, make_lease(), now=10), touched, now=20)
    assert (sighting.since, sighting.lease) == (10, touched)


def test_taking_a_lease_counts_and_renewing_it_does_not() -> None:
    fresh = build_lease("system", "lease", owner=None)
    taken = claim(fresh, "a", 15, "t1")
    renewed = claim(taken, "a", 15, "t2")
    lost = claim(renewed, "b", 30, "t3")
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


def test_a_lease_that_was_given_back_may_be_taken_at_once() -> None:
    assert may_hold(look(None, release(make_lease("a")), now=0), "b", now=0)


def make_token(claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, {})
    )


def test_the_lease_belongs_to_the_service_account_of_the_operator() -> None:
    account = {"name": "operator", "uid": "uid-9"}
    token = make_token({"kubernetes.io": {"namespace": "system", "serviceaccount": account}})
    owner = owner_of_token(token, "system")
    assert owner == {"apiVersion": "v1", "kind": "ServiceAccount", **account}
    assert build_lease("system", "lease", owner)["metadata"]["ownerReferences"] == [owner]
    # An owner in another namespace does not exist for the garbage collector, which would delete the Lease.
    assert owner_of_token(token, "elsewhere") is None


@pytest.mark.parametrize("token", ["", "integration-admin", "a.b.c", "a.!.c", make_token([]), make_token({"sub": "x"})])
def test_a_token_of_another_kind_names_no_owner(token: str) -> None:
    assert owner_of_token(token, "system") is None
    assert "ownerReferences" not in build_lease("system", "lease", None)["metadata"]
