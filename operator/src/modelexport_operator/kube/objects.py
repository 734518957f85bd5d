"""The objects of the API server as types, with the fields that the operator reads or writes. Pure.

A type says what the API server validates; it is not a check. Fields that the server may omit are optional: a required
one is there in every object that passed the client's checks (``watch_stream.is_object``) and the caches. The spec and
the status of our own kinds stay unchecked JSON, because a client of another version may have written them: their
readers are ``modelexport.api.spec`` and ``status.conditions``.

``ModelExportObject``, ``ExportClassObject`` and ``EventObject`` have a suffix because the plain names are those of our
parsed models. References: https://kubernetes.io/docs/reference/kubernetes-api/ and, for Kueue,
https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/.
"""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict

JsonObject = Mapping[str, object]
"""A JSON object of which nothing is known: the type checker lets nobody use a value without a check."""


class OwnerReference(TypedDict, total=False):
    """An entry of ``metadata.ownerReferences``; the caches keep only ``uid`` and ``controller``."""

    apiVersion: str
    kind: str
    name: str
    uid: Required[str]
    controller: bool
    blockOwnerDeletion: bool


class ObjectMeta(TypedDict, total=False):
    """``metadata`` of every object; times are RFC 3339."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    generation: int
    creationTimestamp: str
    deletionTimestamp: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    ownerReferences: Sequence[OwnerReference]
    finalizers: Sequence[str]


class KubeObject(TypedDict, total=False):
    """What objects of all kinds have in common."""

    apiVersion: str
    kind: str
    metadata: Required[ObjectMeta]


class Condition(TypedDict, total=False):
    """An entry of ``status.conditions``, as in most kinds."""

    type: Required[str]
    status: Required[str]
    reason: str
    message: str
    observedGeneration: int
    lastTransitionTime: str


class EnvVar(TypedDict, total=False):
    """An environment variable of a container."""

    name: Required[str]
    value: str
    valueFrom: "EnvVarSource"


class EnvVarSource(TypedDict, total=False):
    """Where the value of an environment variable comes from."""

    secretKeyRef: "SecretKeySelector"


class SecretKeySelector(TypedDict):
    """A key of a Secret."""

    name: str
    key: str


class VolumeMount(TypedDict, total=False):
    """Where a container mounts a volume, or a folder of it."""

    name: Required[str]
    mountPath: Required[str]
    subPath: str
    readOnly: bool


class ResourceRequirements(TypedDict, total=False):
    """The resources of a container, as quantities."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]


class SecurityContext(TypedDict, total=False):
    """The security attributes of a container."""

    allowPrivilegeEscalation: bool
    readOnlyRootFilesystem: bool
    capabilities: Mapping[str, Sequence[str]]


class Container(TypedDict, total=False):
    """A container of a Pod, also one that runs before the others."""

    name: Required[str]
    image: str
    imagePullPolicy: str
    args: Sequence[str]
    env: Sequence[EnvVar]
    resources: ResourceRequirements
    securityContext: SecurityContext
    terminationMessagePolicy: str
    volumeMounts: Sequence[VolumeMount]


class EmptyDirVolume(TypedDict):
    """An empty folder of a node for one Pod."""

    sizeLimit: str


class SecretVolume(TypedDict):
    """The files of a Secret."""

    secretName: str


class Volume(TypedDict, total=False):
    """A volume of a Pod."""

    name: Required[str]
    emptyDir: EmptyDirVolume
    secret: SecretVolume


class LocalObjectReference(TypedDict):
    """The name of an object of the same namespace."""

    name: str


class Toleration(TypedDict, total=False):
    """A taint of nodes that a Pod tolerates."""

    operator: str
    key: str
    value: str
    effect: str


class NodeSelectorRequirement(TypedDict):
    """A requirement on a label of nodes."""

    key: str
    operator: str
    values: Sequence[str]


class NodeSelectorTerm(TypedDict):
    """Requirements that all have to hold."""

    matchExpressions: Sequence[NodeSelectorRequirement]


class NodeSelector(TypedDict):
    """Terms of which one has to hold."""

    nodeSelectorTerms: Sequence[NodeSelectorTerm]


class NodeAffinity(TypedDict):
    """On which nodes a Pod may run."""

    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector


class Affinity(TypedDict):
    """The scheduling constraints of a Pod."""

    nodeAffinity: NodeAffinity


class SeccompProfile(TypedDict):
    """The seccomp profile of a Pod."""

    type: str


class PodSecurityContext(TypedDict, total=False):
    """The security attributes of all containers of a Pod."""

    runAsNonRoot: bool
    runAsUser: int
    runAsGroup: int
    fsGroup: int
    seccompProfile: SeccompProfile


class PodSpec(TypedDict, total=False):
    """``spec`` of a Pod and of the template of a Job."""

    nodeName: str
    priorityClassName: str
    imagePullSecrets: Sequence[LocalObjectReference]
    restartPolicy: str
    automountServiceAccountToken: bool
    enableServiceLinks: bool
    securityContext: PodSecurityContext
    nodeSelector: Mapping[str, str]
    affinity: Affinity
    tolerations: Sequence[Toleration]
    initContainers: Sequence[Container]
    containers: Sequence[Container]
    volumes: Sequence[Volume]


class ContainerStateWaiting(TypedDict, total=False):
    """Why a container does not run yet."""

    reason: str
    message: str


class ContainerStateRunning(TypedDict, total=False):
    """Since when a container runs."""

    startedAt: str


class ContainerStateTerminated(TypedDict, total=False):
    """How a container ended; the container itself wrote the message."""

    exitCode: int
    reason: str
    message: str
    startedAt: str


