"""From a planned conversion to the Job that runs it. Pure: data in, data out.

The entrypoint of the class's converter image is the converter; all that it needs comes by environment and mounts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from modelexport import names
from modelexport.matrix import TARGETS, Resources, Target, lookup
from modelexport.nodepools import NodePool, Toleration, is_extended
from modelexport.request import ConversionRequest
from modelexport.sources import expand
from modelexport.spec import ExportClass, ModelExport, Storage
from modelexport_operator.needs import larger, node_selector, resource_requests

CONTAINER = "converter"
WORK_DIR = "/work"
CA_DIR = "/etc/modelexport/ca"
CA_KEY = "ca.crt"
NON_ROOT_ID = 65532
"""User and group of the distroless images' ``nonroot``; any image runs under it."""
HASH_DIGITS = 10
POD_JOB_LABEL = "batch.kubernetes.io/job-name"
OUTPUT_KEY = "output"
"""Of a Job as the store keeps it: the folder into which it publishes."""

Manifest = dict[str, Any]

_TARGETS = {str(target): target for target in TARGETS}


def pods_of(name: str, pods: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Those of the Pods that belong to the Job of a name."""
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(POD_JOB_LABEL) == name]


def job_name(export: ModelExport, target: Target) -> str:
    """Name a Job by what it is for: the same object and target always give the same name.

    The model of an object never changes, so the spec hash would add nothing but other names by another version's
    matrix, and with them a second Job for a target while two versions of the operator overlap.
    """
    return _name_job(export.name, target.slug, f"{export.uid}/{target}")


def clean_up_name(name: str, uid: str) -> str:
    """Name the Job that removes the files of an export with this name and uid."""
    return _name_job(name, "clean", uid)


def own_job_names(name: str, uid: str) -> frozenset[str]:
    """The names of all Jobs that an export with this name and uid can have."""
    conversions = (_name_job(name, target.slug, f"{uid}/{target}") for target in TARGETS)
    return frozenset((clean_up_name(name, uid), *conversions))


def _name_job(export: str, slug: str, identity: str) -> str:
    tail = f"-{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:HASH_DIGITS]}"
    # The name becomes a label of the Job's Pods.
    return export.replace(".", "-")[: names.LABEL_LIMIT - len(tail)] + tail


def build_job(
    export: ModelExport, request: ConversionRequest, export_class: ExportClass, pool: NodePool | None = None
) -> Manifest:
    """Build the Job of one target: a Pod of the restricted Pod Security level that needs nothing of the cluster."""
    labels, queue = _labels(export, request), export_class.sharing.queue_name
    places = {names.NODE_POOL_LABEL: pool.name if pool else None, names.QUEUE_LABEL: queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(export, request.target),
            "namespace": export.namespace,
            "labels": {**labels, **{label: place for label, place in places.items() if place}},
            "ownerReferences": [_owner(export)],
        },
        "spec": {
            # Kueue starts the Jobs of its queues; one that began before would be stopped again.
            **({"suspend": True} if queue else {}),
            "activeDeadlineSeconds": export_class.limits.deadline_seconds,
            "backoffLimit": export_class.limits.retries,
            "podFailurePolicy": pod_failure_policy(),
            # With a failure policy Kubernetes allows no other: the next Pod starts when the last one is really gone.
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": labels}, "spec": _pod(export, request, export_class, pool)},
        },
    }


def _labels(export: ModelExport, request: ConversionRequest) -> Manifest:
    return {
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.EXPORT_LABEL: export.name,
        names.EXPORT_UID_LABEL: export.uid,
        names.FORMAT_LABEL: str(request.target.format),
        names.PRECISION_LABEL: str(request.target.precision),
        names.SPEC_HASH_LABEL: request.spec_hash,
    }


def _owner(export: ModelExport) -> Manifest:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.EXPORT_KIND,
        "name": export.name,
        "uid": export.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_failure_policy() -> Manifest:
    """The first rule that fits decides; a failure that fits none counts against the retries."""
    permanent = {"containerName": CONTAINER, "operator": "In", "values": [int(c) for c in names.PERMANENT_EXIT_CODES]}
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": permanent},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def _pod(export: ModelExport, request: ConversionRequest, export_class: ExportClass, pool: NodePool | None) -> Manifest:
    cell = lookup(request.model.architecture, request.target)
    environment = {
        names.REQUEST_ENV: request.to_json(),
        names.EXPORT_UID_ENV: export.uid,
        names.JOB_ENV: job_name(export, request.target),
    }
    if export_class.sources:
        environment[names.SOURCES_ENV] = " ".join(expand(folder, export.namespace) for folder in export_class.sources)
    if export_class.https_networks:
        environment[names.HTTPS_NETWORKS_ENV] = " ".join(export_class.https_networks)
    container = build_container(export_class, environment, cell.resources, pool)
    return build_pod(export_class, container, cell.backend.cpu_architectures, pool)


def build_pod(
    export_class: ExportClass, container: Manifest, cpu_architectures: tuple[str, ...], pool: NodePool | None = None
) -> Manifest:
    """Build a Pod of the restricted level around a container of ``build_container``."""
    storage, priority = export_class.storage, export_class.sharing.priority_class_name
    secrets = [{"name": secret} for secret in export_class.image_pull_secrets]
    scratch = container["resources"]["limits"]["ephemeral-storage"]
    return {
        **({"priorityClassName": priority} if priority else {}),
        **({"imagePullSecrets": secrets} if secrets else {}),
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NON_ROOT_ID,
            "runAsGroup": NON_ROOT_ID,
            "fsGroup": NON_ROOT_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": node_selector(export_class, pool),
        "affinity": _affinity(cpu_architectures),
        **({"tolerations": list(map(_toleration, pool.tolerations))} if pool and pool.tolerations else {}),
        "containers": [container],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": scratch}},
            *([{"name": "ca", "secret": {"secretName": storage.ca_secret}}] if storage.ca_secret else []),
        ],
    }


def _affinity(cpu_architectures: tuple[str, ...]) -> Manifest:
    """Only nodes for whose CPU the converter's packages exist; the class's selector narrows it, never widens it."""
    expression = {"key": "kubernetes.io/arch", "operator": "In", "values": list(cpu_architectures)}
    terms = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _toleration(toleration: Toleration) -> Manifest:
    words = {"key": toleration.key, "value": toleration.value, "effect": toleration.effect and str(toleration.effect)}
    return {"operator": str(toleration.operator), **{name: word for name, word in words.items() if word}}


def build_container(
    export_class: ExportClass, environment: Mapping[str, str], resources: Resources, pool: NodePool | None = None
) -> Manifest:
    """Build the container of the class's converter, with the store and its credentials in the environment."""
    storage = export_class.storage
    return {
        "name": CONTAINER,
        "image": export_class.image,
        "imagePullPolicy": export_class.image_pull_policy,
        "env": _environment(environment, storage),
        "resources": _resources(resources, pool),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # A converter that dies without a word still leaves the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "work", "mountPath": WORK_DIR},
            *([{"name": "ca", "mountPath": CA_DIR, "readOnly": True}] if storage.ca_secret else []),
        ],
    }


