"""Sources that a class allows: known ways to escape from a folder are refused."""

import pytest

from command_line import model_export
from modelexport.api.fields import InvalidSpec
from modelexport.api.sources import explain_outside
from modelexport.api.spec import parse_export
from modelexport.planning.plan import check_sources, export_folder

FOLDERS = ("s3://checkpoints/team/", "https://models.example/team/")

WITHIN = [
    "s3://checkpoints/team/best.pt",
    "s3://checkpoints/team/deep/er/best v1+2.pt",
    "s3://checkpoints/team/100%.pt",
    "s3://checkpoints/team/..best..pt",
    "s3://checkpoints/team/",
    "https://models.example/team/best.pt?token=a/../b#//",
]
OUTSIDE = [
    "s3://checkpoints/other/best.pt",
    "s3://checkpoints/team-2/best.pt",
    "s3://checkpoints/team",
    "s3://checkpoints-2/team/best.pt",
    "https://models.example@evil.example/team/best.pt",
    "https://models.example.evil.example/team/best.pt",
    "https://models.example:8443/team/best.pt",
    "HTTPS://models.example/team/best.pt",
    "file:///checkpoints/team/best.pt",
]
CROOKED = [
    "s3://checkpoints/team/../other/best.pt",
    "s3://checkpoints/team/..",
    "s3://checkpoints/team/./best.pt",
    "s3://checkpoints/team//best.pt",
    "s3://checkpoints/team/a//",
    "s3://checkpoints/team/%2e%2e/other/best.pt",
    "s3://checkpoints/team/%2E./other/best.pt",
    "s3://checkpoints/team/%252e%252e/other/best.pt",
    "s3://checkpoints/team/..%2fother/best.pt",
    "s3://checkpoints/team/..\\other\\best.pt",
    "s3://checkpoints/team/..%5cother/best.pt",
    "s3://checkpoints/team/%c0%ae%c0%ae/other/best.pt",
    "s3://checkpoints/team/best.pt%00.txt",
    "https://models.example/team/..;/other/best.pt",
    "https://models.example/team/%2e%2e;a=b/other/best.pt?x=1",
]


@pytest.mark.parametrize("uri", WITHIN)
def test_path_inside_folders_is_allowed(uri: str) -> None:
    assert explain_outside(uri, FOLDERS) is None


@pytest.mark.parametrize("uri", OUTSIDE)
def test_path_outside_folders_is_refused_with_folders(uri: str) -> None:
    problem = explain_outside(uri, FOLDERS)
    assert problem == "is not within s3://checkpoints/team/ or https://models.example/team/; move the file there"


@pytest.mark.parametrize("uri", CROOKED)
def test_path_traversal_is_outside_every_folder(uri: str) -> None:
    assert "write the path without" in str(explain_outside(uri, FOLDERS))


@pytest.mark.parametrize("uri", [*WITHIN, *OUTSIDE, *CROOKED])
def test_everything_is_allowed_without_folders(uri: str) -> None:
    assert explain_outside(uri, ()) is None


def test_images_follow_same_folder_rules_as_checkpoints() -> None:
    body = model_export(calibration={"dataset": {"uri": "s3://datasets/other/calib.zip"}})
    body["metadata"]["namespace"] = "team"
    body["spec"]["model"]["checkpoint"]["uri"] = "s3://checkpoints/team/a.pt"
    export = parse_export(body)
    check_sources(export, ["s3://checkpoints/{namespace}/", "s3://datasets/"])
    with pytest.raises(
        InvalidSpec, match=r"spec.calibration.dataset.uri: 's3://datasets/other/calib.zip' is not"
    ) as no:
        check_sources(export, ["s3://checkpoints/{namespace}/", "s3://datasets/{namespace}/"])
    assert no.value.reason == "SourceNotAllowed"


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("s3://exports", "s3://exports/team/shapes/"),
        ("s3://exports/all", "s3://exports/all/team/shapes/"),
        ("s3://exports/{namespace}/files", "s3://exports/team/files/shapes/"),
    ],
)
def test_namespace_is_subfolder_or_placeholder(output: str, folder: str) -> None:
    assert export_folder(output, "team", "shapes") == folder
