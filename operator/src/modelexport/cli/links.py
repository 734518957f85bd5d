"""Links to published files: signed here where the user has the store's credentials, else by a Pod of the namespace.

The Pod is made by the user, with the user's own rights, from the template of a conversion: its image, its Secret and
its restrictions. It prints the links and is deleted. Whoever may read its log can use them for an hour.
"""

import json
import os
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
from modelexport.signing import Credentials, presign

PATIENCE_SECONDS = 180
POLL_SECONDS = 1.0
NOT_FOR_PODS = (names.REQUEST_ENV, names.STORE_ENV, names.SOURCES_ENV, names.EXPORT_UID_ENV, names.JOB_ENV)
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
        if not endpoint:
            raise BadInput("no Job of the export is left to tell where its store is; give its URL by --endpoint")
        region = {names.REGION_ENV: environment.get(names.REGION_ENV, names.REGION_DEFAULT)}
        credentials = Credentials.from_environ({**region, **os.environ})
        if credentials:
            return {uri: presign("GET", endpoint, uri, credentials, datetime.now(UTC)) for uri in uris}
        if job is None:
            way_out = f"set {names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV}"
            raise BadInput(f"no Job of the export is left whose Secret and image could sign links; {way_out}")
        return self._sign_in_pod(signing_pod(self.export, job, uris, endpoint), uris)

    def _find_job(self) -> Body | None:
        selector = f"{names.EXPORT_UID_LABEL}={self.export['metadata']['uid']},{names.FORMAT_LABEL}"
        jobs = self.kubectl.read("jobs.batch", f"--selector={selector}")["items"]
        return next(iter(jobs), None)

    def _sign_in_pod(self, pod: Body, uris: Sequence[str]) -> Mapping[str, str]:
        name = pod["metadata"]["name"]
        self.kubectl.run("create", "--filename=-", text=json.dumps(pod))
        try:
            self._wait(name)
            lines = self.kubectl.run("logs", name).encode().splitlines()
        finally:
            self.kubectl.run("delete", "pod", name, "--wait=false", "--ignore-not-found")
        events = [event for event in map(parse_event, lines) if event.get("event") == "signed"]
        links = {str(event["uri"]): str(event["url"]) for event in events}
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


def signing_pod(export: Body, job: Body, uris: Sequence[str], endpoint: str) -> Body:
    """Build the Pod that signs, from the Job of a conversion.

    Args:
        export: the body of the export; the Pod goes with it if nobody deletes it.
        job: the body of one of its Jobs.
        uris: what to sign links for.
        endpoint: for which the links are signed.
    """
    template = {key: part for key, part in job["spec"]["template"]["spec"].items() if key != "initContainers"}
    container = template["containers"][0]
    kept = [entry for entry in container["env"] if entry["name"] not in NOT_FOR_PODS]
    own = {names.FILES_ENV: json.dumps(list(uris)), names.STORE_ENV: endpoint}
    environment = [*kept, *({"name": name, "value": escape(value)} for name, value in own.items())]
    signing = {"args": [names.PRESIGN], "env": environment, "resources": RESOURCES}
    owner = {"apiVersion": names.API_VERSION, "kind": names.EXPORT_KIND}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"modelexport-links-{secrets.token_hex(5)}",
            "labels": {names.MANAGED_BY_LABEL: "modelexport-cli"},
            "ownerReferences": [{**owner, **{key: export["metadata"][key] for key in ("name", "uid")}}],
        },
        "spec": {**template, "activeDeadlineSeconds": PATIENCE_SECONDS, "containers": [{**container, **signing}]},
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
