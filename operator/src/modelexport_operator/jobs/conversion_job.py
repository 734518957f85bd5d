"""From a planned conversion to the Job that runs it. Pure: data in, data out.

The entrypoint of the class's converter image is the converter; all that it needs comes by arguments, environment and
mounts. A conversion is three containers of one Pod, one after the other, over one volume: the first and the last have
the store's credentials; the one between them opens what strangers wrote and has none. docs/adr/0001-three-containers.md
says why.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from modelexport import names
from modelexport.environment import escape, unescape
from modelexport.matrix import TARGETS, Resources, Target, lookup
from modelexport.nodepools import NodePool, Toleration, is_extended
from modelexport.request import ConversionRequest
from modelexport.sources import expand
from modelexport.spec import ExportClass, ModelExport, Storage
from modelexport_operator.encoding import decode
from modelexport_operator.needs import larger, node_selector, resource_requests

CONTAINER = "converter"
"""The only container of a clean-up, and of a conversion that an operator of an earlier version started."""
STEPS = (names.FETCH, names.CONVERT, names.PUBLISH)
CONTAINERS = (*STEPS, CONTAINER)
"""Ours, in the order in which they run; whatever else is in a Pod was put there by others."""
WORK_DIR = "/work"
INPUTS_DIR, OUTPUTS_DIR, SCRATCH_DIR = f"{WORK_DIR}/inputs", f"{WORK_DIR}/outputs", f"{WORK_DIR}/scratch"
STREAMING = Resources(memory_mib=256, memory_limit_mib=256, disk_mib=64, cpu_millis=50)
"""What a container needs that passes files on piece by piece; an upload holds a part of 64 MiB in memory."""
PATIENCE = {names.FETCH: 120, names.PUBLISH: 900}
"""Seconds for which a step waits for a store that does not answer; a quarter of the Job's deadline where that is less.

A fetch has nothing to lose, and its Pod is started again; a publication holds a finished conversion, which the next Pod
would have to make anew. With the default deadline three Pods can wait so long before the deadline ends the Job."""
CA_DIR = "/etc/modelexport/ca"
CA_KEY = "ca.crt"
NON_ROOT_ID = 65532
"""User and group of the distroless images' ``nonroot``; any image runs under it."""
HASH_DIGITS = 10
REPEAT = "-2"
"""The end of the name of a Job that repeats a conversion."""
POD_JOB_LABEL = "batch.kubernetes.io/job-name"
OUTPUT_KEY = "output"
"""Of a Job as the store keeps it: the folder into which it publishes."""

Manifest = dict[str, Any]

_TARGETS = {str(target): target for target in TARGETS}


