"""``modelexport run`` with a fake converter: its child processes, its output and its exit codes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command_line import CommandLine, is_alive, model_export, wait_for

NINE = [f"{fmt}/{precision}" for fmt in ("LiteRT", "ONNX", "CoreML") for precision in ("FP32", "FP16", "INT8")]


def test_nine_targets_run_and_are_listed_with_numbers(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes", *NINE))
    ended = command_line("run", "export.yaml", "--jobs", 3)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for target in NINE:
        assert target in ended.stdout
    assert "0.250" in ended.stdout, "the INT8 file is a quarter of the FP32 file"
    assert "cosine 0.9998 >= 0.999" in ended.stdout
    assert "modelexport-store/exports/default/shapes/coreml-int8-" in ended.stdout


def test_assumptions_and_warnings_are_printed_once(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes", *NINE))
    ended = command_line("run", "export.yaml", "--jobs", 3)
    assert "cosine 0.9998 >= 0.999  boxes 0.9700  Rebuilt" in ended.stdout
    assert "LiteRT/FP32 and 8 more: compared with a rebuilt network; assumed: activation SiLU\n" in ended.stdout
    assert "8 more: fidelity boxes 0.9700 >= 0.9 (97 kept, 2 missed, 1 invented)\n" in ended.stdout
    assert "LiteRT/INT8 and 2 more: warning: it looks wrong\n" in ended.stdout
    assert ended.stdout.count("SiLU") == ended.stdout.count("it looks wrong") == 1


def test_progress_is_plain_lines_without_terminal(command_line: CommandLine) -> None:
    command_line.write(model_export())
    ended = command_line("run", "export.yaml")
    for stage in ("fetch", "load", "convert", "succeeded"):
        assert f"ONNX/FP32      {stage}" in ended.stdout
    assert "\x1b[" not in ended.stdout


def test_json_is_only_output_on_stdout(command_line: CommandLine) -> None:
    command_line.write(model_export("shapes", "ONNX/FP32", "ONNX/INT8"))
    ended = command_line("run", "export.yaml", "-o", "json")
    full, quantised = json.loads(ended.stdout)
    assert (full["target"], full["state"], full["ratio"]) == ("ONNX/FP32", "succeeded", 1.0)
    assert (quantised["target"], quantised["ratio"]) == ("ONNX/INT8", 0.25)
    assert quantised["artifact"]["size_bytes"] == 1000
    assert quantised["attempts"] == 1
    assert full["verification"]["reference"] == "Rebuilt"
    assert full["verification"]["assumptions"] == ["activation SiLU"]
    assert (full["verification"]["warnings"], quantised["verification"]["warnings"]) == ([], ["it looks wrong"])


def test_failed_target_shows_reason_message_and_remedy(command_line: CommandLine) -> None:
    command_line.behaviours["ONNX/FP16"] = {"reason": "VerificationFailed"}
    command_line.write(model_export("shapes", "ONNX/FP32", "ONNX/FP16"))
    ended = command_line("run", "export.yaml")
    assert ended.returncode == 1
    assert "ONNX/FP16: VerificationFailed" in ended.stdout
    assert "VerificationFailed on purpose" in ended.stdout
    assert "Use a higher precision" in ended.stdout
    log = Path(ended.stdout.split("Log: ")[1].split("\n")[0])
    assert "something that a library prints" in log.read_text(encoding="utf-8")


def test_successful_run_leaves_no_logs_or_temporary_files(command_line: CommandLine) -> None:
    command_line.write(model_export())
    command_line("run", "export.yaml")
    left = {path.name for path in command_line.folder.iterdir()}
    assert not {name for name in left if name.startswith(("modelexport-", "left-by-"))} - {"modelexport-store"}, left


def test_retriable_failure_is_retried(command_line: CommandLine) -> None:
    command_line.behaviours["ONNX/FP32"] = {"reason": "StorageUnavailable", "succeeds_at": 2}
    command_line.write(model_export())
    ended = command_line("run", "export.yaml", "-o", "json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)[0]["attempts"] == 2
    assert "waiting to retry" in ended.stderr


def test_user_fault_is_not_retried(command_line: CommandLine) -> None:
    command_line.behaviours["ONNX/FP32"] = {"reason": "CheckpointNotFound"}
    command_line.write(model_export())
    ended = command_line("run", "export.yaml", "-o", "json")
    assert json.loads(ended.stdout)[0]["attempts"] == 1


@contextmanager
def inherited(number: int, action: signal.Handlers) -> Iterator[None]:
    """Let child processes inherit a signal as ignored or not, however the tests were started."""
    before = signal.signal(number, action)
    try:
        yield
    finally:
        signal.signal(number, before)


def start_and_hang(command_line: CommandLine) -> tuple["subprocess.Popen[str]", int]:
    """Start a run of two targets; return it with the process of the second, which does not end by itself."""
    command_line.behaviours["ONNX/FP16"] = {"hang": True}
    command_line.write(model_export("shapes", "ONNX/FP32", "ONNX/FP16"))
    running = command_line.start("run", "export.yaml", "--jobs", 1)
    pid_file = command_line.folder / "onnx-fp16.pid"
    child = wait_for(lambda: pid_file.exists() and pid_file.read_text(encoding="utf-8"), "the second conversion")
    return running, int(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_leaves_no_child_process_and_resumes(command_line: CommandLine, number: int) -> None:
    with inherited(signal.SIGHUP, signal.SIG_DFL):
        running, child = start_and_hang(command_line)
    running.send_signal(number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert not is_alive(child)
    assert "1 of 2 targets are finished" in output
    assert not list(command_line.folder.glob("modelexport-run-*")), "scratch space is left"
    command_line.behaviours.clear()
    again = json.loads(command_line("run", "export.yaml", "-o", "json").stdout)
    assert [item["state"] for item in again] == ["reused", "succeeded"]


def test_interrupted_run_still_reports_failures(command_line: CommandLine) -> None:
    command_line.behaviours["ONNX/FP32"] = {"reason": "CheckpointNotFound"}
    running, _ = start_and_hang(command_line)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "ONNX/FP32: CheckpointNotFound" in output
    assert "Upload the checkpoint" in output
    assert "0 of 2 targets are finished" in output


def test_run_under_nohup_survives_hangup(command_line: CommandLine) -> None:
    with inherited(signal.SIGHUP, signal.SIG_IGN):
        running, child = start_and_hang(command_line)
    running.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=1)
    assert is_alive(child)
    running.terminate()
    running.communicate(timeout=20)


def test_several_exports_in_file_all_run(command_line: CommandLine) -> None:
    command_line.write(model_export("one"), {"apiVersion": "v1", "kind": "ConfigMap"}, model_export("two"))
    ended = command_line("run", "export.yaml")
    assert ended.returncode == 0
    assert "default/one ONNX/FP32" in ended.stdout
    assert "default/two ONNX/FP32" in ended.stdout
    assert "document 2: ConfigMap is not a ModelExport, skipped" in ended.stdout


def test_suspended_export_is_skipped_and_reported(command_line: CommandLine) -> None:
    command_line.write(model_export("resting", suspend=True))
    ended = command_line("run", "export.yaml")
    assert ended.returncode == 0
    assert "default/resting is suspended, skipped; set spec.suspend to false" in ended.stdout
    assert not (command_line.folder / "onnx-fp32.attempts").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--jobs", 0), "--jobs: 0 is less than one"),
        (("--output-uri", "exports"), "--output-uri: 'exports' is not a folder in the store; use s3://bucket/folder"),
        (("--store", "ftp://host"), "--store: 'ftp://host' is not a store"),
        (("--store", "/proc/store"), "--store: /proc/store: "),
    ],
)
def test_invalid_option_is_named(command_line: CommandLine, arguments: tuple[object, ...], message: str) -> None:
    command_line.write(model_export())
    ended = command_line("run", "export.yaml", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
