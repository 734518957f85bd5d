"""The architecture page and the glossary name every package, and only existing ones."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
LAYERS = (ROOT / "docs/images/layers.svg").read_text(encoding="utf-8")
SECTIONS = {part.split("`")[1]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if part.startswith("`")}
GLOSSARY = re.findall(r"^\| (.+) \| (.+) \| `(.+)` \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)


def packages() -> list[tuple[str, str]]:
    """The packages under the source roots, as the name of the top one and the path below it."""
    found = []
    for top in sorted(path.parent for path in ROOT.glob("*/src/*/__init__.py")):
        found += [(top.name, str(path.parent.relative_to(top))) for path in sorted(top.glob("*/**/__init__.py"))]
    return found


def test_the_map_has_a_section_for_every_source_root() -> None:
    assert SECTIONS.keys() == {path.parent.name for path in ROOT.glob("*/src/*/__init__.py")}


@pytest.mark.parametrize(("top", "package"), packages())
def test_the_map_names_every_package(top: str, package: str) -> None:
    assert f"**`{package}/`**" in SECTIONS[top]


@pytest.mark.parametrize(("top", "package"), [found for found in packages() if "/" not in found[1]])
def test_layer_diagram_shows_every_package(top: str, package: str) -> None:
    assert f">{package}</text>" in LAYERS
    assert f">{top}" in LAYERS


def test_the_glossary_is_short() -> None:
    words = {word for word, _, _ in GLOSSARY}
    assert 20 < len(words) == len(GLOSSARY) <= 40


@pytest.mark.parametrize(("word", "meaning"), [(word, meaning) for word, meaning, _ in GLOSSARY])
def test_the_glossary_explains_a_word_in_one_sentence(word: str, meaning: str) -> None:
    assert re.fullmatch(r"[^.]*(\.(?=\S)[^.]*)*\.", meaning), word


@pytest.mark.parametrize("path", sorted({path for _, _, path in GLOSSARY}))
def test_the_glossary_says_where_a_word_lives(path: str) -> None:
    assert list(ROOT.glob(f"*/src/{path}"))
