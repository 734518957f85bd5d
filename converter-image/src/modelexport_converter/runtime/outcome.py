"""Maps every exception that can end a conversion to a reason and a message. No other module decides this."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.logs import log, with_fields
from modelexport.text import clean
from modelexport_converter.failures import Failure

BRIEF = 500
"""Characters of a library's message that reach the user; the log has all of it."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "Failed to allocate memory", "out of memory")
"""Messages of C++ libraries that ran out of memory; they do not raise ``MemoryError``."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM). Not an ``Exception``, which a library might catch."""


@contextmanager
def library_errors(doing: str, reason: Reason = Reason.CONVERSION_FAILED) -> Iterator[None]:
    """Turn any exception of a library into a failure with this reason; ``doing`` describes the action for the message.

    Raises:
        Failure: instead of every exception except ``Failure``, ``MemoryError`` and ``OSError``, which pass through.
    """
    try:
        yield
    except (Failure, MemoryError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.error("library", exc_info=True, extra=with_fields(doing=doing))
        raise Failure(reason, f"cannot {doing}: {brief(error)}") from error


def explain(error: Exception) -> ConversionResult:
    """Return the result of a conversion that ended in an exception."""
    reason, message = _reason_of(error)
    level = log.warning if isinstance(error, Failure) else log.error
    level("failure", exc_info=error, extra=with_fields(reason=reason, message=message))
    if not isinstance(error, Failure):
        return ConversionResult(reason, message)
    return ConversionResult(
        reason,
        message,
        verification=error.verification,
        accuracy=error.accuracy,
        quantization=error.quantization,
    )


def _reason_of(error: Exception) -> tuple[Reason, str]:
    if isinstance(error, Failure):
        return error.reason, str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        where = error.filename or "the scratch folder"
        return (
            Reason.STORAGE_FULL,
            f"no space left on this node's disk for {where}; give conversions more scratch space",
        )
    if is_out_of_memory(error):
        return Reason.OOM_KILLED, f"the conversion ran out of memory: {brief(error)}"
    return Reason.INTERNAL_ERROR, f"unexpected {type(error).__name__}: {brief(error)}"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a library ran out of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def brief(error: Exception) -> str:
    """Return the message of an exception on one line, short enough for a status."""
    return clean(" ".join(str(error).split()) or type(error).__name__, BRIEF)
