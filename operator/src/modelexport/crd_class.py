"""The schema of an ExportClass. Pure."""

from modelexport.schema import Schema, integer, mapping, record, rule, text, words
from modelexport.spec import DEADLINE_LIMIT, RETRIES_LIMIT, JobLimits, Storage

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
                "Store, converter and limits.",
                {"storage": _storage(), "converter": _converter(), "jobs": _jobs()},
                required=("storage", "converter"),
            ),
        },
        required=("spec",),
    )


def _storage() -> Schema:
    url = rule("self.matches('^https?://[^/]+/?$')", "not an S3 endpoint, for example http://minio.default.svc:9000")
    name = rule("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')", "not the name of an S3 bucket")
    return record(
        "The S3 bucket into which files are published.",
        {
            "endpoint": text("URL of the S3 server, without a path.", 1024, url),
            "bucket": text("The bucket; it has to exist.", 63, name),
            "prefix": {
                "type": "string",
                "description": "Folder in the bucket, without slashes around it.",
                "maxLength": 512,
            },
            "region": text("Region of the bucket.", 63, default=Storage.region),
            "credentialsSecretName": text(
                "Secret in the namespace of the export with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", SECRET_LIMIT
            ),
            "caSecretName": text("Secret in the namespace of the export with ca.crt, for a private CA.", SECRET_LIMIT),
        },
        required=("endpoint", "bucket"),
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
