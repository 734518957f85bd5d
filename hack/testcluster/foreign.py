"""A foreign cluster, which tests/e2e can use instead of its own: ``KUBECONFIG=... make test-e2e``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

SWITCH = "MODELEXPORT_E2E_KUBECONFIG"
"""``make test-e2e`` gives it the value of KUBECONFIG; no other target looks at that."""


@dataclass(frozen=True)
class ForeignCluster:
    """The access to a foreign cluster and its store.

    Attributes:
        kubeconfig: the file with the rights of an administrator.
        operator_image: the image of the operator, with a tag, as the nodes pull it.
        converter_image: the image of the converter, likewise.
        store_endpoint: the URL of the S3 store for Pods.
        store_address: host and port of the same store for the tests, which may be forwarded.
        access_key: of a user of the store who may create buckets.
        secret_key: of the same user.
    """

    kubeconfig: str
    operator_image: str
    converter_image: str
    store_endpoint: str
    store_address: str
    access_key: str
    secret_key: str

    def missing(self) -> list[str]:
        """Return the environment variables that are not set."""
        return [VARIABLES[field.name] for field in fields(self) if not getattr(self, field.name)]


VARIABLES = {
    "kubeconfig": SWITCH,
    "operator_image": "MODELEXPORT_OPERATOR_IMAGE",
    "converter_image": "MODELEXPORT_CONVERTER_IMAGE",
    "store_endpoint": "MODELEXPORT_STORE_ENDPOINT",
    "store_address": "MODELEXPORT_STORE_ADDRESS",
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
}


def read_foreign(environ: Mapping[str, str]) -> ForeignCluster | None:
    """Return the cluster that the environment describes, or None if the tests bring up their own."""
    if not environ.get(SWITCH):
        return None
    found = {field: environ.get(variable, "") for field, variable in VARIABLES.items()}
    found["store_address"] = found["store_address"] or urlsplit(found["store_endpoint"]).netloc
    return ForeignCluster(**found)


FOREIGN = read_foreign(os.environ)