def pods_of(name: str, pods: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Those of the Pods that belong to the Job of a name."""
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(POD_JOB_LABEL) == name]


def job_name(export: ModelExport, target: Target, *, is_repeat: bool = False) -> str:
    """Name a Job by what it is for: the same object and target always give the same name.

    The model of an object never changes, so the spec hash would add nothing but other names by another version's
    matrix, and with them a second Job for a target while two versions of the operator overlap.

    Args:
        export: the object.
        target: the target.
        is_repeat: whether the Job repeats a conversion whose result was lost, beside the Job that had it.
    """
    return _name_conversion(export.name, export.uid, target, REPEAT if is_repeat else "")


def clean_up_name(name: str, uid: str) -> str:
    """Name the Job that removes the files of an export with this name and uid."""
    return _name_job(name, "clean", uid)


def own_job_names(name: str, uid: str) -> frozenset[str]:
    """The names of all Jobs that an export with this name and uid can have."""
    conversions = (_name_conversion(name, uid, target, end) for target in TARGETS for end in ("", REPEAT))
    return frozenset((clean_up_name(name, uid), *conversions))


def _name_conversion(name: str, uid: str, target: Target, end: str) -> str:
    return _name_job(name, target.slug, f"{uid}/{target}", end)


def _name_job(export: str, slug: str, identity: str, end: str = "") -> str:
    tail = f"-{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:HASH_DIGITS]}{end}"
    # The name becomes a label of the Job's Pods.
    return export.replace(".", "-")[: names.LABEL_LIMIT - len(tail)] + tail


def build_job(
    export: ModelExport,
    request: ConversionRequest,
    export_class: ExportClass,
    pool: NodePool | None = None,
    *,
    name: str | None = None,
) -> Manifest:
    """Build the Job of one target: a Pod of the restricted Pod Security level that needs nothing of the cluster."""
    name = name or job_name(export, request.target)
    labels, queue = _labels(export, request), export_class.sharing.queue_name
    places = {names.NODE_POOL_LABEL: pool.name if pool else None, names.QUEUE_LABEL: queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": export.namespace,
            "labels": {**labels, **{label: place for label, place in places.items() if place}},
            "ownerReferences": [_owner(export)],
        },
        "spec": {
            # Kueue starts the Jobs of its queues; one that began before would be stopped again.
            **({"suspend": True} if queue else {}),
            "activeDeadlineSeconds": export_class.limits.deadline_seconds,
            "backoffLimit": export_class.limits.retries,
            "podFailurePolicy": pod_failure_policy(*STEPS),
            # With a failure policy Kubernetes allows no other: the next Pod starts when the last one is really gone.
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": labels}, "spec": _pod(export, request, export_class, pool, name)},
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


def pod_failure_policy(*containers: str) -> Manifest:
    """The first rule that fits decides; a failure that fits none counts against the retries.

    A rule holds for the container of its name, be it one that runs before the others or not.
    """
    fatal = [{"action": "FailJob", "onExitCodes": _permanent(container)} for container in containers]
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"rules": [*fatal, disrupted]}


def _permanent(container: str) -> Manifest:
    return {"containerName": container, "operator": "In", "values": [int(code) for code in names.PERMANENT_EXIT_CODES]}


def _pod(
    export: ModelExport, request: ConversionRequest, export_class: ExportClass, pool: NodePool | None, name: str
) -> Manifest:
    cell = lookup(request.model.architecture, request.target)
    job = {names.JOB_ENV: name}
    asked, public = ({names.REQUEST_ENV: one.to_json(), **job} for one in (request, request.public()))
    folders = " ".join(expand(folder, export.namespace) for folder in export_class.sources)
    sources = {names.SOURCES_ENV: folders} if folders else {}
    if export_class.https_networks:
        sources[names.HTTPS_NETWORKS_ENV] = " ".join(export_class.https_networks)
    owner = {names.EXPORT_UID_ENV: export.uid}
    waiting = {step: {names.PATIENCE_ENV: _patience(step, export_class)} for step in PATIENCE}
    fetch = _build_step(export_class, names.FETCH, {**asked, **sources, **waiting[names.FETCH]}, STREAMING)
    convert = _build_step(export_class, names.CONVERT, public, cell.resources, pool)
    publish = _build_step(export_class, names.PUBLISH, {**public, **owner, **waiting[names.PUBLISH]}, STREAMING)
    steps = (with_store(fetch, export_class.storage), convert, with_store(publish, export_class.storage))
    return build_pod(export_class, steps, cell.backend.cpu_architectures, pool)


def _patience(step: str, export_class: ExportClass) -> str:
    return str(min(PATIENCE[step], export_class.limits.deadline_seconds // 4))


def build_pod(
    export_class: ExportClass,
    containers: Sequence[Manifest],
    cpu_architectures: tuple[str, ...],
    pool: NodePool | None = None,
) -> Manifest:
    """Build a Pod of the restricted level from containers of ``build_container``, which run one after the other."""
    storage, priority = export_class.storage, export_class.sharing.priority_class_name
    secrets = [{"name": secret} for secret in export_class.image_pull_secrets]
    *before, last = containers
    scratch = reduce(larger, (container["resources"]["limits"]["ephemeral-storage"] for container in containers))
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
        **({"initContainers": before} if before else {}),
        "containers": [last],
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


def _build_step(
    export_class: ExportClass,
    step: str,
    environment: Mapping[str, str],
    resources: Resources,
    pool: NodePool | None = None,
) -> Manifest:
    """Build the container of a step. Each sees its own part of the volume and, but to fill it, can change no other.

    A home that another step had written could run code at the start of this one.
    """
    places = {names.INPUTS_ENV: INPUTS_DIR, names.OUTPUTS_ENV: OUTPUTS_DIR}
    inputs = _mount(INPUTS_DIR, "inputs", read_only=step != names.FETCH)
    outputs = _mount(OUTPUTS_DIR, "outputs", read_only=step != names.CONVERT)
    shared = [inputs] if step == names.FETCH else [inputs, outputs]
    own = {**environment, **places}
    container = build_container(export_class, step, own, resources, pool, home=SCRATCH_DIR)
    return {**container, "volumeMounts": [*shared, _mount(SCRATCH_DIR, f"scratch-{step}")]}


def _mount(path: str, folder: str, *, read_only: bool = False) -> Manifest:
    return {"name": "work", "mountPath": path, "subPath": folder, **({"readOnly": True} if read_only else {})}


def build_container(
    export_class: ExportClass,
    command: str,
    environment: Mapping[str, str],
    resources: Resources,
    pool: NodePool | None = None,
    *,
    home: str = WORK_DIR,
) -> Manifest:
    """Build a container of the class's converter that knows nothing of the store.

    Args:
        export_class: the class.
        command: the converter's argument.
        environment: what it needs to know.
        resources: what it needs of a node.
        pool: the nodes on which it runs.
        home: a folder that it may write; the root file system is read-only, and libraries leave files here.
    """
    plain = {**environment, "HOME": home, names.WORK_DIR_ENV: home}
    return {
        "name": command if command in CONTAINERS else CONTAINER,
        "image": export_class.image,
        "imagePullPolicy": export_class.image_pull_policy,
        "args": [command],
        "env": [{"name": name, "value": escape(value)} for name, value in plain.items()],
        "resources": _resources(resources, pool),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # A converter that dies without a word still leaves the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "work", "mountPath": WORK_DIR}],
    }


def with_store(container: Manifest, storage: Storage) -> Manifest:
    """Return a container of ``build_container`` that reaches the store, with its credentials."""
    plain = {
        names.STORE_ENV: storage.endpoint,
        names.REGION_ENV: storage.region,
        **({names.CA_FILE_ENV: f"{CA_DIR}/{CA_KEY}"} if storage.ca_secret else {}),
    }
    secret = [_secret_env(key, storage.credentials_secret) for key in (names.ACCESS_KEY_ENV, names.SECRET_KEY_ENV)]
    environment = [
        *container["env"],
        *({"name": name, "value": escape(value)} for name, value in plain.items()),
        *(secret if storage.credentials_secret else []),
    ]
    authority = [{"name": "ca", "mountPath": CA_DIR, "readOnly": True}] if storage.ca_secret else []
    return {**container, "env": environment, "volumeMounts": [*container["volumeMounts"], *authority]}


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
        endpoint=_value_of(environment, names.STORE_ENV, default.endpoint),
        region=_value_of(environment, names.REGION_ENV, default.region),
        credentials_secret=credentials.get("name"),
        ca_secret=authority.get("secretName"),
    )


def request_of(job: Mapping[str, Any]) -> ConversionRequest | None:
    """Read back what a conversion was asked for; ``None`` where this version cannot read it."""
    try:
        return ConversionRequest.from_json(_value_of(_environment_of(job), names.REQUEST_ENV))
    except ValueError:
        return None


def output_of(job: Mapping[str, Any]) -> str:
    """The folder into which a conversion publishes, as it was asked; empty where no version has written that.

    Of a request the store keeps nothing else, so there it stands by itself.
    """
    if OUTPUT_KEY in job:
        return str(job[OUTPUT_KEY])
    try:
        output = decode(_value_of(_environment_of(job), names.REQUEST_ENV))["output"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return output if isinstance(output, str) else ""


def _environment_of(job: Mapping[str, Any]) -> dict[str, Manifest]:
    """The environment of the container that publishes."""
    containers = job["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    entries = next((container.get("env") or () for container in containers if container.get("name") in CONTAINERS), ())
    return {entry["name"]: entry for entry in entries}


def _value_of(environment: Mapping[str, Manifest], name: str, default: str = "") -> str:
    value: str | None = environment.get(name, {}).get("value")
    return default if value is None else unescape(value)


def target_of(job: Mapping[str, Any]) -> Target | None:
    """Read back which target a Job works on; ``None`` for labels that this version does not know."""
    labels = job["metadata"].get("labels") or {}
    return _TARGETS.get(f"{labels.get(names.FORMAT_LABEL)}/{labels.get(names.PRECISION_LABEL)}")
