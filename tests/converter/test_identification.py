"""The architecture of a checkpoint is found by what is in it."""

import logging
from pathlib import Path
from typing import Any

import pytest

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.failures import Failure
from modelexport_converter.identification import identify

WEIGHTS = Path(__file__).parents[2] / "testdata/models/weights"
KNOWN = {
    "deeplabv3.pt": ("DeepLabV3", "mobilenet_v3_small"),
    "fcn.pt": ("FCN", "mobilenet_v3_small"),
    "maskrcnn.pt": ("MaskRCNN", "resnet50"),
    "retinanet.pt": ("RetinaResNet", "resnet50"),
    "ssdlite320_mobilenet_v3_large.pt": ("MobileNet", None),
    "unet.pt": ("UNet", None),
    "yolov4_tiny.pth": ("YOLOv4", "tiny"),
    "yolo11n-narrow.pt": ("YOLO11", None),
    "yolo26n-narrow.pt": ("YOLO26", None),
    "yolo26n-seg-narrow.pt": ("YOLO26-SEG", None),
    "yolo26n-cls-narrow.pt": ("YOLO26-CLS", None),
    "yolo26n-pose-narrow.pt": ("YOLO26-Pose", None),
    "yolo26n-obb-narrow.pt": ("YOLO26-OBB", None),
    "yolo11n-seg-narrow.pt": ("YOLO11-SEG", None),
    "yolo11n-cls-narrow.pt": ("YOLO11-CLS", None),
    "yolo11n-pose-narrow.pt": ("YOLO11-Pose", None),
    "yolo11n-obb-narrow.pt": ("YOLO11-OBB", None),
    "yolov8n-cls.pt": ("YOLOv8-CLS", "n"),
    "yolov8n-obb-narrow.pt": ("YOLOv8-OBB", None),
    "yolov8n-pose.pt": ("YOLOv8-Pose", "n"),
    "yolov8n-seg.pt": ("YOLOv8-SEG", "n"),
    "yolov8n.pt": ("YOLOv8", "n"),
    "yolox_nano.pth": ("YOLOX", "nano"),
}


def ask(path: Path, caplog: pytest.LogCaptureFixture, **environ: str) -> dict[str, Any]:
    with caplog.at_level(logging.INFO, "modelexport"):
        assert identify({names.CHECKPOINT_ENV: str(path), **environ}).succeeded
    (record,) = (record for record in caplog.records if record.message == "identified")
    fields: dict[str, Any] = vars(record)["fields"]
    return fields


@pytest.mark.parametrize("name", KNOWN)
def test_architecture_and_variant_are_found(name: str, caplog: pytest.LogCaptureFixture) -> None:
    found = ask(WEIGHTS / name, caplog)
    assert (found["architecture"], found.get("variant")) == KNOWN[name]
    assert max(found["inputSize"]) <= 192, "the size of the training, which the checkpoint records"
    assert "circle" in found["classNames"]


@pytest.mark.parametrize("name", KNOWN)
def test_one_architecture_only_takes_a_checkpoint(name: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {names.CHECKPOINT_ENV: str(WEIGHTS / name)}
    for other in ARCHITECTURES:
        if other != KNOWN[name][0]:
            with pytest.raises(Failure) as refused:
                identify({**environ, names.ARCHITECTURE_ENV: other})
            assert refused.value.reason is Reason.CHECKPOINT_MISMATCH, other


def test_named_architecture_is_checked(caplog: pytest.LogCaptureFixture) -> None:
    asked = {names.ARCHITECTURE_ENV: "YOLOX"}
    assert ask(WEIGHTS / "yolox_nano.pth", caplog, **asked)["architecture"] == "YOLOX"
    with pytest.raises(Failure, match="the checkpoint has no weights named backbone"):
        identify({names.CHECKPOINT_ENV: str(WEIGHTS / "unet.pt"), **asked})


def test_unknown_weights_are_refused_with_a_way_out(tmp_path: Path) -> None:
    import torch

    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "a.pt")
    with pytest.raises(Failure, match=r"the weights are those of none of YOLOv8, .*; name the architecture") as refused:
        identify({names.CHECKPOINT_ENV: str(tmp_path / "a.pt")})
    assert refused.value.reason is Reason.CHECKPOINT_MISMATCH
