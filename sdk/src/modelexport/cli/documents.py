"""Reads the YAML files of users; errors name the file, the document, the field and the remedy."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelexport.api.fields import InvalidSpec
from modelexport.api.spec import ModelExport
from modelexport.bounded_yaml import NotPlain, load_documents
from modelexport.crds.strict import read_class, read_export
from modelexport.errors import BadInput
from modelexport.names import API_VERSION, CLASS_KIND, EXPORT_KIND, GROUP
from modelexport.text import clean

FILE_LIMIT = 1 << 20
"""Maximum bytes of a file; a Kubernetes object has at most a few hundred thousand."""
KINDS = (EXPORT_KIND, CLASS_KIND)
SHOWN_LIMIT = 60


@dataclass(frozen=True)
class Document:
    """One object of a file; ``where`` is its location in messages: ``export.yaml, document 2``."""

    where: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind of the object, cleaned for messages."""
        return clean(str(self.body.get("kind")), SHOWN_LIMIT)

    @property
    def api_version(self) -> str:
        """The API version of the object, cleaned for messages."""
        return clean(str(self.body.get("apiVersion")), SHOWN_LIMIT)

    @property
    def is_ours(self) -> bool:
        """Whether the object is a ModelExport or an ExportClass."""
        return self.kind in KINDS


def read_documents(path: Path) -> tuple[Document, ...]:
    """Read every object of a YAML file, of any kind.

    Raises:
        BadInput: the file is unreadable, is not YAML or has a document that is not an object; or an object has no kind
            or a misspelled one.
    """
    try:
        contents = load_documents(_read_text(path))
    except NotPlain as error:
        raise BadInput(f"{path}: is not valid YAML: {error}") from error
    found = []
    for number, content in enumerate(contents, start=1):
        where = str(path) if len(contents) == 1 else f"{path}, document {number}"
        if content is None:
            continue  # empty, before a leading or after a trailing ---
        if not isinstance(content, dict):
            raise BadInput(f"{where}: {clean(str(content), SHOWN_LIMIT)!r} is not a Kubernetes object")
        found.append(Document(where, content))
    if not found:
        raise BadInput(f"{path}: has no objects; write a {EXPORT_KIND}, see examples/yolov8.yaml")
    for document in found:
        _check_kind(document)
    return tuple(found)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise BadInput(f"{path}: has more than {FILE_LIMIT:,} bytes; split it into several files")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            problem = f"is not UTF-8 text ({error.reason}); use a YAML file"
        else:
            problem = f"{getattr(error, 'strerror', error)}; use a file with a {EXPORT_KIND}"
        raise BadInput(f"{path}: {problem}") from error


def _check_kind(document: Document) -> None:
    """Reject an object without a kind, or with a misspelled one, which no controller would reconcile."""
    for field in ("apiVersion", "kind"):
        value = document.body.get(field)
        if not isinstance(value, str) or not value:
            problem = "is missing" if value is None else f"{clean(str(value), SHOWN_LIMIT)!r} is not a string"
            way_out = f"write apiVersion: {API_VERSION} and kind: {EXPORT_KIND}"
            raise BadInput(f"{document.where}: {field}: {problem}; {way_out}")
    known = {kind.lower(): kind for kind in KINDS}
    meant = get_close_matches(document.kind.lower(), known, n=1, cutoff=0.8)
    has_our_group = document.api_version.partition("/")[0].lower() == GROUP
    if document.is_ours and document.api_version != API_VERSION:
        problem = (
            f"apiVersion: {document.api_version!r} is not the version of {document.kind}; did you mean {API_VERSION}?"
        )
    elif not document.is_ours and (meant or has_our_group):
        way_out = f"did you mean {known[meant[0]]}?" if meant else f"use one of {', '.join(KINDS)}"
        problem = f"kind: {document.kind!r} is not known; {way_out}"
    else:
        return
    raise BadInput(f"{document.where}: {problem}")


def read_exports(path: Path) -> tuple[tuple[ModelExport, ...], tuple[Document, ...]]:
    """Return the ModelExports of a file, and the objects of other kinds.

    Raises:
        BadInput: the file has no ModelExport, an invalid one, or two with the same name.
    """
    documents = read_documents(path)
    others = tuple(document for document in documents if document.kind != EXPORT_KIND)
    documents = tuple(document for document in documents if document.kind == EXPORT_KIND)
    if not documents:
        raise BadInput(f"{path}: has no {EXPORT_KIND}{explain_lists(others)}; see examples/yolov8.yaml")
    exports = tuple(parse_document(document) for document in documents)
    names = [(export.namespace, export.name) for export in exports]
    for document, name in zip(documents, names, strict=True):
        if names.count(name) > 1:
            raise BadInput(f"{document.where}: metadata.name: {'/'.join(name)} is used twice; rename or remove one")
    return exports, others


def explain_lists(others: tuple[Document, ...]) -> str:
    """Return a note that the items of a List are not read, if the file has a List."""
    if not any(document.kind == "List" for document in others):
        return ""
    return " (items of a List are not read; write each as a separate document, after a line ---)"


def parse_document(document: Document) -> ModelExport:
    """Parse a document as a ModelExport.

    Raises:
        BadInput: the document is not a valid ModelExport.
    """
    try:
        return read_export(document.body)
    except InvalidSpec as error:
        raise BadInput.from_spec(error, document.where) from error


def check_class(document: Document) -> str:
    """Parse a document as an ExportClass and return its name.

    Raises:
        BadInput: the document is not a valid ExportClass.
    """
    try:
        return read_class(document.body).name
    except InvalidSpec as error:
        raise BadInput.from_spec(error, document.where) from error
