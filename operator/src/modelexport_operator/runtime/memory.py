"""Gives memory back to the system that deleted objects have left."""

import ctypes
from collections.abc import Callable

_trim: Callable[[int], int] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


def release() -> None:
    """Give the free pages of the C heap back to the system, in about a millisecond.

    By itself glibc gives back only what is free at the end of the heap, so that a process keeps the size of its largest
    moment. Does nothing with a C library that lacks ``malloc_trim``.
    """
    _trim(0)