def _environment(own: Mapping[str, str], storage: Storage) -> list[Manifest]:
    plain = {
        **own,
        names.STORE_ENV: storage.endpoint,
        names.REGION_ENV: storage.region,
        # The root file system is read-only, and libraries write caches and scratch files where these point.
        "HOME": WORK_DIR,
        names.WORK_DIR_ENV: WORK_DIR,
        **({names.CA_FILE_ENV: f"{CA_DIR}/{CA_KEY}"} if storage.ca_secret else {}),
    }
    secret = [_secret_env(key, storage.credentials_secret) for key in (names.ACCESS_KEY_ENV, names.SECRET_KEY_ENV)]
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(secret if storage.credentials_secret else []),
    ]


def _secret_env(key: str, secret: str | None) -> Manifest:
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _resources(resources: Resources, pool: NodePool | None) -> Manifest:
    """Disk and devices are bounded by what is requested; CPU may burst, and memory grow for models larger than the
    measured one."""
    requests = resource_requests(resources, pool)
    bounded = {name: amount for name, amount in requests.items() if name == "ephemeral-storage" or is_extended(name)}
    memory = larger(f"{resources.memory_limit_mib}Mi", requests["memory"])
    return {"requests": requests, "limits": {"memory": memory, **bounded}}


def storage_of(job: Mapping[str, Any], default: Storage) -> Storage:
    """Read back how a conversion reaches its store; what its Job does not say is as in ``default``."""
    pod = job["spec"].get("template", {}).get("spec", {})
    environment = _environment_of(job)
    if names.STORE_ENV not in environment:
        return default
    credentials: Manifest = environment.get(names.ACCESS_KEY_ENV, {}).get("valueFrom", {}).get("secretKeyRef", {})
    volumes: Iterable[Manifest] = pod.get("volumes") or ()
    authority: Manifest = next((volume.get("secret", {}) for volume in volumes if volume.get("name") == "ca"), {})
    return replace(
        default,
        endpoint=environment[names.STORE_ENV].get("value", default.endpoint),
        region=environment.get(names.REGION_ENV, {}).get("value", default.region),
        credentials_secret=credentials.get("name"),
        ca_secret=authority.get("secretName"),
    )


def request_of(job: Mapping[str, Any]) -> ConversionRequest | None:
    """Read back what a conversion was asked for; ``None`` where this version cannot read it."""
    try:
        return ConversionRequest.from_json(_environment_of(job).get(names.REQUEST_ENV, {}).get("value", ""))
    except ValueError:
        return None


def output_of(job: Mapping[str, Any]) -> str:
    """The folder into which a conversion publishes, as it was asked; empty where no version has written that.

    Of a request the store keeps nothing else, so there it stands by itself.
    """
    if OUTPUT_KEY in job:
        return str(job[OUTPUT_KEY])
    try:
        output = json.loads(_environment_of(job)[names.REQUEST_ENV]["value"])["output"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return output if isinstance(output, str) else ""


def _environment_of(job: Mapping[str, Any]) -> dict[str, Manifest]:
    containers = job["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    entries = next((container.get("env") or () for container in containers if container.get("name") == CONTAINER), ())
    return {entry["name"]: entry for entry in entries}


def target_of(job: Mapping[str, Any]) -> Target | None:
    """Read back which target a Job works on; ``None`` for labels that this version does not know."""
    labels = job["metadata"].get("labels") or {}
    return _TARGETS.get(f"{labels.get(names.FORMAT_LABEL)}/{labels.get(names.PRECISION_LABEL)}")
