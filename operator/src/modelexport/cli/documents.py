"""Reads the YAML files of users; whatever is wrong with one is told by file, document, field and way out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelexport.cli.strict import read_class, read_export
from modelexport.fields import InvalidSpec
from modelexport.names import EXPORT_KIND
from modelexport.spec import ModelExport
from modelexport.text import clean_lines


class BadInput(Exception):  # noqa: N818 - it names what is the case
    """The user's input cannot be used; ``str()`` says which, why, and the way out, cleaned, as it shows the input."""

    def __init__(self, message: str) -> None:
        super().__init__(clean_lines(message))


@dataclass(frozen=True)
class Document:
    """One object of a file. ``where`` names it to the user: ``export.yaml, document 2``."""

    where: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind that the object claims to be."""
        return str(self.body.get("kind"))


def read_documents(path: Path) -> tuple[Document, ...]:
    """Read every object of a YAML file.

    Raises:
        BadInput: the file cannot be read, is no YAML, or holds something else than objects.
    """
    try:
        contents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a file with a {EXPORT_KIND}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not a text in UTF-8 ({error.reason}); name a YAML file") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    found = tuple(_documents(path, contents))
    if not found:
        raise BadInput(f"{path}: holds no object; write a {EXPORT_KIND}, for example examples/yolov8.yaml")
    return found


def _documents(path: Path, contents: list[Any]) -> Iterator[Document]:
    for number, content in enumerate(contents, start=1):
        where = str(path) if len(contents) == 1 else f"{path}, document {number}"
        if content is None:
            continue  # what stands before a leading or after a closing ---
        if not isinstance(content, dict):
            raise BadInput(f"{where}: holds {str(content)[:60]!r}, which is no Kubernetes object")
        yield Document(where, content)


def read_exports(path: Path) -> tuple[ModelExport, ...]:
    """Read the ModelExports of a file and pass over objects of other kinds.

    Raises:
        BadInput: there is none, one is invalid, or two have one name.
    """
    documents = [document for document in read_documents(path) if document.kind == EXPORT_KIND]
    if not documents:
        raise BadInput(f"{path}: holds no {EXPORT_KIND}; see examples/yolov8.yaml")
    exports = tuple(parse_document(document) for document in documents)
    names = [(export.namespace, export.name) for export in exports]
    for document, name in zip(documents, names, strict=True):
        if names.count(name) > 1:
            raise BadInput(f"{document.where}: metadata.name: {'/'.join(name)} is there twice; rename or remove one")
    return exports


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
