"""Builds the Job that runs a planned conversion, and reads it back. Pure.

The entrypoint of the class's converter image is the converter; all its input comes from arguments, environment and
mounts. A conversion is three containers of one Pod that run one after the other over one volume: the first and the last
have the store's credentials; the middle one opens untrusted files and has none. docs/adr/0001-three-containers.md
explains why.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, reduce

from modelexport import names
from modelexport.api.node_pools import NodePool, is_extended
from modelexport.api.node_pools import Toleration as PoolToleration
from modelexport.api.request import ConversionRequest
from modelexport.api.sources import expand
from modelexport.api.spec import ExportClass, ModelExport, Storage
from modelexport.environment import escape, unescape
from modelexport.matrix.support import TARGETS, Resources, Target, lookup
from modelexport.planning.plan import report_uris
from modelexport_operator.jobs.resource_requests import larger, node_selector, resource_requests
from modelexport_operator.kube.encoding import decode
from modelexport_operator.kube.objects import (
    Container,
    EnvVar,
    Job,
    KubeObject,
    LocalObjectReference,
    NodeSelector,
    NodeSelectorRequirement,
    OwnerReference,
    PodFailurePolicy,
    PodFailureRule,
    PodSpec,
    Toleration,
    Volume,
    VolumeMount,
)
from modelexport_operator.kube.pruning import TEXT_LIMIT, prune_job
from modelexport_operator.kube.resources import JOBS

CONTAINER = "converter"
"""The only container of a clean-up Job, and of conversions that an earlier version of the operator started."""
STEPS = (names.FETCH, names.CONVERT, names.PUBLISH)
CONTAINERS = (*STEPS, CONTAINER)
"""Our containers, in the order in which they run; any other container of a Pod was injected by others."""
WORK_DIR = "/work"
INPUTS_DIR, OUTPUTS_DIR, SCRATCH_DIR = f"{WORK_DIR}/inputs", f"{WORK_DIR}/outputs", f"{WORK_DIR}/scratch"
STREAMING_RESOURCES = Resources(memory_mib=256, memory_limit_mib=256, disk_mib=64, cpu_millis=50)
"""Resources of a container that streams files; an upload holds a part of 64 MiB in memory."""
STORE_TIMEOUTS = {names.FETCH: 120, names.PUBLISH: 900}
"""Seconds for which a step waits for a store that does not answer; at most a quarter of the Job's deadline.

A fetch has nothing to lose, and its Pod is started again; a publication holds a finished conversion, which the next Pod
would have to repeat. With the default deadline, three Pods can wait this long before the deadline ends the Job."""
CA_DIR = "/etc/modelexport/ca"
CA_KEY = "ca.crt"
NON_ROOT_ID = 65532
"""User and group of the distroless images' ``nonroot``; any container image runs as it."""
HASH_DIGITS = 10
REPEAT = "-2"
"""The suffix of the name of a Job that repeats a conversion."""

_TARGETS = {str(target): target for target in TARGETS}


def job_name(export: ModelExport, target: Target, *, is_repeat: bool = False) -> str:
    """Return the name of the Job of a target: the same export and target always give the same name.

    The model of an export never changes. So a spec hash would only change the names when the matrix of another version
    differs, and cause a second Job for a target while two versions of the operator overlap.

    Args:
        export: the export.
        target: the target.
        is_repeat: whether the Job repeats a conversion whose result was lost, while the first Job still exists.
    """
    return _name_conversion(export.name, export.uid, target, REPEAT if is_repeat else "")


def clean_up_name(name: str, uid: str) -> str:
    """Return the name of the Job that removes the files of an export with this name and uid."""
    return _name_job(name, "clean", uid)


