"""The CustomResourceDefinitions, built from the support matrix."""

from typing import Any

from modelexport import names
from modelexport.crds.export_class import class_schema
from modelexport.crds.model_export import export_schema
from modelexport.crds.schema import Schema

READY_REASON = '.status.conditions[?(@.type=="Ready")].reason'
READY_MESSAGE = '.status.conditions[?(@.type=="Ready")].message'
ACCURACY_KEPT = '.status.conditions[?(@.type=="AccuracyKept")].status'
REFERENCE = ".status.targets[0].verification.reference"


def build_export_crd() -> Schema:
    """Build the CustomResourceDefinition of ModelExport."""
    columns = [
        _column("Architecture", ".spec.model.architecture"),
        _column("Ready", ".status.ready", description="Published targets out of all targets"),
        _column("Progress", ".status.progress", description="Overall progress at the last status update"),
        _column("Status", READY_REASON),
        _column("Reference", REFERENCE, priority=1, description="Origin of the original model of the first target"),
        _column("Accuracy kept", ACCURACY_KEPT, priority=1, description="Whether no file lost more than is allowed"),
        _column("Message", READY_MESSAGE, priority=1),
        _column("Age", ".metadata.creationTimestamp", type="date"),
    ]
    version = {**_version(export_schema(), columns), "subresources": {"status": {}}}
    short = {"shortNames": [names.EXPORT_SHORT_NAME]}
    return _definition(names.EXPORT_KIND, names.EXPORT_PLURAL, "Namespaced", version, short)


def build_class_crd() -> Schema:
    """Build the CustomResourceDefinition of ExportClass."""
    default = names.DEFAULT_CLASS_ANNOTATION.replace(".", r"\.")
    columns = [
        _column("Default", f".metadata.annotations.{default}"),
        _column("Endpoint", ".spec.storage.endpoint"),
        _column("Bucket", ".spec.storage.bucket"),
        _column("Image", ".spec.converter.image", priority=1),
        _column("Age", ".metadata.creationTimestamp", type="date"),
    ]
    return _definition(names.CLASS_KIND, names.CLASS_PLURAL, "Cluster", _version(class_schema(), columns), {})


def _definition(kind: str, plural: str, scope: str, version: Schema, more: Schema) -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": scope,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), **more},
            "versions": [version],
        },
    }


def _version(schema: Schema, columns: list[Schema]) -> Schema:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }


def _column(name: str, path: str, **more: Any) -> Schema:
    return {"name": name, "type": "string", "jsonPath": path, **more}
