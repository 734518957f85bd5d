"""Trusted certificate authorities: those of the system, and the one that the platform team configures."""

import ssl
from collections.abc import Mapping
from typing import Any

import certifi

from modelexport import names


def trust_arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a ``urllib3.PoolManager`` that verifies certificates.

    A slim image may lack system authorities, so those of certifi are added.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    if ca_file := environ.get(names.CA_FILE_ENV):
        context.load_verify_locations(cafile=ca_file)
    return {"ssl_context": context}
