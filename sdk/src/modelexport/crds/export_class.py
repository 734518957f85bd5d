"""The OpenAPI schema of an ExportClass."""

from modelexport.api.node_pools import (
    OWN_RESOURCES,
    POOLS_LIMIT,
    RESOURCES_LIMIT,
    TOLERATIONS_LIMIT,
    Provisioned,
    TaintEffect,
    TolerationOperator,
    Work,
)
from modelexport.api.spec import (
    BUCKET_PATTERN,
    DEADLINE_LIMIT,
    ENDPOINT_PATTERN,
    NAMESPACES_LIMIT,
    NETWORK_PATTERN,
    NETWORKS_LIMIT,
    NO_BUCKET,
    NO_ENDPOINT,
    PARALLELISM_LIMIT,
    PREFIX_PATTERN,
    PULL_SECRETS_LIMIT,
    RETRIES_LIMIT,
    SOURCE_PATTERN,
    SOURCES_LIMIT,
    URI_LIMIT,
    WITHOUT_QUEUE,
    JobLimits,
    PullPolicy,
    Storage,
)
from modelexport.crds.schema import (
    HIDDEN_PROBLEM,
    Schema,
    cel_list,
    integer,
    keyed_list,
    mapping,
    plain_list,
    record,
    rule,
    text,
    text_set,
    visible,
    word_set,
    words,
)
from modelexport.matrix.support import Format, Precision
from modelexport.names import LABEL_LIMIT
from modelexport.text import HIDDEN

SECRET_LIMIT = 253
NAME_LIMIT = 253
QUANTITY_LIMIT = 32


def _selector(description: str) -> Schema:
    return mapping(description, 32, {"type": "string", "maxLength": LABEL_LIMIT})


def _kueue_name(description: str) -> Schema:
    """Return the schema of a Kueue object's name, which becomes a label of the Jobs."""
    name = rule(
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')", "not a name; use lower-case letters, digits, - and ."
    )
    return text(description, LABEL_LIMIT, name)


_STORAGE = record(
    "The S3 bucket for published files.",
    {
        "endpoint": visible(
            "URL of the S3 server, without a path.", 1024, rule(f"self.matches(r'{ENDPOINT_PATTERN}')", NO_ENDPOINT)
        ),
        "bucket": text("Name of an existing bucket.", 63, rule(f"self.matches('{BUCKET_PATTERN}')", NO_BUCKET)),
        "prefix": {
            "type": "string",
            "description": "Folder in the bucket, without leading and trailing slashes. {namespace} stands for the "
            "namespace of the export; without it, each namespace is a folder in the prefix.",
            "maxLength": 512,
            "x-kubernetes-validations": [
                rule(f"!self.matches(r'{HIDDEN}')", HIDDEN_PROBLEM),
                rule(f"self.matches('{PREFIX_PATTERN}')", "a prefix allows no braces except {namespace}"),
            ],
        },
        "region": visible("Region of the bucket.", 63, default=Storage.region),
        "credentialsSecretName": visible(
            "Secret in the namespace of the export with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", SECRET_LIMIT
        ),
        "caSecretName": visible("Secret in the namespace of the export with ca.crt, for a private CA.", SECRET_LIMIT),
    },
    required=("endpoint", "bucket"),
)

_CONVERTER = record(
    "The converter that the Jobs run.",
    {
        "image": visible("Container image of the converter; pin it by digest in production.", 1024),
        "imagePullPolicy": words("Pull policy of the image.", list(PullPolicy), default=str(PullPolicy.IF_NOT_PRESENT)),
        "imagePullSecrets": keyed_list(
            "Secrets in the namespace of the export for pulling the image, as in a Pod.",
            ("name",),
            record(
                "A reference to a Secret.",
                {"name": visible("Name of the Secret.", SECRET_LIMIT)},
                required=("name",),
            ),
            0,
            PULL_SECRETS_LIMIT,
        ),
        "nodeSelector": _selector("Labels that a node must have. The labels of a node pool are added."),
    },
    required=("image",),
)

_TOLERATION = record(
    "A toleration, as in a Pod.",
    {
        "key": visible("Key of the taint. If unset, every key.", 316),
        "operator": words(
            "Whether to compare key and value, or the key alone.",
            list(TolerationOperator),
            default=str(TolerationOperator.EQUAL),
        ),
        "value": visible("Value of the taint.", 63),
        "effect": words("Effect of the taint. If unset, every effect.", list(TaintEffect)),
    },
    rule("!has(self.operator) || self.operator != 'Exists' || !has(self.value)", "operator Exists compares no value"),
    rule(
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')", "key is missing; or use operator Exists"
    ),
)

