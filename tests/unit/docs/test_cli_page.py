"""The page of the command line has every command, and every field of its JSON output."""

import argparse
import json
import re
from dataclasses import fields
from pathlib import Path

from command_line import CommandLine
from modelexport.api.reasons import Reason
from modelexport.api.result import Accuracy, ConversionResult, Fidelity, Verification
from modelexport.cli import build_parser
from modelexport.crds.model_export import export_schema
from modelexport.planning.progress import Progress
from modelexport.published import Published

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text(encoding="utf-8")
HEAD = "| field | content |\n|---|---|\n"


def documented(table: int) -> dict[str, str]:
    """The fields of a table of the page, and what it says of them."""
    rows = PAGE.split(HEAD)[table + 1].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", rows, re.MULTILINE))


def test_json_of_convert_has_the_documented_fields(command_line: CommandLine) -> None:
    found = {"architecture": "YOLOv8", "inputSize": [32, 32], "numClasses": 0, "classNames": [], "assumptions": []}
    (command_line.folder / "a.pt").write_text(json.dumps(found), encoding="utf-8")
    ended = command_line("convert", "a.pt", "--to", "ONNX/FP32", "-o", "json")
    (record,) = json.loads(ended.stdout)
    assert record.keys() == documented(0).keys()
    for part in ("artifact", "verification"):
        named = set(re.findall(r"`(\w+)`", documented(0)[part])) - {"null", "scoreShift"}
        assert record[part].keys() == named, part


def test_json_spells_fields_as_the_status_does() -> None:
    fidelity = Fidelity("boxes", "0.94", 64, score_shift="-0.01", mask_iou="0.9")
    accuracy = Accuracy("mAP50-95", "0.6", "0.5", "0.1", "0.2", 64, ("0.05", "0.15"))
    verification = Verification("agreement", "0.98", "0.9", fidelity=fidelity)
    published = Published("ONNX/INT8", "Succeeded", verification=verification, accuracy=accuracy)
    result = ConversionResult(Reason.SUCCEEDED, "", verification=verification, accuracy=accuracy)
    properties = export_schema()["properties"]["status"]["properties"]["targets"]["items"]["properties"]
    for found in (published.to_dict(), result.to_dict()):
        for part in ("verification", "accuracy"):
            assert found[part].keys() <= properties[part]["properties"].keys()
        assert found["verification"]["fidelity"]["scoreShift"] == "-0.01"
        assert found["verification"]["fidelity"].keys() <= (
            properties["verification"]["properties"]["fidelity"]["properties"].keys()
        )


def test_json_of_get_has_the_documented_fields() -> None:
    assert Published("ONNX/FP32", "Running").to_dict().keys() == documented(1).keys()
    named = {field.name for field in fields(Progress)}
    assert named == set(re.findall(r"`(\w+)`", documented(1)["progress"])) - {"null"}


def test_page_names_every_command() -> None:
    (commands,) = (one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    listed = set(re.findall(r"`modelexport (\w+)", PAGE.partition("## ")[0]))
    assert set(commands.choices) == listed - {"COMMAND"}
