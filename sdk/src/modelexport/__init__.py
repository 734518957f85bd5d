"""ModelExport: verified edge artifacts of trained PyTorch vision models, on a cluster or on this machine.

``Client`` and ``AsyncClient`` submit exports to a cluster, ``export`` builds one, ``convert`` runs it on this machine.
Operator and converter share the other modules with them. Every name here is loaded when it is first used, so that
neither a conversion nor the command line waits for a client of Kubernetes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelexport.api.quantization import Effort, Quantization
    from modelexport.api.reasons import Reason
    from modelexport.api.result import Artifact, ConversionResult, Verification
    from modelexport.api.spec import Calibration, DataRef, DeletionPolicy, Evaluation, Model, ModelExport, Parameters
    from modelexport.client.client import AsyncClient, Client
    from modelexport.client.exports import export
    from modelexport.client.status import ExportStatus
    from modelexport.errors import BadInput, ClusterError, ExportFailed, ModelExportError, TransferError
    from modelexport.local.convert import Converted, convert
    from modelexport.local.identification import Identified, identify
    from modelexport.matrix.options import Options
    from modelexport.matrix.support import Format, Precision, Target
    from modelexport.published import Published


from modelexport.version import __version__

__all__ = [
    "Artifact",
    "AsyncClient",
    "BadInput",
    "Calibration",
    "Client",
    "ClusterError",
    "ConversionResult",
    "Converted",
    "DataRef",
    "DeletionPolicy",
    "Effort",
    "Evaluation",
    "ExportFailed",
    "ExportStatus",
    "Format",
    "Identified",
    "Model",
    "ModelExport",
    "ModelExportError",
    "Options",
    "Parameters",
    "Precision",
    "Published",
    "Quantization",
    "Reason",
    "Target",
    "TransferError",
    "Verification",
    "__version__",
    "convert",
    "export",
    "identify",
]

_MODULES = {
    "api.quantization": ("Effort", "Quantization"),
    "api.reasons": ("Reason",),
    "api.result": ("Artifact", "ConversionResult", "Verification"),
    "api.spec": ("Calibration", "DataRef", "DeletionPolicy", "Evaluation", "Model", "ModelExport", "Parameters"),
    "client.client": ("AsyncClient", "Client"),
    "client.exports": ("export",),
    "published": ("Published",),
    "client.status": ("ExportStatus",),
    "errors": ("BadInput", "ClusterError", "ExportFailed", "ModelExportError", "TransferError"),
    "local.convert": ("Converted", "convert"),
    "local.identification": ("Identified", "identify"),
    "matrix.options": ("Options",),
    "matrix.support": ("Format", "Precision", "Target"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
