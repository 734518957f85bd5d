"""Describes the machine of a measurement, and its load."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from modelexport.matrix.support import cells
from modelexport_converter.publishing.report import tool_versions

REPOSITORY = Path(__file__).parents[2]
TOOLS = frozenset(tool for cell in cells() for tool in cell.tools)
"""The packages that make the files of any cell."""


def describe_machine() -> dict[str, str]:
    """Return processor, memory, system and versions as texts, without the name of this machine."""
    versions = {**tool_versions(TOOLS), "ultralytics": metadata.version("ultralytics")}
    versions.pop("modelexport")
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "Commit": subprocess.check_output(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=REPOSITORY, text=True
        ).strip(),
        "Processor": f"{_field('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores",
        "Memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "Libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def describe_load() -> str:
    """Return the load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(name))
