"""The schema of an ExportClass. Pure."""

from modelexport.matrix import Format, Precision
from modelexport.names import LABEL_LIMIT
from modelexport.nodepools import (
    OWN_RESOURCES,
    POOLS_LIMIT,
    RESOURCES_LIMIT,
    TOLERATIONS_LIMIT,
    Provisioned,
    TaintEffect,
    TolerationOperator,
    Work,
)
from modelexport.schema import (
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
from modelexport.spec import (
    DEADLINE_LIMIT,
    NAMESPACES_LIMIT,
    NETWORK_PATTERN,
    NETWORKS_LIMIT,
    PARALLELISM_LIMIT,
    PREFIX_PATTERN,
    PULL_SECRETS_LIMIT,
    RETRIES_LIMIT,
    SOURCE_PATTERN,
    SOURCES_LIMIT,
    URI_LIMIT,
    JobLimits,
    Storage,
)
from modelexport.text import HIDDEN

SECRET_LIMIT = 253
NAME_LIMIT = 253
QUANTITY_LIMIT = 32


def class_schema() -> Schema:
    """The schema of the whole object."""
    return record(
        "The platform team's half of an export: where files go, and what converts them. Annotate one as the default.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": record(
                "Whom it serves, store, sources, converter, nodes and limits.",
                {
                    "allowedNamespaces": _namespaces(),
                    "storage": _storage(),
                    "sources": _sources(),
                    "https": _https(),
                    "converter": _converter(),
                    "nodePools": _pools(),
                    "jobs": _jobs(),
                },
                required=("storage", "converter"),
            ),
        },
        required=("spec",),
    )


def _storage() -> Schema:
    url = rule("self.matches('^https?://[^/]+/?$')", "not an S3 endpoint, for example http://minio.default.svc:9000")
    braces = "no other braces than {namespace} can stand in a prefix"
    folder = rule(f"self.matches('{PREFIX_PATTERN}')", braces)
    name = rule("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')", "not the name of an S3 bucket")
    return record(
        "The S3 bucket into which files are published.",
        {
            "endpoint": visible("URL of the S3 server, without a path.", 1024, url),
            "bucket": text("The bucket; it has to exist.", 63, name),
            "prefix": {
                "type": "string",
                "description": "Folder in the bucket, without slashes around it; the namespace of the export is a "
                "folder in it, or stands where it says {namespace}.",
                "maxLength": 512,
                "x-kubernetes-validations": [rule(f"!self.matches(r'{HIDDEN}')", HIDDEN_PROBLEM), folder],
            },
            "region": visible("Region of the bucket.", 63, default=Storage.region),
            "credentialsSecretName": visible(
                "Secret in the namespace of the export with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", SECRET_LIMIT
            ),
            "caSecretName": visible(
                "Secret in the namespace of the export with ca.crt, for a private CA.", SECRET_LIMIT
            ),
        },
        required=("endpoint", "bucket"),
    )


def _sources() -> Schema:
    way_out = "not a folder, for example s3://checkpoints/{namespace}/; it ends with a slash"
    folder = rule(f"self.matches(r'{SOURCE_PATTERN}')", way_out)
    return text_set(
        "Folders from which ModelExports may read checkpoints and pictures; {namespace} is the namespace of the "
        "export. Anywhere when left out.",
        visible("A URI that ends with a slash.", URI_LIMIT, folder),
        1,
        SOURCES_LIMIT,
    )


