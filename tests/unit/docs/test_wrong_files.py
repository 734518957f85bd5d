"""The published scores of wrong files cover every architecture, and the thresholds refuse the strong defects."""

import pytest

from benchmarks.pages.wrong_files import published_precisions
from benchmarks.results import WRONG_FILES, read_results
from modelexport.matrix.support import ARCHITECTURES, Precision

SCORES = read_results(WRONG_FILES)["scores"]


def test_wrong_files_are_measured_for_every_network() -> None:
    assert SCORES.keys() == ARCHITECTURES.keys() - {"Custom"}


@pytest.mark.parametrize("architecture", SCORES)
def test_no_wrong_file_is_published_as_fp32(architecture: str) -> None:
    published = [published_precisions(architecture, found) for found in SCORES[architecture].values()]
    assert [precisions for precisions in published if Precision.FP32 in precisions] == []


@pytest.mark.parametrize("architecture", SCORES)
def test_answers_of_wrong_image_are_never_published(architecture: str) -> None:
    assert published_precisions(architecture, SCORES[architecture]["answers of the image before"]) == []


@pytest.mark.parametrize("architecture", [name for name in SCORES if "CLS" not in name])
def test_shifted_images_are_published_only_by_classifiers(architecture: str) -> None:
    assert published_precisions(architecture, SCORES[architecture]["images shifted by 4 pixels"]) == []