def own_job_names(name: str, uid: str, named: Iterable[Target] = ()) -> frozenset[str]:
    """Return the names of all Jobs that an export with this name and uid can have; ``named`` are targets with names."""
    targets = (*TARGETS, *named)
    conversions = (_name_conversion(name, uid, target, end) for target in targets for end in ("", REPEAT))
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
    planned: Iterable[ConversionRequest],
) -> Job:
    """Build the Job of one target. Its Pod meets the restricted Pod Security level and needs no cluster access.

    ``name`` is by default that of the first run. ``planned`` are the conversions of the whole export: its page reads
    all their reports.
    """
    name = name or job_name(export, request.target)
    sharing = export_class.sharing
    labels = {
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.EXPORT_LABEL: export.name,
        names.EXPORT_UID_LABEL: export.uid,
        names.FORMAT_LABEL: str(request.target.format),
        names.PRECISION_LABEL: str(request.target.precision),
        names.SPEC_HASH_LABEL: request.spec_hash,
    }
    owner: OwnerReference = {
        "apiVersion": names.API_VERSION,
        "kind": names.EXPORT_KIND,
        "name": export.name,
        "uid": export.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    if request.target.name:
        labels[names.TARGET_NAME_LABEL] = request.target.name
    optional = {
        names.NODE_POOL_LABEL: pool.name if pool else None,
        names.QUEUE_LABEL: sharing.queue_name,
        names.WORKLOAD_PRIORITY_LABEL: sharing.workload_priority_class_name,
    }
    pod = _pod(export, request, export_class, pool, name=name, reports=report_uris(planned))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": export.namespace,
            "labels": {**labels, **{label: value for label, value in optional.items() if value}},
            "ownerReferences": [owner],
        },
        "spec": {
            # Kueue starts the Jobs of its queues; it would stop a Job that is already running.
            **({"suspend": True} if sharing.queue_name else {}),
            "activeDeadlineSeconds": export_class.limits.deadline_seconds,
            "backoffLimit": export_class.limits.retries,
            "podFailurePolicy": pod_failure_policy(*STEPS),
            # A failure policy requires this value: the next Pod starts when the last one is really gone.
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def pod_failure_policy(*containers: str) -> PodFailurePolicy:
    """Build the failure policy: the first matching rule decides; other failures count against the retries.

    A rule applies to the container with its name, including init containers.
    """
    fatal: list[PodFailureRule] = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": container,
                "operator": "In",
                "values": [int(code) for code in names.PERMANENT_EXIT_CODES],
            },
        }
        for container in containers
    ]
    disrupted: PodFailureRule = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    return {"rules": [*fatal, disrupted]}


def _pod(
    export: ModelExport,
    request: ConversionRequest,
    export_class: ExportClass,
    pool: NodePool | None,
    *,
    name: str,
    reports: Mapping[str, str],
) -> PodSpec:
    """Build the Pod of a conversion: the three steps run one after the other, over one volume."""
    cell = lookup(request.model.architecture, request.target)
    job = {names.JOB_ENV: name}
    asked = {names.REQUEST_ENV: request.to_json(), **job}
    public = asked if request.public() == request else {names.REQUEST_ENV: request.public().to_json(), **job}
    folders = " ".join(expand(folder, export.namespace) for folder in export_class.sources)
    sources = {names.SOURCES_ENV: folders} if folders else {}
    if export_class.https_networks:
        sources[names.HTTPS_NETWORKS_ENV] = " ".join(export_class.https_networks)
    owner = {
        names.EXPORT_UID_ENV: export.uid,
        names.REPORTS_ENV: json.dumps(reports, separators=(",", ":")),
    }
    longest = export_class.limits.deadline_seconds // 4
    waiting = {step: {names.STORE_TIMEOUT_ENV: str(min(limit, longest))} for step, limit in STORE_TIMEOUTS.items()}
    fetch = _build_step(export_class, names.FETCH, {**asked, **sources, **waiting[names.FETCH]}, STREAMING_RESOURCES)
    deadline = {names.DEADLINE_ENV: str(export_class.limits.deadline_seconds)}
    convert = _build_step(export_class, names.CONVERT, {**public, **deadline}, cell.resources, pool)
    publish = _build_step(
        export_class, names.PUBLISH, {**public, **owner, **waiting[names.PUBLISH]}, STREAMING_RESOURCES
    )
    steps = (with_store(fetch, export_class.storage), convert, with_store(publish, export_class.storage))
    return build_pod(export_class, steps, cell.backend.cpu_architectures, pool)


