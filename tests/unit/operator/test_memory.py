"""What deleted objects leave goes back to the system."""

import re
from pathlib import Path

from modelexport_operator.runtime import memory

MIB = 2**20


def resident() -> float:
    """The memory of this process in MiB."""
    kib = re.search(r"^VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert kib is not None
    return int(kib[1]) / 1024


def test_memory_of_deleted_objects_is_released() -> None:
    objects = [bytes(1024) for _ in range(100 * 1024)]
    pin = [bytes(1024) for _ in range(8)]  # the end of the heap stays in use
    objects.clear()
    before = resident()
    memory.release()
    assert resident() < before - 80
    assert len(pin) == 8
