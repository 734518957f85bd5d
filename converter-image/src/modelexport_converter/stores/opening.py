"""Opens the store that the environment names."""

from collections.abc import Mapping
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport_converter.failures import Failure
from modelexport_converter.stores import Store
from modelexport_converter.stores.directory import DirectoryStore


def open_store(environ: Mapping[str, str]) -> Store:
    """Open the store that the environment names; see ``modelexport.names``.

    Raises:
        Failure: ``ClassInvalid`` if the environment names none, ``StorageUnavailable`` for a missing directory.
    """
    address = environ.get(names.STORE_ENV, "")
    if address.startswith(("http://", "https://")):
        # Importing the S3 client takes a quarter of a second, which a local run can save.
        from modelexport_converter.stores.s3 import S3Store

        return S3Store.connect(environ)
    if not address:
        raise Failure(Reason.CLASS_INVALID, f"{names.STORE_ENV} is not set; name an S3 endpoint or a directory")
    return DirectoryStore(Path(address))
