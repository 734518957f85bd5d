"""Finds words that were renamed: ``python hack/check_words.py`` prints each place, and fails if there is one.

``hack/words.txt`` lists them, one per line: the old words, ``->``, and the words of the field that replaced them.
They are found in names (``dirty_queue``, ``DirtyQueue``), and in docstrings, comments and messages (``dirty queue``).
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "hack/words.txt"
FOLDERS = ("sdk", "operator", "converter-image", "benchmarks", "hack/testcluster", "tests", "testdata", "examples")
EXAMPLES = "tests/unit/suite/test_renamed_words.py"
"""The test of this check, which has to use such words."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""One word of a name or of a sentence."""

Words = tuple[str, ...]


def split_words(text: str) -> Words:
    """Return the words of a line, a name or a sentence, in lower case."""
    return tuple(part.lower() for part in _PART.findall(text))


def read_words(text: str) -> dict[Words, str]:
    """Return the replacement of each entry of a word list.

    Raises:
        ValueError: a line is not ``old words -> new words``.
    """
    entries = {}
    for line in text.splitlines():
        old, arrow, new = line.partition("->")
        if line.startswith("#") or not line.strip():
            continue
        if not arrow or not split_words(old) or not new.strip():
            raise ValueError(f"not 'old words -> new words': {line}")
        entries[split_words(old)] = new.strip()
    return entries


def find_words(text: str, entries: Mapping[Words, str]) -> Iterator[tuple[int, str]]:
    """Yield the line number and the words of every place at which an entry occurs."""
    for number, line in enumerate(text.splitlines(), 1):
        found = split_words(line)
        for start in range(len(found)):
            for entry in entries:
                if found[start : start + len(entry)] == entry:
                    yield number, " ".join(entry)


def main() -> int:
    """Print each place of a renamed word; return 1 if there is one."""
    entries = read_words(WORDS.read_text(encoding="utf-8"))
    listed = subprocess.run(["git", "ls-files", "-z", "--", *FOLDERS], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name.endswith(".py") and name != EXAMPLES]
    places = [
        f"{name}:{number}: {words}; say {entries[split_words(words)]}"
        for name in names
        for number, words in find_words((ROOT / name).read_text(encoding="utf-8"), entries)
    ]
    print(*places, sep="\n", end="\n" if places else "")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main())
