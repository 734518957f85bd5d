"""The schema of an ExportClass. Pure."""

from modelexport.schema import Schema, integer, mapping, record, rule, text, text_set, words
from modelexport.spec import (
    DEADLINE_LIMIT,
    PREFIX_PATTERN,
    RETRIES_LIMIT,
    SOURCE_PATTERN,
    SOURCES_LIMIT,
    URI_LIMIT,
    JobLimits,
    Storage,
)

SECRET_LIMIT = 253


def class_schema() -> Schema:
    """The schema of the whole object."""
    return record(
        "The platform team's half of an export: where files go, and what converts them. Annotate one as the default.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": record(
                "Store, sources, converter and limits.",
                {"storage": _storage(), "sources": _sources(), "converter": _converter(), "jobs": _jobs()},
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
            "endpoint": text("URL of the S3 server, without a path.", 1024, url),
            "bucket": text("The bucket; it has to exist.", 63, name),
            "prefix": {
                "type": "string",
                "description": "Folder in the bucket, without slashes around it; the namespace of the export is a "
                "folder in it, or stands where it says {namespace}.",
                "maxLength": 512,
                "x-kubernetes-validations": [folder],
            },
            "region": text("Region of the bucket.", 63, default=Storage.region),
            "credentialsSecretName": text(
                "Secret in the namespace of the export with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", SECRET_LIMIT
            ),
            "caSecretName": text("Secret in the namespace of the export with ca.crt, for a private CA.", SECRET_LIMIT),
        },
        required=("endpoint", "bucket"),
    )


def _sources() -> Schema:
    way_out = "not a folder, for example s3://checkpoints/{namespace}/; it ends with a slash"
    folder = rule(f"self.matches(r'{SOURCE_PATTERN}')", way_out)
    return text_set(
        "Folders from which ModelExports may read checkpoints and pictures; {namespace} is the namespace of the "
        "export. Anywhere when left out.",
        text("A URI that ends with a slash.", URI_LIMIT, folder),
        1,
        SOURCES_LIMIT,
    )


def _converter() -> Schema:
    return record(
        "What runs in the Jobs.",
        {
            "image": text("The converter's image; name it by digest in production.", 1024),
            "imagePullPolicy": words(
                "When the image is pulled.", ("Always", "IfNotPresent", "Never"), default="IfNotPresent"
            ),
            "nodeSelector": mapping(
                "Labels that a node must have to convert.", 32, {"type": "string", "maxLength": 63}
            ),
        },
        required=("image",),
    )


def _jobs() -> Schema:
    default = JobLimits()
    return record(
        "Bounds of one conversion.",
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
        },
    )
