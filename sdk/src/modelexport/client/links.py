"""Links to published files: signed here where the user has the store's credentials, else by a Pod of the namespace.

The Pod is made by the user, with the user's own rights, from the template of a conversion: its image, its Secret and
its restrictions. It prints the links and is deleted. Whoever may read its log can use them for an hour.

Anybody who may create Jobs in the namespace can label one as ours. Only those are believed that have the export as
their controller and that its status, which the operator writes, names; of them the Pod takes the image, the place to
run and the names of Secrets, never a volume, an account or a right. A link has to lead to the store that was asked for.
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
from modelexport.cli.documents import BadInput
from modelexport.cli.kubectl import Body, Kubectl
from modelexport.cli.runner import parse_event
from modelexport.environment import escape, unescape
from modelexport.signing import Credentials, object_url, presign

PATIENCE_SECONDS = 180
POLL_SECONDS = 1.0
LOG_LIMIT = 1 << 20
"""Bytes of a Pod's log that are read."""
FOR_PODS = (names.ACCESS_KEY_ENV, names.SECRET_KEY_ENV, names.SESSION_TOKEN_ENV, names.REGION_ENV)
"""What of a conversion's environment the Pod that signs needs; of Secrets the reference, not the value."""
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
    """Who signs links to the files of an export; ``endpoint`` is the store's as the user reaches it, if told."""

    kubectl: Kubectl
    export: Body
    endpoint: str | None

    def sign(self, uris: Sequence[str]) -> Mapping[str, str]:
        """Return a link for every URI.

        Raises:
            BadInput: neither the user's credentials nor a Pod can sign, and what can be done.
        """
        job = self._find_job()
        environment = _plain_environment(job) if job else {}
        endpoint = self.endpoint or environment.get(names.STORE_ENV)
        if endpoint and not re.fullmatch(ENDPOINT_PATTERN, endpoint):
            raise BadInput(
                f"{endpoint!r} is no URL of a store, for example http://127.0.0.1:9000; give it by --endpoint"
            )
        if not endpoint:
            raise BadInput("no Job of the export is left to tell where its store is; give its URL by --endpoint")
        region = {names.REGION_ENV: environment.get(names.REGION_ENV, names.REGION_DEFAULT)}
        credentials = Credentials.from_environ({**region, **os.environ})
        if credentials:
            return {uri: presign("GET", endpoint, uri, credentials, datetime.now(UTC)) for uri in uris}
        if job is None:
            way_out = f"set {names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV}"
            raise BadInput(f"no Job of the export is left whose Secret and image could sign links; {way_out}")
        return self._sign_in_pod(signing_pod(self.export, job, uris, endpoint), uris, endpoint)

    def _find_job(self) -> Body | None:
        selector = f"{names.EXPORT_UID_LABEL}={self.export['metadata']['uid']},{names.FORMAT_LABEL}"
        jobs = self.kubectl.read("jobs.batch", f"--selector={selector}")["items"]
        return next((job for job in jobs if is_job_of(job, self.export)), None)

    def _sign_in_pod(self, pod: Body, uris: Sequence[str], endpoint: str) -> Mapping[str, str]:
        name = pod["metadata"]["name"]
        self.kubectl.run("create", "--filename=-", text=json.dumps(pod))
        try:
            self._wait(name)
            lines = self.kubectl.run("logs", name, f"--limit-bytes={LOG_LIMIT}").encode().splitlines()
        finally:
            self.kubectl.run("delete", "pod", name, "--wait=false", "--ignore-not-found")
        events = [event for event in map(parse_event, lines) if event.get("event") == "signed"]
        signed = [(str(event.get("uri")), str(event.get("url"))) for event in events]
        links = {uri: url for uri, url in signed if url.partition("?")[0] == object_url(endpoint, uri)}
        if missing := set(uris) - links.keys():
            raise BadInput(f"Pod {name} signed no link for {', '.join(sorted(missing))}; is its image of this version?")
        return links

    def _wait(self, name: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while (status := self.kubectl.read("pod", name).get("status", {})).get("phase") != "Succeeded":
            if status.get("phase") == "Failed":
                raise BadInput(f"Pod {name} could not sign links: {_last_words(status)}")
            if time.monotonic() > end:
                raise BadInput(f"Pod {name} did not end within {PATIENCE_SECONDS} s: {_last_words(status)}")
            time.sleep(POLL_SECONDS)


def is_job_of(job: Body, export: Body) -> bool:
    """Whether a Job is one that the operator made for an export, as far as its owner and the status of that tell."""
    metadata, owned = job["metadata"], {"kind": names.EXPORT_KIND, "uid": export["metadata"]["uid"], "controller": True}
    recorded = {target.get("jobName") for target in export.get("status", {}).get("targets") or ()}
    owners = metadata.get("ownerReferences") or ()
    return metadata["name"] in recorded and any(owned.items() <= owner.items() for owner in owners)


def signing_pod(export: Body, job: Body, uris: Sequence[str], endpoint: str) -> Body:
    """Build the Pod that signs, of the restricted Pod Security level, with the image and the Secret of a conversion.

    Args:
        export: the body of the export; the Pod goes with it if nobody deletes it.
        job: the body of one of its Jobs.
        uris: what to sign links for.
        endpoint: for which the links are signed.
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
            "activeDeadlineSeconds": PATIENCE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [_signing_container(container, environment)],
            "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }


def _signing_container(container: Body, environment: Sequence[Body]) -> Body:
    return {
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


def _plain_environment(job: Body) -> Mapping[str, str]:
    container = job["spec"]["template"]["spec"]["containers"][0]
    return {entry["name"]: unescape(entry["value"]) for entry in container.get("env") or () if "value" in entry}


def _last_words(status: Body) -> str:
    """What a Pod says of itself: its converter's answer, what it waits for, or its phase."""
    for container in status.get("containerStatuses") or ():
        state = container.get("state", {})
        ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
        if words := ended.get("message") or waiting.get("message") or waiting.get("reason"):
            return str(parse_event(words.encode()).get("message") or words)
    unmet = (condition.get("message") for condition in status.get("conditions") or ())
    return next((str(words) for words in unmet if words), str(status.get("message") or status.get("phase", "unknown")))
