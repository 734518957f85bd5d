"""The completion of the command line in a real shell, and the program as a plugin of kubectl."""

import shutil
import subprocess
from pathlib import Path

import pytest

from modelexport.cli import main

COMPLETE = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_modelexport
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("modelexport co", "convert completion"),
        ("modelexport convert --to Lite", "LiteRT/FP32 LiteRT/FP16 LiteRT/INT8 LiteRT/W8A16"),
        ("modelexport convert best.pt --arch", "--architecture"),
        ("modelexport matrix YOLOv8-", "YOLOv8-SEG YOLOv8-CLS YOLOv8-Pose YOLOv8-OBB"),
        ("modelexport init ./REA", "./README.md"),
        ("modelexport get shapes -o js", "json"),
    ],
)
def test_bash_completes_commands_options_and_values(script: Path, words: str, completed: str) -> None:
    (script.parent / "README.md").touch()
    program = COMPLETE.format(script=script, words=words)
    ended = subprocess.run(["bash", "-c", program], cwd=script.parent, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == completed


def test_zsh_script_has_targets_and_is_valid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef modelexport\n")
    assert "(LiteRT/FP32 LiteRT/FP16" in text
    if zsh := shutil.which("zsh"):
        (tmp_path / "_modelexport").write_text(text, encoding="utf-8")
        subprocess.run([zsh, "-n", str(tmp_path / "_modelexport")], check=True)


@pytest.mark.parametrize(
    ("program", "usage"),
    [
        ("/usr/bin/kubectl-modelexport", "usage: kubectl modelexport ["),
        ("/usr/bin/modelexport", "usage: modelexport ["),
    ],
)
def test_usage_names_the_program_as_it_was_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: str, usage: str
) -> None:
    monkeypatch.setattr("sys.argv", [program])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith(usage)
