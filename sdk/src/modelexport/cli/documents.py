"""Reads the YAML files of users; whatever is wrong with one is told by file, document, field and way out."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelexport.cli.bounded_yaml import NotPlain, load_documents
from modelexport.cli.strict import read_class, read_export
from modelexport.fields import InvalidSpec
from modelexport.names import API_VERSION, CLASS_KIND, EXPORT_KIND, GROUP
from modelexport.spec import ModelExport
from modelexport.text import clean, clean_lines

FILE_LIMIT = 1 << 20
"""Bytes of a file: a Kubernetes object has at most a few hundred thousand."""
KINDS = (EXPORT_KIND, CLASS_KIND)
SHOWN_LIMIT = 60
MESSAGE_LIMIT = 4096
"""Characters of a message: it may quote what a file or a cluster says, at any length."""


class BadInput(Exception):  # noqa: N818 - it names what is the case
    """The user's input cannot be used; ``str()`` says which, why, and the way out, cleaned, as it shows the input."""

    def __init__(self, message: str) -> None:
        super().__init__(clean_lines(message[:MESSAGE_LIMIT]))


@dataclass(frozen=True)
class Document:
    """One object of a file. ``where`` names it to the user: ``export.yaml, document 2``."""

    where: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind that the object claims to be."""
        return clean(str(self.body.get("kind")), SHOWN_LIMIT)

    @property
    def api_version(self) -> str:
        """The version that the object claims to be of."""
        return clean(str(self.body.get("apiVersion")), SHOWN_LIMIT)

    @property
    def is_ours(self) -> bool:
        """Whether it is a ModelExport or an ExportClass; other objects may stand beside."""
        return self.kind in KINDS


def read_documents(path: Path) -> tuple[Document, ...]:
    """Read every object of a YAML file: those of ModelExport, and of other kinds what may stand beside them.

    Raises:
        BadInput: the file cannot be read, is no YAML, or holds something else than objects; or an object has no kind,
            or one that only looks like one of ours.
    """
    try:
        contents = load_documents(_read_text(path))
    except NotPlain as error:
        raise BadInput(f"{path}: is not valid YAML: {error}") from error
    found = tuple(_documents(path, contents))
    if not found:
        raise BadInput(f"{path}: holds no object; write a {EXPORT_KIND}, for example examples/yolov8.yaml")
    for document in found:
        _check_kind(document)
    return found


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise BadInput(f"{path}: has more than {FILE_LIMIT:,} bytes; write several files")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            problem = f"is not a text in UTF-8 ({error.reason}); name a YAML file"
        else:
            problem = f"{getattr(error, 'strerror', error)}; name a file with a {EXPORT_KIND}"
        raise BadInput(f"{path}: {problem}") from error


def _documents(path: Path, contents: list[Any]) -> Iterator[Document]:
    for number, content in enumerate(contents, start=1):
        where = str(path) if len(contents) == 1 else f"{path}, document {number}"
        if content is None:
            continue  # what stands before a leading or after a closing ---
        if not isinstance(content, dict):
            shown = clean(str(content), SHOWN_LIMIT)
            raise BadInput(f"{where}: holds {shown!r}, which is no Kubernetes object")
        yield Document(where, content)


def _check_kind(document: Document) -> None:
    """Refuse what is of no kind, or of one that only looks like one of ours: nobody would ever serve it."""
    for field in ("apiVersion", "kind"):
        value = document.body.get(field)
        if not isinstance(value, str) or not value:
            problem = "is missing" if value is None else f"{clean(str(value), SHOWN_LIMIT)!r} is not a text"
            way_out = f"write apiVersion: {API_VERSION} and kind: {EXPORT_KIND}"
            raise BadInput(f"{document.where}: {field}: {problem}; {way_out}")
    known = {kind.lower(): kind for kind in KINDS}
    meant = get_close_matches(document.kind.lower(), known, n=1, cutoff=0.8)
    has_our_group = document.api_version.partition("/")[0].lower() == GROUP
    if document.is_ours and document.api_version != API_VERSION:
        problem = f"apiVersion: {document.api_version!r} is not that of {document.kind}; did you mean {API_VERSION}?"
    elif not document.is_ours and (meant or has_our_group):
        way_out = f"did you mean {known[meant[0]]}?" if meant else f"use one of {', '.join(KINDS)}"
        problem = f"kind: {document.kind!r} is not known; {way_out}"
    else:
        return
    raise BadInput(f"{document.where}: {problem}")


def read_exports(path: Path) -> tuple[tuple[ModelExport, ...], tuple[Document, ...]]:
    """Read the ModelExports of a file; return them, and the objects of other kinds, which are passed over.

    Raises:
        BadInput: there is none, one is invalid, or two have one name.
    """
    documents = read_documents(path)
    others = tuple(document for document in documents if document.kind != EXPORT_KIND)
    documents = tuple(document for document in documents if document.kind == EXPORT_KIND)
    if not documents:
        raise BadInput(f"{path}: holds no {EXPORT_KIND}{explain_lists(others)}; see examples/yolov8.yaml")
    exports = tuple(parse_document(document) for document in documents)
    names = [(export.namespace, export.name) for export in exports]
    for document, name in zip(documents, names, strict=True):
        if names.count(name) > 1:
            raise BadInput(f"{document.where}: metadata.name: {'/'.join(name)} is there twice; rename or remove one")
    return exports, others


def explain_lists(others: tuple[Document, ...]) -> str:
    """Say that objects within a list are not looked at, where there is one."""
    if not any(document.kind == "List" for document in others):
        return ""
    return " (the items of a List are not looked at: write each as a document of its own, after a line ---)"


def parse_document(document: Document) -> ModelExport:
    """Parse a document as a ModelExport.

    Raises:
        BadInput: it is none, or an invalid one.
    """
    try:
        return read_export(document.body)
    except InvalidSpec as error:
        raise BadInput(f"{document.where}: {error}") from error


def check_class(document: Document) -> str:
    """Check a document that is an ExportClass and return its name.

    Raises:
        BadInput: it is an invalid one.
    """
    try:
        return read_class(document.body).name
    except InvalidSpec as error:
        raise BadInput(f"{document.where}: {error}") from error
