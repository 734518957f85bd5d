"""Who may lead, by the rules of Kubernetes' own leader election (client-go, tools/leaderelection). Pure.

The clocks of machines differ. So no time that stands in a Lease is compared with the local clock: what counts is for
how long this process has seen the Lease unchanged. All times here are seconds of the local monotonic clock.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from modelexport_operator.pods import Object

API_VERSION = "coordination.k8s.io/v1"
KIND = "Lease"


@dataclass(frozen=True)
class Sighting:
    """A Lease, and since when it has been seen unchanged."""

    lease: Object
    since: float

    @property
    def holder(self) -> str:
        """Who holds it; empty when nobody does."""
        return spec_of(self.lease).get("holderIdentity") or ""


def spec_of(lease: Object) -> Object:
    """What a Lease says; empty before anybody held it."""
    spec: Object = lease.get("spec") or {}
    return spec


def look(before: Sighting | None, lease: Object, now: float) -> Sighting:
    """Note how a Lease looks now; every renewal by its holder begins the wait for its end anew."""
    unchanged = before is not None and spec_of(before.lease) == spec_of(lease)
    return Sighting(lease, before.since if before is not None and unchanged else now)


def may_hold(sighting: Sighting, identity: str, now: float) -> bool:
    """Whether a candidate may take or renew a Lease: nobody else holds it, or its holder has let it run out."""
    promised = spec_of(sighting.lease).get("leaseDurationSeconds") or 0
    return sighting.holder in ("", identity) or now > sighting.since + promised


def build_lease(namespace: str, name: str, owner: Object | None) -> dict[str, Any]:
    """Build a Lease that nobody holds; it goes with its owner."""
    metadata: dict[str, Any] = {"namespace": namespace, "name": name}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {}}


def claim(lease: Object, identity: str, seconds: int, at: str) -> dict[str, Any]:
    """Build the Lease as its holder writes it.

    Args:
        lease: the Lease as it was read; its version makes the write fail when somebody else is faster.
        identity: the candidate.
        seconds: for how long it promises to renew it.
        at: the time as Kubernetes writes it, for people to read.
    """
    spec = dict(spec_of(lease))
    if spec.get("holderIdentity") != identity:
        spec["acquireTime"] = at
        spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
    spec |= {"holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": at}
    return {**lease, "spec": spec}


def release(lease: Object) -> dict[str, Any]:
    """Build the Lease as its holder leaves it: anybody may take it at once."""
    return {**lease, "spec": {**spec_of(lease), "holderIdentity": ""}}


def owner_of_token(token: str, namespace: str) -> dict[str, Any] | None:
    """Return the service account that a token of a namespace was made for, as an owner reference.

    What an installer removes is the account; the Lease, which no installer knows, goes with it.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
        account = claims["serviceaccount"]
        owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": account["name"], "uid": account["uid"]}
        return owner if claims["namespace"] == namespace else None
    except (binascii.Error, IndexError, KeyError, TypeError, ValueError):
        return None
