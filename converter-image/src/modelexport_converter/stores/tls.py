"""Whom to trust over TLS: the certificate authorities of the system, and the one that the platform team names."""

import ssl
from collections.abc import Mapping
from typing import Any

import certifi

from modelexport import names


def trust_arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a ``urllib3.PoolManager`` that checks certificates.

    A slim image may have no system authorities, therefore certifi's are there too.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    if ca_file := environ.get(names.CA_FILE_ENV):
        context.load_verify_locations(cafile=ca_file)
    return {"ssl_context": context}
