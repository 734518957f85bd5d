"""What deleted objects leave goes back to the system."""

import os

from benchmarks.measuring.processes import rss_mib
from modelexport_operator.runtime import memory


def test_memory_of_deleted_objects_is_released() -> None:
    objects = [bytes(1024) for _ in range(100 * 1024)]
    pin = [bytes(1024) for _ in range(8)]  # the end of the heap stays in use
    objects.clear()
    before = rss_mib(os.getpid())
    memory.release()
    assert rss_mib(os.getpid()) < before - 80
    assert len(pin) == 8
