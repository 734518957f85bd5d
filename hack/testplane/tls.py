"""TLS to the API server of the tests, which is killed while requests are on their way."""

import ssl
from pathlib import Path
from typing import Any


class _ConnectedSocket(ssl.SSLSocket):
    """Closes itself when the server has reset the connection before the handshake.

    CPython's ``SSLSocket._create`` raises then and leaves the socket open (seen in 3.11); its finalizer would warn
    in the middle of some later test.
    """

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError("the server reset the connection before the TLS handshake") from error


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """A context of a client that trusts one certificate.

    Args:
        certificate: a PEM file; without one the certificates of the system are trusted.
    """
    context = ssl.create_default_context(cafile=certificate)
    context.sslsocket_class = _ConnectedSocket
    return context
