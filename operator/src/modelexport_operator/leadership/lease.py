"""The rules of leader election on a Lease, as in client-go (tools/leaderelection). Pure.

The clocks of machines differ. So no time from a Lease is compared with the local clock: only the time for which this
process has seen the Lease unchanged counts. All times here are seconds of the local monotonic clock.
"""

import base64
import binascii
import json
from dataclasses import dataclass

from modelexport_operator.kube.objects import Lease, LeaseSpec, ObjectMeta, OwnerReference

API_VERSION = "coordination.k8s.io/v1"
KIND = "Lease"


@dataclass(frozen=True)
class ObservedLease:
    """A Lease, and since when this process has seen it unchanged."""

    lease: Lease
    since: float

    @property
    def holder(self) -> str:
        """The identity of its holder; empty if it has none."""
        return spec_of(self.lease).get("holderIdentity") or ""


def spec_of(lease: Lease) -> LeaseSpec:
    """Return the spec of a Lease; empty before its first holder."""
    spec: LeaseSpec = lease.get("spec") or {}
    return spec


def observe(before: ObservedLease | None, lease: Lease, now: float) -> ObservedLease:
    """Record the current state of a Lease; each renewal restarts the wait for its expiry."""
    unchanged = before is not None and spec_of(before.lease) == spec_of(lease)
    return ObservedLease(lease, before.since if before is not None and unchanged else now)


def can_acquire(observed: ObservedLease, identity: str, now: float) -> bool:
    """Return whether a candidate may acquire or renew a Lease: no other holder exists, or its Lease has expired."""
    duration = spec_of(observed.lease).get("leaseDurationSeconds") or 0
    return observed.holder in ("", identity) or now > observed.since + duration


def build_lease(namespace: str, name: str, owner: OwnerReference | None) -> Lease:
    """Build a Lease without a holder, to be deleted with its owner."""
    metadata: ObjectMeta = {"namespace": namespace, "name": name}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {}}


def claimed(lease: Lease, identity: str, seconds: int, at: str) -> Lease:
    """Return the Lease as its holder writes it.

    Args:
        lease: the Lease as it was read; its version makes the write fail if another candidate is faster.
        identity: the candidate.
        seconds: within how many seconds it has to renew the Lease.
        at: the time as Kubernetes writes it, only for people.
    """
    spec: LeaseSpec = {**spec_of(lease)}
    if spec.get("holderIdentity") != identity:
        spec["acquireTime"] = at
        spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
    spec |= {"holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": at}
    return {**lease, "spec": spec}


def released(lease: Lease) -> Lease:
    """Return the Lease without its holder, so that another candidate can acquire it at once."""
    return {**lease, "spec": {**spec_of(lease), "holderIdentity": ""}}


def owner_of_token(token: str, namespace: str) -> OwnerReference | None:
    """Return the service account of a token of a namespace, as an owner reference.

    An uninstaller removes the account, and with it the Lease, which no installer knows.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
        account = claims["serviceaccount"]
        owner: OwnerReference = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "name": account["name"],
            "uid": account["uid"],
        }
        return owner if claims["namespace"] == namespace else None
    except (binascii.Error, IndexError, KeyError, TypeError, ValueError):
        return None
