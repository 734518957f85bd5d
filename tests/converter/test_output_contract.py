"""Programs with the output shapes of an architecture, whose output values break its contract."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from modelexport.api.reasons import Reason
from modelexport.api.result import Reference
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import compare
from trained.cells import ask, load

Ending = Callable[[torch.Tensor], torch.Tensor]
ANCHORS = 84  # of strides 8, 16 and 32 in an image of 64 x 64


class Pixels(nn.Module):
    """Gives each pixel a number for each class, passed through ``ending``."""

    def __init__(self, classes: int, ending: Ending) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, classes, 3, padding=1)
        nn.init.normal_(self.last.weight, std=3)
        self.ending = ending

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.ending(self.last(image))


class Detector(nn.Module):
    """Gives scores, and boxes all over the image, multiplied by ``size``."""

    def __init__(self, size: float, ending: Ending) -> None:
        super().__init__()
        self.score = nn.Linear(3, 2 * ANCHORS)
        nn.init.normal_(self.score.weight, std=9)
        self.register_buffer("boxes", torch.linspace(0, 1, ANCHORS).expand(1, 4, -1).clone())
        self.size, self.ending = size, ending

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = image.mean((2, 3))
        return self.get_buffer("boxes") * self.size + mean.sum(), self.ending(self.score(mean).view(1, 2, ANCHORS))


class Classifier(nn.Module):
    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.last, self.ending = nn.Linear(3, 5), ending

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.ending(self.last(image.mean((2, 3))) * 9)


def nothing(logits: torch.Tensor) -> torch.Tensor:
    return logits


def softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(1)


def load_program(architecture: str, network: nn.Module, folder: Path) -> LoadedModel:
    program = torch.export.export(network.eval(), (torch.rand(1, 3, 64, 64),))
    torch.export.save(program, folder / "x.pt2")
    return load(read_checkpoint(folder / "x.pt2"), ask(architecture))


BROKEN = [
    ("UNet", Pixels(3, nothing), "which are not probabilities; end the model in softmax(1)"),
    ("DeepLabV3", Pixels(3, torch.sigmoid), "and not to 1; end the model in softmax(1)"),
    ("FCN", Pixels(1, nothing), "which are not probabilities; end the model in sigmoid()"),
    ("UNet", Pixels(3, torch.relu), "not probabilities"),
    ("YOLOv8-CLS", Classifier(nothing), "end the model in softmax(1)"),
    ("YOLOv8-CLS", Classifier(torch.sigmoid), "and not to 1"),
    ("YOLOv8", Detector(1, nothing), "its own output scores goes from"),
    ("YOLOv8", Detector(64, torch.sigmoid), "which are not fractions of the image; divide them by the input's width"),
    ("YOLOX", Detector(1, nothing), "end the model in sigmoid()"),
    ("YOLOv4", Detector(64, torch.sigmoid), "not fractions of the image"),
]


@pytest.mark.parametrize(("architecture", "network", "problem"), BROKEN, ids=range(len(BROKEN)))
def test_output_violating_declared_range_is_refused(
    architecture: str, network: nn.Module, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(Failure) as caught:
        load_program(architecture, network, tmp_path)
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    assert problem in str(caught.value)


KEPT: Sequence[tuple[str, nn.Module]] = (
    ("UNet", Pixels(3, softmax)),
    ("DeepLabV3", Pixels(3, softmax)),
    ("FCN", Pixels(1, torch.sigmoid)),
    ("YOLOv8-CLS", Classifier(softmax)),
    ("YOLOv8", Detector(1, torch.sigmoid)),
    ("YOLOX", Detector(1, torch.sigmoid)),
)


@pytest.mark.parametrize(("architecture", "network"), KEPT, ids=range(len(KEPT)))
def test_range_violation_remedy_works(architecture: str, network: nn.Module, tmp_path: Path) -> None:
    assert load_program(architecture, network, tmp_path).reference is Reference.PROGRAM


def test_declared_range_is_checked_on_every_image(tmp_path: Path) -> None:
    class Sometimes(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.softmax(1) + (image == 0).all()

    model = load_program("UNet", Sometimes(), tmp_path)
    black = torch.zeros(1, 3, 64, 64).numpy()
    with pytest.raises(Failure, match="not probabilities"):
        compare(model, lambda image: (image,), [black])
