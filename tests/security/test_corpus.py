"""Inputs from the fuzzer, each with another path through a reader, and the findings that were fixed.

``make fuzz`` looks for more; ``tests/fuzz/targets.py`` has the rules for each reader.
"""

from pathlib import Path

import pytest

from fuzz.targets import CORPUS, TARGETS, prepare

FILES = sorted(CORPUS.glob("*/*"))
LIMIT = 200_000
"""Bytes of all together."""


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Do all imports of the readers before the canary listens."""
    for name, target in TARGETS.items():
        prepare(name, target.seeds())
        prepare(name, [path.read_bytes() for path in (CORPUS / name).iterdir()])


@pytest.mark.xdist_group("corpus")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus_input_does_no_harm(path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes())


def test_corpus_is_small_and_covers_every_reader() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < LIMIT
