"""Downloads the inputs of a request: the checkpoint, and the archive or the folder of images."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.sources import explain_outside, explain_unreadable, public_uri
from modelexport.api.spec import DataRef
from modelexport.text import clean
from modelexport_converter.checkpoints.file_kinds import ONE_FILE
from modelexport_converter.failures import Failure
from modelexport_converter.limits import CHECKPOINT_LIMIT
from modelexport_converter.stores import CHUNK, ObjectMissing, Store, TooLarge, TooMany

GIB = 1 << 30


@dataclass(frozen=True)
class Role:
    """The role of an input: its name, its field, its largest size in bytes, the reasons of its failures, a way out."""

    name: str
    field_path: str
    limit: int
    missing: Reason
    too_large: Reason
    invalid: Reason
    fewer: str = ""


CHECKPOINT = Role(
    "checkpoint",
    "spec.model.checkpoint",
    CHECKPOINT_LIMIT,
    Reason.CHECKPOINT_NOT_FOUND,
    Reason.CHECKPOINT_UNREADABLE,
    Reason.CHECKPOINT_UNREADABLE,
)
DATASET = Role(
    "calibration data",
    "spec.calibration.dataset",
    2 * GIB,
    Reason.CALIBRATION_NOT_FOUND,
    Reason.CALIBRATION_TOO_LARGE,
    Reason.CALIBRATION_INVALID,
    "give fewer or smaller images",
)
EVALUATION = Role(
    "evaluation data",
    "spec.evaluation.dataset",
    2 * GIB,
    Reason.EVALUATION_NOT_FOUND,
    Reason.EVALUATION_INVALID,
    Reason.EVALUATION_INVALID,
    "give fewer or smaller images, or a folder, of which only the samples are read",
)


def fetch(store: Store, environ: Mapping[str, str], ref: DataRef, role: Role, path: Path) -> str:
    """Download a file to ``path`` and return its SHA-256 (64 hex digits).

    Raises:
        Failure: it is missing, too large, or has another SHA-256 than the request. The actual digest is not shown: the
            credentials of the store and the network of the Pod may reach files that the user may not read.
    """
    check_source(environ, ref.uri, role)
    try:
        if ref.uri.startswith("https://"):
            from modelexport_converter.stores import https  # rarely needed

            https.download(ref.uri, path, role.limit, environ)
        else:
            store.download(ref.uri, path, role.limit)
    except ObjectMissing as error:
        if role is CHECKPOINT and (folder := _describe_folder(store, ref.uri)):
            raise Failure(role.missing, f"{role.name} {public_uri(ref.uri)} is a folder {folder}") from error
        raise Failure(
            role.missing, f"{role.name} {public_uri(ref.uri)}: {error}; upload it or correct {role.field_path}.uri"
        ) from error
    except TooLarge as error:
        way_out = f"; {role.fewer}" if role.fewer else ""
        raise Failure(role.too_large, f"{role.name} {public_uri(ref.uri)} {error}{way_out}") from error
    digest = sha256_of(path)
    if ref.sha256 not in (None, digest):
        problem = f"{role.name} {public_uri(ref.uri)} is not the file that {role.field_path}.sha256 asks for"
        way_out = "run sha256sum on yours and correct the digest, or upload it again"
        raise Failure(Reason.DIGEST_MISMATCH, f"{problem} ({ref.sha256}); {way_out}")
    return digest


def _describe_folder(store: Store, uri: str) -> str | None:
    """Describe a folder that was named instead of a file, with the way out; ``None`` if it is no folder."""
    if uri.startswith("https://"):
        return None
    try:
        held = store.list_names(f"{uri}/")
    except (Failure, TooMany, OSError):
        return None  # not every key may list; the caller reports the missing object in any case
    if not held:
        return None
    if any(name.endswith(".distcp") for name in held):
        return f"of torch.distributed; make one file of it, and upload that: {ONE_FILE}"
    shown = ", ".join(clean(name, 60) for name in held[:3]) + (", ..." if len(held) > 3 else "")
    return f"that holds {shown}; use the URI of the checkpoint file in {CHECKPOINT.field_path}.uri"


def check_source(environ: Mapping[str, str], uri: str, role: Role) -> None:
    """Repeat the operator's check of a URI: it must be readable, and within the folders that the class allows.

    Raises:
        Failure: ``InvalidSpec`` or ``SourceNotAllowed``.
    """
    if problem := explain_unreadable(uri):
        raise Failure(Reason.INVALID_SPEC, f"{role.field_path}.uri: {clean(public_uri(uri))} {problem}")
    if problem := explain_outside(uri, environ.get(names.SOURCES_ENV, "").split()):
        raise Failure(Reason.SOURCE_NOT_ALLOWED, f"{role.field_path}.uri: {public_uri(uri)} {problem}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file (64 hex digits), read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
