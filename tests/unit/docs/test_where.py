"""A reader finds ten things by the map: docs/where.md asks, docs/architecture.md leads to each answer."""

import re

import pytest

from unit.docs.test_architecture import PAGE, ROOT, SECTIONS

ROWS = re.findall(r"^\| (.+\?) \| `(.+)` \| `(.+)` \|$", (ROOT / "docs/where.md").read_text(), re.MULTILINE)
FOLDERS = dict(re.findall(r"^\| (`.+`) \| (.+) \|$", PAGE, re.MULTILINE))


def paragraph_of(package: str) -> str:
    """The paragraph of the map about a package such as ``modelexport/api/``."""
    top, _, room = package.partition("/")
    start = SECTIONS[top].index(f"**`{room}`**")
    return SECTIONS[top][start:].split("\n\n")[0]


def test_there_are_ten_questions() -> None:
    assert len({question for question, _, _ in ROWS}) == len(ROWS) == 10


@pytest.mark.parametrize(("room", "answer"), [row[1:] for row in ROWS], ids=[row[2] for row in ROWS])
def test_map_leads_to_the_answer(room: str, answer: str) -> None:
    if room.startswith("modelexport"):
        (found,) = ROOT.glob(f"*/src/{answer}")
        assert answer.startswith(room)
        words = paragraph_of(room).lower().replace("_", " ")
        assert found.stem.replace("_", " ") in words, f"the map's paragraph about {room} does not lead to {found.stem}"
    else:
        assert (ROOT / answer).is_file()
        assert any(room in folders for folders in FOLDERS), f"the map has no row of {room}"
