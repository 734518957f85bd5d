"""Which ExportClass serves an export. Pure."""

from collections.abc import Sequence

from modelexport.fields import InvalidSpec
from modelexport.names import DEFAULT_CLASS_ANNOTATION
from modelexport.plan import check_sources
from modelexport.reasons import Reason
from modelexport.spec import ExportClass, ModelExport, parse_class
from modelexport_operator.pods import Finding, Object, created


def find_class(export: ModelExport, classes: Sequence[Object]) -> ExportClass | Finding:
    """Return the class that serves an export; or why there is none, or why it does not serve this one."""
    found = choose_class(export, classes)
    if isinstance(found, Finding):
        return found
    if found.allowed_namespaces and export.namespace not in found.allowed_namespaces:
        problem = f"ExportClass {found.name} does not serve namespace {export.namespace} (spec.allowedNamespaces)"
        return Finding(Reason.CLASS_NOT_ALLOWED, f"{problem}; name another class in spec.className")
    try:
        check_sources(export, found.sources)
    except InvalidSpec as error:
        return Finding(error.reason, f"ExportClass {found.name} refuses {error}")
    return found


def choose_class(export: ModelExport, classes: Sequence[Object]) -> ExportClass | Finding:
    """Return the class that an export names, or the default one; or why there is none.

    Of several default classes the newest one serves, as with StorageClasses.
    """
    body = pick_class(export.class_name, classes)
    if body is None:
        return Finding(Reason.CLASS_NOT_FOUND, _explain_missing(export.class_name, classes))
    try:
        return parse_class(body)
    except InvalidSpec as error:
        return Finding(Reason.CLASS_INVALID, f"ExportClass {body['metadata']['name']}: {error}")


def pick_class(name: str | None, classes: Sequence[Object]) -> Object | None:
    """Return the class of a name, or without one the default class; ``None`` where there is none."""
    return _named(name, classes) if name else _default(classes)


def output_folder(export_class: ExportClass) -> str:
    """The URI of the folder for all exports of a class, as ``plan_export`` takes it."""
    storage = export_class.storage
    return f"s3://{storage.bucket}/{storage.prefix}".rstrip("/")


def _named(name: str, classes: Sequence[Object]) -> Object | None:
    return next((body for body in classes if body["metadata"]["name"] == name), None)


def _default(classes: Sequence[Object]) -> Object | None:
    defaults = [body for body in classes if _is_default(body)]
    return max(defaults, key=created, default=None)


def _is_default(body: Object) -> bool:
    annotations = body["metadata"].get("annotations") or {}
    return bool(annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")


def _explain_missing(name: str | None, classes: Sequence[Object]) -> str:
    known = ", ".join(sorted(body["metadata"]["name"] for body in classes)) or "none"
    if name:
        return f"ExportClass {name!r} does not exist (there are: {known}); the export starts when it is created"
    way_out = f"annotate one with {DEFAULT_CLASS_ANNOTATION}: 'true', or set spec.className"
    return f"No ExportClass is the default (there are: {known}); {way_out}"
