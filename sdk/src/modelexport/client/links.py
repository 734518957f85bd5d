"""Signs links to published files: on this machine if the user has the store's credentials, else in a Pod.

The user creates the Pod, with the user's own rights, from the template of a conversion Job: its image, its Secret and
its restrictions. The Pod prints the links and is deleted. Everyone who can read its log can use the links for an hour.

Everyone who can create Jobs in the namespace can copy our labels. A Job is therefore trusted only if the export is its
controller and the export's status, which the operator writes, names it. The Pod takes the image, the placement and the
names of Secrets from the Job, but no volume, service account or privilege. A link must point to the requested store.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from modelexport import names
from modelexport.client.cluster import Body, Cluster
from modelexport.client.transfer import SET_ENDPOINT
from modelexport.environment import escape, unescape
from modelexport.errors import BadInput
from modelexport.logs import parse_event
from modelexport.signing import Credentials, object_url, presign

POD_TIMEOUT_SECONDS = 180
POLL_SECONDS = 1.0
LOG_LIMIT = 1 << 20
"""Maximum bytes of a Pod's log."""
FOR_PODS = (names.ACCESS_KEY_ENV, names.SECRET_KEY_ENV, names.SESSION_TOKEN_ENV, names.REGION_ENV)
"""Environment variables that the signing Pod copies from a conversion; Secrets by reference, not by value."""
PLACE_FIELDS = ("affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "tolerations")
WORK_DIR = "/work"
NON_ROOT_ID = 65532
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": NON_ROOT_ID,
    "runAsGroup": NON_ROOT_ID,
    "fsGroup": NON_ROOT_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
ENDPOINT_PATTERN = r"https?://[A-Za-z0-9_.:\[\]-]+/?"
RESOURCES = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True)
class Signer:
    """Signs links to the files of an export; ``endpoint`` is the URL of the store from this machine, if given."""

    cluster: Cluster
    export: Body
    endpoint: str | None

    def sign(self, uris: Sequence[str]) -> Mapping[str, str]:
        """Return a link for every URI.

        Raises:
            BadInput: the user has no credentials for the store, and no Pod can sign.
        """
        selector = f"{names.EXPORT_UID_LABEL}={self.export['metadata']['uid']},{names.FORMAT_LABEL}"
        job = next((job for job in self.cluster.list_jobs(selector) if is_job_of(job, self.export)), None)
        entries = job["spec"]["template"]["spec"]["containers"][0].get("env") or () if job else ()
        environment = {entry["name"]: unescape(entry["value"]) for entry in entries if "value" in entry}
        endpoint = self.endpoint or environment.get(names.STORE_ENV)
        if endpoint and not re.fullmatch(ENDPOINT_PATTERN, endpoint):
            raise BadInput(f"{endpoint!r} is not the URL of a store; {SET_ENDPOINT}, for example http://127.0.0.1:9000")
        if not endpoint:
            raise BadInput(f"the export has no Job left from which to read the URL of the store; {SET_ENDPOINT}")
        region = {names.REGION_ENV: environment.get(names.REGION_ENV, names.REGION_DEFAULT)}
        credentials = Credentials.from_environ({**region, **os.environ})
        if credentials:
            return {uri: presign("GET", endpoint, uri, credentials, datetime.now(UTC)) for uri in uris}
        if job is None:
            way_out = f"set {names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV}"
            raise BadInput(f"the export has no Job left with a Secret and an image to sign links; {way_out}")
        return self._sign_in_pod(signing_pod(self.export, job, uris, endpoint), uris, endpoint)

    def _sign_in_pod(self, pod: Body, uris: Sequence[str], endpoint: str) -> Mapping[str, str]:
        name = pod["metadata"]["name"]
        self.cluster.create_pod(pod)
        try:
            end = time.monotonic() + POD_TIMEOUT_SECONDS
            while (status := self.cluster.read_pod(name).get("status", {})).get("phase") != "Succeeded":
                if status.get("phase") == "Failed":
                    raise BadInput(f"Pod {name} could not sign links: {_explain_status(status)}")
                if time.monotonic() > end:
                    raise BadInput(
                        f"Pod {name} did not finish within {POD_TIMEOUT_SECONDS} s: {_explain_status(status)}"
                    )
                time.sleep(POLL_SECONDS)
            lines = self.cluster.read_log(name, LOG_LIMIT).encode().splitlines()
        finally:
            self.cluster.delete_pod(name)
        events = [event for event in map(parse_event, lines) if event.get("event") == "signed"]
        signed = [(str(event.get("uri")), str(event.get("url"))) for event in events]
        links = {uri: url for uri, url in signed if url.partition("?")[0] == object_url(endpoint, uri)}
        if missing := set(uris) - links.keys():
            raise BadInput(
                f"Pod {name} signed no link for {', '.join(sorted(missing))}; check the version of its image"
            )
        return links


def is_job_of(job: Body, export: Body) -> bool:
    """Return whether a Job is controlled by the export and named in its status."""
    metadata, owned = job["metadata"], {"kind": names.EXPORT_KIND, "uid": export["metadata"]["uid"], "controller": True}
    recorded = {target.get("jobName") for target in export.get("status", {}).get("targets") or ()}
    owners = metadata.get("ownerReferences") or ()
    return metadata["name"] in recorded and any(owned.items() <= owner.items() for owner in owners)


def signing_pod(export: Body, job: Body, uris: Sequence[str], endpoint: str) -> Body:
    """Build the Pod that signs links: Pod Security level restricted, with the image and the Secret of a conversion.

    Args:
        export: the export, which owns the Pod: deleting the export deletes the Pod.
        job: one of its Jobs.
        uris: the files.
        endpoint: the store for which the links are signed.
    """
    template = {key: part for key, part in job["spec"]["template"]["spec"].items() if key != "initContainers"}
    container = template["containers"][0]
    kept = [entry for entry in container.get("env") or () if entry["name"] in FOR_PODS]
    own = {
        names.FILES_ENV: json.dumps(list(uris)),
        names.STORE_ENV: endpoint,
        names.WORK_DIR_ENV: WORK_DIR,
        "HOME": WORK_DIR,
    }
    environment = [*kept, *({"name": name, "value": escape(value)} for name, value in own.items())]
    owner = {"apiVersion": names.API_VERSION, "kind": names.EXPORT_KIND}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"modelexport-links-{secrets.token_hex(5)}",
            "labels": {names.MANAGED_BY_LABEL: "modelexport-cli"},
            "ownerReferences": [{**owner, **{key: export["metadata"][key] for key in ("name", "uid")}}],
        },
        "spec": {
            **{field: template[field] for field in PLACE_FIELDS if field in template},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": POD_TIMEOUT_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": "converter",
                    "image": container["image"],
                    "imagePullPolicy": container.get("imagePullPolicy", "IfNotPresent"),
                    "args": [names.PRESIGN],
                    "env": environment,
                    "resources": RESOURCES,
                    "securityContext": CONTAINER_SECURITY,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [{"name": "work", "mountPath": WORK_DIR}],
                }
            ],
            "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }


def _explain_status(status: Body) -> str:
    """Return why a Pod has not succeeded: the message of its container, what it waits for, or its phase."""
    for container in status.get("containerStatuses") or ():
        state = container.get("state", {})
        ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
        if words := ended.get("message") or waiting.get("message") or waiting.get("reason"):
            return str(parse_event(words.encode()).get("message") or words)
    unmet = (condition.get("message") for condition in status.get("conditions") or ())
    return next((str(words) for words in unmet if words), str(status.get("message") or status.get("phase", "unknown")))
