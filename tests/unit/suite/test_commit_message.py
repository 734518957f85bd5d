import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "hack/commit_message.py"


def check(message: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "COMMIT_EDITMSG"
    path.write_text(message, encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "message",
    ["Cache nodes", "x" * 72, "é" * 72, "Cache nodes\n\nEvery reconcile reads them.\n", "Cache nodes\n# by Git\n\nWhy"],
)
def test_a_short_subject_and_a_body_apart_pass(message: str, tmp_path: Path) -> None:
    done = check(message, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "it is empty"),
        ("# Please enter the commit message", "it is empty"),
        ("\nCache the nodes", "it is empty"),
        ("x" * 73, "the subject has 73 characters, at most 72 fit"),
        ("Cache the nodes\nThey are read in every reconcile.", "the second line is not empty"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused(message: str, problem: str, tmp_path: Path) -> None:
    done = check(message, tmp_path)
    assert done.returncode == 1
    assert problem in done.stderr