class ContainerState(TypedDict, total=False):
    """The state of a container: one of the three."""

    waiting: ContainerStateWaiting
    running: ContainerStateRunning
    terminated: ContainerStateTerminated


class ContainerStatus(TypedDict, total=False):
    """An entry of ``containerStatuses`` and ``initContainerStatuses``."""

    name: Required[str]
    state: ContainerState


class PodStatus(TypedDict, total=False):
    """``status`` of a Pod."""

    phase: str
    reason: str
    message: str
    startTime: str
    conditions: Sequence[Condition]
    containerStatuses: Sequence[ContainerStatus]
    initContainerStatuses: Sequence[ContainerStatus]


class Pod(KubeObject, total=False):
    """A Pod."""

    spec: Required[PodSpec]
    status: PodStatus


class PodTemplate(TypedDict):
    """``spec.template`` of a Job (PodTemplateSpec)."""

    metadata: ObjectMeta
    spec: PodSpec


class ExitCodesRequirement(TypedDict):
    """Exit codes of a container that a rule of a failure policy matches."""

    containerName: str
    operator: str
    values: Sequence[int]


class PodConditionPattern(TypedDict):
    """A condition of a Pod that a rule of a failure policy matches."""

    type: str
    status: str


class PodFailureRule(TypedDict, total=False):
    """A rule of a failure policy."""

    action: Required[str]
    onExitCodes: ExitCodesRequirement
    onPodConditions: Sequence[PodConditionPattern]


class PodFailurePolicy(TypedDict):
    """``spec.podFailurePolicy`` of a Job: the first rule that matches decides."""

    rules: Sequence[PodFailureRule]


class JobSpec(TypedDict, total=False):
    """``spec`` of a Job; the caches keep it without policies and template."""

    suspend: bool
    activeDeadlineSeconds: int
    backoffLimit: int
    ttlSecondsAfterFinished: int
    podFailurePolicy: PodFailurePolicy
    podReplacementPolicy: str
    template: PodTemplate


class JobStatus(TypedDict, total=False):
    """``status`` of a Job."""

    startTime: str
    completionTime: str
    active: int
    succeeded: int
    failed: int
    conditions: Sequence[Condition]


class Job(KubeObject, total=False):
    """A Job. ``output`` is no field of Kubernetes: the cache keeps the output folder of a conversion under it."""

    spec: Required[JobSpec]
    status: JobStatus
    output: str


class Taint(TypedDict, total=False):
    """A taint of a node."""

    key: Required[str]
    value: str
    effect: Required[str]


class NodeSpec(TypedDict, total=False):
    """``spec`` of a node; the cache keeps a missing list as ``None``."""

    taints: Sequence[Taint] | None


class NodeStatus(TypedDict, total=False):
    """``status`` of a node; the cache keeps missing resources as ``None``."""

    allocatable: Mapping[str, str] | None


class Node(KubeObject, total=False):
    """A node."""

    spec: NodeSpec
    status: NodeStatus


class LeaseSpec(TypedDict, total=False):
    """``spec`` of a Lease."""

    holderIdentity: str
    leaseDurationSeconds: int
    leaseTransitions: int
    acquireTime: str
    renewTime: str


class Lease(KubeObject, total=False):
    """A Lease; it has no spec before its first holder."""

    spec: LeaseSpec


class AdmissionCheckState(TypedDict, total=False):
    """An entry of ``status.admissionChecks`` of a Workload."""

    name: str
    state: str
    message: str


class WorkloadStatus(TypedDict, total=False):
    """``status`` of a Workload."""

    conditions: Sequence[Condition]
    admissionChecks: Sequence[AdmissionCheckState]


class Workload(KubeObject, total=False):
    """Kueue's Workload of a Job."""

    status: Required[WorkloadStatus]


class ObjectReference(TypedDict, total=False):
    """The object that an event is about."""

    apiVersion: str
    kind: str
    name: str
    namespace: str
    uid: str
    resourceVersion: str


class EventSource(TypedDict):
    """The component that reports an event."""

    component: str


class EventObject(KubeObject, total=False):
    """An Event of the core group."""

    involvedObject: ObjectReference
    type: str
    reason: str
    message: str
    source: EventSource
    reportingComponent: str
    reportingInstance: str
    firstTimestamp: str
    lastTimestamp: str
    count: int


class ExportClassObject(KubeObject, total=False):
    """An ExportClass as observed."""

    spec: JsonObject


class ModelExportObject(KubeObject, total=False):
    """A ModelExport as observed."""

    spec: JsonObject
    status: JsonObject


class ArtifactStatus(TypedDict):
    """``artifact`` of a published target."""

    uri: str
    sha256: str
    sizeBytes: int


class TargetStatus(TypedDict, total=False):
    """An entry of ``status.targets`` as the operator writes it; a field that is ``None`` is left out."""

    format: str
    precision: str
    name: str | None
    state: str
    reason: str
    message: str
    attempts: int
    scheme: str | None
    jobName: str | None
    nodeName: str | None
    startTime: str | None
    completionTime: str | None
    progress: JsonObject | None
    artifact: ArtifactStatus | None
    reportURI: str | None
    verification: JsonObject | None
    accuracy: JsonObject | None
    quantization: JsonObject | None


class ModelExportStatus(TypedDict, total=False):
    """``status`` of a ModelExport as the operator writes it; a field that is ``None`` is left out."""

    observedGeneration: int
    ready: str
    progress: str | None
    startTime: str | None
    completionTime: str | None
    conditions: Sequence[Condition]
    pageURI: str | None
    targets: Sequence[TargetStatus]