def _namespaces() -> Schema:
    name = rule("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "not the name of a namespace")
    return text_set(
        "Namespaces whose ModelExports may use this class; all when left out.",
        text("The name of a namespace.", LABEL_LIMIT, name),
        1,
        NAMESPACES_LIMIT,
    )


def _https() -> Schema:
    network = rule(f"self.matches('{NETWORK_PATTERN}')", "not a network, for example 10.0.0.0/8")
    networks = text_set(
        "Networks to which https:// URIs, and redirects of theirs, may lead beside public addresses; a private, "
        "loopback or link-local address in none of them is refused.",
        text("A network in CIDR notation.", 43, network),
        0,
        NETWORKS_LIMIT,
    )
    return record("What may be read from the web.", {"allowedNetworks": networks})


def _converter() -> Schema:
    return record(
        "What runs in the Jobs.",
        {
            "image": visible("The converter's image; name it by digest in production.", 1024),
            "imagePullPolicy": words(
                "When the image is pulled.", ("Always", "IfNotPresent", "Never"), default="IfNotPresent"
            ),
            "imagePullSecrets": keyed_list(
                "Secrets in the namespace of the export with which the image is pulled, as in a Pod.",
                ("name",),
                record("One Secret.", {"name": visible("Its name.", SECRET_LIMIT)}, required=("name",)),
                0,
                PULL_SECRETS_LIMIT,
            ),
            "nodeSelector": _selector("Labels that a node must have to convert; those of a node pool are added."),
        },
        required=("image",),
    )


def _selector(description: str) -> Schema:
    return mapping(description, 32, {"type": "string", "maxLength": LABEL_LIMIT})


def _pools() -> Schema:
    return keyed_list(
        "Nodes that are alike, the preferred ones first. A conversion goes to the first pool that takes it and has a "
        "node that could; large calibrations try pools with devices first, other work those without. Without pools, "
        "the scheduler alone decides.",
        ("name",),
        _pool(),
        0,
        POOLS_LIMIT,
    )


def _pool() -> Schema:
    label = rule("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "not a name; use lower-case letters, digits and -")
    return record(
        "One pool.",
        {
            "name": text("Its name, which labels the Jobs that run there.", LABEL_LIMIT, label),
            "nodeSelector": _selector("Labels that its nodes have."),
            "tolerations": plain_list("Taints that Pods bear there.", _toleration(), TOLERATIONS_LIMIT),
            "resources": _resources(),
            "formats": word_set("The formats that it takes; all when left out.", list(Format)),
            "precisions": word_set("The precisions that it takes; all when left out.", list(Precision)),
            "work": word_set(
                "The kinds of work that it takes: Calibration is INT8 with activation ranges measured on pictures, "
                "Conversion is the rest; all when left out.",
                list(Work),
            ),
            "provisioned": words(
                "Whether its nodes exist, or come when a Pod asks for one (OnDemand; nobody looks for them first).",
                list(Provisioned),
                default=str(Provisioned.STATIC),
            ),
        },
        required=("name",),
    )


def _toleration() -> Schema:
    no_value = rule(
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value)", "operator Exists compares no value"
    )
    key = rule(
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')", "key is missing; or use operator Exists"
    )
    return record(
        "One toleration, as in a Pod.",
        {
            "key": visible("Key of the taint; every key when left out.", 316),
            "operator": words("How it compares.", list(TolerationOperator), default=str(TolerationOperator.EQUAL)),
            "value": visible("Value of the taint.", 63),
            "effect": words("Effect of the taint; every effect when left out.", list(TaintEffect)),
        },
        no_value,
        key,
    )


def _resources() -> Schema:
    names = f"use {', '.join(OWN_RESOURCES)}, or a device with its domain such as nvidia.com/gpu"
    known = rule(f"self.all(name, name in {cel_list(OWN_RESOURCES)} || name.contains('/'))", names)
    amounts = rule(
        "self.all(name, type(self[name]) == int ? self[name] >= 0 : isQuantity(self[name]))",
        "not an amount as Kubernetes spells it, for example 2, 500m or 8Gi",
    )
    return mapping(
        "What a conversion gets there: cpu in place of what its cell asks for, memory and ephemeral-storage at least, "
        "and devices such as nvidia.com/gpu in addition.",
        RESOURCES_LIMIT,
        {"x-kubernetes-int-or-string": True, "maxLength": QUANTITY_LIMIT},
        known,
        amounts,
    )


def _jobs() -> Schema:
    default = JobLimits()
    return record(
        "Bounds of the conversions.",
        {
            "deadlineSeconds": integer(
                "Seconds until a conversion is ended, waiting for a node included.",
                1,
                DEADLINE_LIMIT,
                default=default.deadline_seconds,
            ),
            "retries": integer(
                "How often a conversion is tried again after a passing failure.",
                0,
                RETRIES_LIMIT,
                default=default.retries,
            ),
            "parallelism": integer(
                "How many targets of this class are on their way at once; all when left out.", 1, PARALLELISM_LIMIT
            ),
            "parallelismPerNamespace": integer("The same for each namespace; all when left out.", 1, PARALLELISM_LIMIT),
            "queueName": text(
                "LocalQueue of Kueue in the namespace of the export: Jobs are made suspended, and Kueue starts them.",
                LABEL_LIMIT,
                rule(
                    "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
                    "not a name; use lower-case letters, digits, - and .",
                ),
            ),
            "priorityClassName": visible("PriorityClass of the Pods.", NAME_LIMIT),
        },
    )