def build_pod(
    export_class: ExportClass,
    containers: Sequence[Container],
    cpu_architectures: tuple[str, ...],
    pool: NodePool | None = None,
) -> PodSpec:
    """Build a Pod of the restricted level from containers of ``build_container``, which run one after the other."""
    storage, priority = export_class.storage, export_class.sharing.priority_class_name
    secrets: list[LocalObjectReference] = [{"name": secret} for secret in export_class.image_pull_secrets]
    *before, last = containers
    tolerations = [_build_toleration(toleration) for toleration in (pool.tolerations if pool else ())]
    # The CPUs that the converter's packages support; the class's selector can only narrow this.
    cpus: NodeSelectorRequirement = {
        "key": "kubernetes.io/arch",
        "operator": "In",
        "values": list(cpu_architectures),
    }
    node_terms: NodeSelector = {"nodeSelectorTerms": [{"matchExpressions": [cpus]}]}
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
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": node_terms}},
        **({"tolerations": tolerations} if tolerations else {}),
        **({"initContainers": before} if before else {}),
        "containers": [last],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": scratch}},
            *([Volume(name="ca", secret={"secretName": storage.ca_secret})] if storage.ca_secret else []),
        ],
    }


def _build_toleration(parsed: PoolToleration) -> Toleration:
    """Build a toleration of a Pod without the fields that match everything."""
    toleration: Toleration = {"operator": str(parsed.operator)}
    if parsed.key:
        toleration["key"] = parsed.key
    if parsed.value:
        toleration["value"] = parsed.value
    if parsed.effect:
        toleration["effect"] = str(parsed.effect)
    return toleration


def _build_step(
    export_class: ExportClass,
    step: str,
    environment: Mapping[str, str],
    resources: Resources,
    pool: NodePool | None = None,
) -> Container:
    """Build the container of a step. Each step has its own part of the volume and can write no other step's inputs.

    A home directory that another step can write could run code at the start of this one.
    """
    folders = {names.INPUTS_ENV: INPUTS_DIR, names.OUTPUTS_ENV: OUTPUTS_DIR}
    inputs = _mount(INPUTS_DIR, "inputs", read_only=step != names.FETCH)
    outputs = _mount(OUTPUTS_DIR, "outputs", read_only=step != names.CONVERT)
    shared = [inputs] if step == names.FETCH else [inputs, outputs]
    own = {**environment, **folders}
    container = build_container(export_class, step, own, resources, pool, home=SCRATCH_DIR)
    return {**container, "volumeMounts": [*shared, _mount(SCRATCH_DIR, f"scratch-{step}")]}


def _mount(path: str, folder: str, *, read_only: bool = False) -> VolumeMount:
    mount: VolumeMount = {"name": "work", "mountPath": path, "subPath": folder}
    if read_only:
        mount["readOnly"] = True
    return mount


def build_container(
    export_class: ExportClass,
    command: str,
    environment: Mapping[str, str],
    resources: Resources,
    pool: NodePool | None = None,
    *,
    home: str = WORK_DIR,
) -> Container:
    """Build a container of the class's converter without access to the store.

    Args:
        export_class: the class.
        command: the converter's argument.
        environment: its environment variables.
        resources: the resources it needs.
        pool: the nodes on which it runs.
        home: a writable folder; the root file system is read-only, and libraries write files here.
    """
    plain = {**environment, "HOME": home, names.WORK_DIR_ENV: home}
    requests = resource_requests(resources, pool)
    # CPU may burst, and memory may grow for models larger than the measured one. Disk and devices are bounded.
    bounded = {name: amount for name, amount in requests.items() if name == "ephemeral-storage" or is_extended(name)}
    limits = {"memory": larger(f"{resources.memory_limit_mib}Mi", requests["memory"]), **bounded}
    return {
        "name": command if command in CONTAINERS else CONTAINER,
        "image": export_class.image,
        "imagePullPolicy": str(export_class.image_pull_policy),
        "args": [command],
        "env": [{"name": name, "value": escape(value)} for name, value in plain.items()],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # A converter that dies without a result still leaves the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "work", "mountPath": WORK_DIR}],
    }


