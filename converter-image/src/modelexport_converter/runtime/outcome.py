"""Every exception that can end a conversion, turned into a reason and a message. The only place that decides this."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from modelexport.logs import log, with_fields
from modelexport.reasons import Reason
from modelexport.result import ConversionResult
from modelexport.text import clean
from modelexport_converter.failures import Failure

BRIEF = 500
"""Characters of a library's message that reach the user; the log has all of it."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "Failed to allocate memory", "out of memory")
"""How libraries in C++ say it, who know no ``MemoryError``."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM); not an ``Exception``, which a library might take for its own problem."""


@contextmanager
def library_errors(doing: str, reason: Reason = Reason.CONVERSION_FAILED) -> Iterator[None]:
    """Give whatever a library raises the reason of what was being done.

    Raises:
        Failure: in the place of any exception but those that say themselves what happened.
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
    """Return the result of a conversion that an exception ended."""
    reason, message = _reason_of(error)
    level = log.warning if isinstance(error, Failure) else log.error
    level("failure", exc_info=error, extra=with_fields(reason=reason, message=message))
    verification = error.verification if isinstance(error, Failure) else None
    return ConversionResult(reason, message, verification=verification)


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
    """Tell whether a library wanted more memory than there is."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def brief(error: Exception) -> str:
    """Return the message of an exception on one line, cut to what a status can hold."""
    return clean(" ".join(str(error).split()) or type(error).__name__, BRIEF)
