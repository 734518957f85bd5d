"""Inputs that a fuzzer found, of which each took a reader another way, and the findings that were mended.

``make fuzz`` looks for more; ``tests/fuzz/targets.py`` says what each reader is held to.
"""

from pathlib import Path

import pytest

from fuzz.targets import CORPUS, TARGETS, prepare

FILES = sorted(CORPUS.glob("*/*"))
LIMIT = 200_000
"""Bytes of all together."""


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Whatever readers import, they import before the canary listens."""
    for name, target in TARGETS.items():
        prepare(name, target.seeds())
        prepare(name, [path.read_bytes() for path in (CORPUS / name).iterdir()])


@pytest.mark.xdist_group("corpus")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus_does_no_harm(path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes())


def test_the_corpus_is_small_and_of_every_reader() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < LIMIT
