"""Chooses the ExportClass of an export. Pure."""

from collections.abc import Sequence

from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.spec import ExportClass, ModelExport
from modelexport.names import DEFAULT_CLASS_ANNOTATION
from modelexport.planning.plan import check_sources
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.kube.objects import ExportClassObject
from modelexport_operator.kube.types import created
from modelexport_operator.reconcile.parsed_objects import parse_class_once


def find_class(export: ModelExport, classes: Sequence[ExportClassObject]) -> ExportClass | Diagnosis:
    """Return the class that serves an export, or why no class exists or the class does not serve this export."""
    found = choose_class(export, classes)
    if isinstance(found, Diagnosis):
        return found
    if found.allowed_namespaces and export.namespace not in found.allowed_namespaces:
        problem = f"ExportClass {found.name} does not serve namespace {export.namespace} (spec.allowedNamespaces)"
        return Diagnosis(Reason.CLASS_NOT_ALLOWED, f"{problem}; name another class in spec.className")
    try:
        check_sources(export, found.sources)
    except InvalidSpec as error:
        return Diagnosis(error.reason, f"ExportClass {found.name} refuses {error}")
    return found


def choose_class(export: ModelExport, classes: Sequence[ExportClassObject]) -> ExportClass | Diagnosis:
    """Return the class that an export names, or the default class, or why there is none.

    If several classes are marked as default, the newest one is used, as with StorageClasses.
    """
    body = pick_class(export.class_name, classes)
    if body is None:
        known = ", ".join(sorted(body["metadata"]["name"] for body in classes)) or "none"
        if export.class_name:
            words = f"ExportClass {export.class_name!r} does not exist (there are: {known})"
            return Diagnosis(Reason.CLASS_NOT_FOUND, f"{words}; the export starts when it is created")
        way_out = f"annotate one with {DEFAULT_CLASS_ANNOTATION}: 'true', or set spec.className"
        return Diagnosis(Reason.CLASS_NOT_FOUND, f"No ExportClass is the default (there are: {known}); {way_out}")
    try:
        return parse_class_once(body)
    except InvalidSpec as error:
        return Diagnosis(Reason.CLASS_INVALID, f"ExportClass {body['metadata']['name']}: {error}")


def pick_class(name: str | None, classes: Sequence[ExportClassObject]) -> ExportClassObject | None:
    """Return the class with a name, or without a name the default class; ``None`` if there is none."""
    if name:
        return next((body for body in classes if body["metadata"]["name"] == name), None)
    defaults = [
        body for body in classes if (body["metadata"].get("annotations") or {}).get(DEFAULT_CLASS_ANNOTATION) == "true"
    ]
    return max(defaults, key=created, default=None)


def output_folder(export_class: ExportClass) -> str:
    """Return the URI of the folder for all exports of a class, as ``plan_export`` takes it."""
    storage = export_class.storage
    return f"s3://{storage.bucket}/{storage.prefix}".rstrip("/")
