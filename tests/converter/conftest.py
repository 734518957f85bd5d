"""Settings for every test of the converter."""

import os

import pytest
from PIL import Image

# Two test processes share two cores, and a thread per process is faster than four that wait for each other. Libraries
# read the variable when they are imported, which is why it is set here and not in a fixture.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Only tests that compare with ultralytics import it; without this it would look for updates.
os.environ.setdefault("YOLO_OFFLINE", "true")

PILLOW_OPEN = Image.open


@pytest.fixture(autouse=True)
def _pillow_as_in_the_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics replaces Pillow's ``Image.open`` when it is imported; the converter never runs beside it."""
    monkeypatch.setattr(Image, "open", PILLOW_OPEN)