_RESOURCES = mapping(
    "Resources of a conversion in the pool: cpu replaces the default, memory and ephemeral-storage are minimums, "
    "and devices such as nvidia.com/gpu are added.",
    RESOURCES_LIMIT,
    {"x-kubernetes-int-or-string": True, "maxLength": QUANTITY_LIMIT},
    rule(
        f"self.all(name, name in {cel_list(OWN_RESOURCES)} || name.contains('/'))",
        f"use {', '.join(OWN_RESOURCES)}, or a device with its domain such as nvidia.com/gpu",
    ),
    rule(
        "self.all(name, type(self[name]) == int ? self[name] >= 0 : isQuantity(self[name]))",
        "not a Kubernetes quantity, for example 2, 500m or 8Gi",
    ),
)

_NODE_POOLS = keyed_list(
    "Groups of similar nodes, in order of preference. A conversion goes to the first pool that accepts it and has "
    "a suitable node. Large calibrations try pools with devices first, all other work tries pools without devices "
    "first. Without pools, the scheduler alone decides.",
    ("name",),
    record(
        "A node pool.",
        {
            "name": text(
                "Name of the pool, which becomes a label of its Jobs.",
                LABEL_LIMIT,
                rule(
                    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                    "not a name; use lower-case letters, digits and -",
                ),
            ),
            "nodeSelector": _selector("Labels of the nodes."),
            "tolerations": plain_list("Tolerations of the Pods in the pool.", _TOLERATION, TOLERATIONS_LIMIT),
            "resources": _RESOURCES,
            "formats": word_set("Formats that the pool accepts. If unset, all.", list(Format)),
            "precisions": word_set("Precisions that the pool accepts. If unset, all.", list(Precision)),
            "work": word_set(
                "Kinds of work that the pool accepts: Calibration is INT8 or W8A16 with activation ranges measured "
                "on images, Conversion is the rest. If unset, both.",
                list(Work),
            ),
            "provisioned": words(
                "Static if the nodes exist, OnDemand if they are added for pending Pods; the operator does not "
                "look for OnDemand nodes first.",
                list(Provisioned),
                default=str(Provisioned.STATIC),
            ),
        },
        required=("name",),
    ),
    0,
    POOLS_LIMIT,
)

_JOBS = record(
    "Limits for the conversions.",
    {
        "deadlineSeconds": integer(
            "Deadline of a conversion in seconds, including the time it waits for a node.",
            1,
            DEADLINE_LIMIT,
            default=JobLimits.deadline_seconds,
        ),
        "retries": integer(
            "Number of retries after a transient failure.",
            0,
            RETRIES_LIMIT,
            default=JobLimits.retries,
        ),
        "parallelism": integer(
            "Maximum number of active targets of this class. If unset, unlimited.", 1, PARALLELISM_LIMIT
        ),
        "parallelismPerNamespace": integer(
            "Maximum number of active targets of this class in each namespace. If unset, unlimited.",
            1,
            PARALLELISM_LIMIT,
        ),
        "queueName": _kueue_name(
            "Kueue LocalQueue in the namespace of the export. Jobs are created suspended, and Kueue starts them."
        ),
        "workloadPriorityClassName": _kueue_name(
            "Kueue WorkloadPriorityClass: the priority of the Jobs in their queue, not of their Pods."
        ),
        "priorityClassName": visible("PriorityClass of the Pods.", NAME_LIMIT),
    },
    rule("has(self.queueName) || !has(self.workloadPriorityClassName)", WITHOUT_QUEUE),
)


def class_schema() -> Schema:
    """Return the schema of the whole object."""
    problem = "not a folder; use a URI that ends with a slash, for example s3://checkpoints/{namespace}/"
    folder = rule(f"self.matches(r'{SOURCE_PATTERN}')", problem)
    name = rule("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "not the name of a namespace")
    network = rule(f"self.matches('{NETWORK_PATTERN}')", "not a network, for example 10.0.0.0/8")
    networks = text_set(
        "Networks that https:// URIs and their redirects may reach in addition to public addresses. Private, loopback "
        "and link-local addresses outside these networks are refused.",
        text("A network in CIDR notation.", 43, network),
        0,
        NETWORKS_LIMIT,
    )
    return record(
        "Platform settings for exports: store, converter and limits. Annotate one class as the default.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": record(
                "Namespaces, store, sources, converter, nodes and limits.",
                {
                    "allowedNamespaces": text_set(
                        "Namespaces whose ModelExports may use this class. If unset, all namespaces.",
                        text("The name of a namespace.", LABEL_LIMIT, name),
                        1,
                        NAMESPACES_LIMIT,
                    ),
                    "storage": _STORAGE,
                    "sources": text_set(
                        "Folders from which ModelExports may read checkpoints and images; {namespace} stands for the "
                        "namespace of the export. If unset, every source is allowed.",
                        visible("A URI that ends with a slash.", URI_LIMIT, folder),
                        1,
                        SOURCES_LIMIT,
                    ),
                    "https": record("Limits for https:// sources.", {"allowedNetworks": networks}),
                    "converter": _CONVERTER,
                    "nodePools": _NODE_POOLS,
                    "jobs": _JOBS,
                },
                required=("storage", "converter"),
            ),
        },
        required=("spec",),
    )