def with_store(container: Container, storage: Storage) -> Container:
    """Return a container of ``build_container`` with access to the store and its credentials."""
    plain = {
        names.STORE_ENV: storage.endpoint,
        names.REGION_ENV: storage.region,
        **({names.CA_FILE_ENV: f"{CA_DIR}/{CA_KEY}"} if storage.ca_secret else {}),
    }
    secret: list[EnvVar] = []
    if storage.credentials_secret:
        secret = [
            {"name": key, "valueFrom": {"secretKeyRef": {"name": storage.credentials_secret, "key": key}}}
            for key in (names.ACCESS_KEY_ENV, names.SECRET_KEY_ENV)
        ]
    environment: list[EnvVar] = [
        *container["env"],
        *(EnvVar(name=name, value=escape(value)) for name, value in plain.items()),
        *secret,
    ]
    authority: list[VolumeMount] = []
    if storage.ca_secret:
        authority.append({"name": "ca", "mountPath": CA_DIR, "readOnly": True})
    return {**container, "env": environment, "volumeMounts": [*container["volumeMounts"], *authority]}


def storage_of(job: Job, default: Storage) -> Storage:
    """Read the storage of a conversion from its Job; fields that the Job lacks come from ``default``."""
    pod = job["spec"].get("template", {}).get("spec", {})
    environment = _environment_of(job)
    if names.STORE_ENV not in environment:
        return default
    access_key = environment.get(names.ACCESS_KEY_ENV)
    credentials = access_key.get("valueFrom", {}).get("secretKeyRef") if access_key else None
    volumes = pod.get("volumes") or ()
    authority = next((volume.get("secret") for volume in volumes if volume.get("name") == "ca"), None)
    return replace(
        default,
        endpoint=_value_of(environment, names.STORE_ENV, default.endpoint),
        region=_value_of(environment, names.REGION_ENV, default.region),
        credentials_secret=credentials.get("name") if credentials else None,
        ca_secret=authority.get("secretName") if authority else None,
    )


def request_of(job: Job) -> ConversionRequest | None:
    """Read the request of a conversion from its Job; ``None`` if this version cannot read it."""
    try:
        return ConversionRequest.from_json(_value_of(_environment_of(job), names.REQUEST_ENV))
    except ValueError:
        return None


def output_of(job: Job) -> str:
    """Return the folder into which a conversion publishes; empty if the Job does not name it.

    The cache keeps only this field of a request, as the key ``output`` of the Job.
    """
    if "output" in job:
        return str(job["output"])
    try:
        request = decode(_value_of(_environment_of(job), names.REQUEST_ENV))
    except (ValueError, RecursionError):
        return ""
    output = request.get("output") if isinstance(request, Mapping) else None
    return output if isinstance(output, str) else ""


def prune_conversion_job(body: KubeObject) -> Job:
    """Return the fields of a Job that are read, and its output folder."""
    return {**prune_job(body), "output": output_of(JOBS.typed(body))[:TEXT_LIMIT]}


def _environment_of(job: Job) -> dict[str, EnvVar]:
    """Return the environment of the container that publishes."""
    containers = job["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    entries = next((container.get("env") or () for container in containers if container.get("name") in CONTAINERS), ())
    return {entry["name"]: entry for entry in entries}


def _value_of(environment: Mapping[str, EnvVar], name: str, default: str = "") -> str:
    entry = environment.get(name)
    value = entry.get("value") if entry else None
    return default if value is None else unescape(value)


def target_of(job: Job) -> Target | None:
    """Read the target of a Job from its labels; ``None`` if this version does not know them."""
    labels = job["metadata"].get("labels") or {}
    cell = f"{labels.get(names.FORMAT_LABEL)}/{labels.get(names.PRECISION_LABEL)}"
    return _target_named(cell, labels.get(names.TARGET_NAME_LABEL) or "")


@lru_cache(maxsize=1024)
def _target_named(cell: str, name: str) -> Target | None:
    """Return the target with a name; cached, since every look at a Job asks for it."""
    target = _TARGETS.get(cell)
    return target and replace(target, name=name)
