"""The longer suites rely on groups: tests that share a fixture per process run in one process."""

import subprocess
import sys
from pathlib import Path

TESTS = """
import os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("index", [pytest.param(i, marks=pytest.mark.xdist_group(f"group-{i % 2}")) for i in range(8)])
def test_something(index):
    time.sleep(0.05)
    Path(f"{index % 2}-{os.environ['PYTEST_XDIST_WORKER']}").touch()
"""


def test_group_of_tests_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert [path.name[0] for path in sorted(tmp_path.glob("?-gw?"))] == ["0", "1"]
