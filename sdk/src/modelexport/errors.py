"""The errors of command line and SDK: each says what is wrong, where, and the way out."""

from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.text import clean_lines

MESSAGE_LIMIT = 4096
"""Maximum characters of a message, which may quote a file or a cluster."""


class ModelExportError(Exception):
    """The base of all errors; ``str()`` has the cause and the way out, cleaned because it quotes input.

    Attributes:
        reason: the reason of the closed list, if there is one.
        field: the path of the invalid field or option, such as ``spec.targets[0].format``, if there is one.
    """

    def __init__(self, message: str, *, reason: Reason | None = None, field: str | None = None) -> None:
        super().__init__(clean_lines(message[:MESSAGE_LIMIT]))
        self.reason = reason
        self.field = field


class BadInput(ModelExportError):  # noqa: N818 - named for the cause
    """A file, an option or a name is invalid."""

    @classmethod
    def from_spec(cls, error: InvalidSpec, where: str = "") -> "BadInput":
        """Return the error about an invalid field; ``where`` names the file."""
        return cls(f"{where}: {error}" if where else str(error), reason=error.reason, field=error.field_path)


class ClusterError(ModelExportError):
    """The API server refused a request, or cannot be reached.

    Attributes:
        status: the HTTP status; 0 without an answer.
    """

    def __init__(self, message: str, status: int = 0, *, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.status = status

    @property
    def can_pass(self) -> bool:
        """Whether the same request can succeed later: no answer, too many requests, or a fault of the server."""
        return self.status in (0, 429) or self.status >= 500


class ExportFailed(ModelExportError):  # noqa: N818 - named for what happened
    """An export has ended without all of its files; the message names each failed target with its reason."""


class TransferError(ModelExportError):
    """A file could not be downloaded."""
