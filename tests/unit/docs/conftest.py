"""A command line with a fake converter, in a folder of its own."""

from pathlib import Path

import pytest

from command_line import CommandLine


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)
