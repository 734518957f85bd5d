"""Finds words that were renamed: ``python hack/check_words.py`` prints each place, and fails if there is one.

``hack/words.txt`` lists them, one per line: the old words, ``->``, and the words of the field that replaced them.
They are found in names (``dirty_queue``, ``DirtyQueue``), and in sentences (``dirty queue``) of code, pages, YAML and
templates. Old words in backticks are a name that is a plain word elsewhere: only names of Python code are compared.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "hack/words.txt"
ENDINGS = (".py", ".md", ".yaml", ".yml", ".tpl", ".txt", ".toml", "Makefile", "Dockerfile")
EXCEPTIONS = (
    "CHANGELOG.md",  # names what was renamed
    "hack/check_words.py",
    "hack/words.txt",
    "tests/unit/suite/test_renamed_words.py",  # the test of this check
    "requirements/",  # names of packages
    "docs/benchmarks/",  # results of earlier versions
)

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""One word of a name or of a sentence."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class WordList:
    """The replacements of words that are looked for everywhere, and of names of Python code."""

    words: Mapping[Words, str]
    names: Mapping[str, str]


def split_words(text: str) -> Words:
    """Return the words of a line, a name or a sentence, in lower case."""
    return tuple(part.lower() for part in _PART.findall(text))


def read_words(text: str) -> WordList:
    """Return the replacement of each entry of a word list.

    Raises:
        ValueError: a line is not ``old words -> new words``.
    """
    words, names = {}, {}
    for line in text.splitlines():
        old, arrow, new = line.partition("->")
        if line.startswith("#") or not line.strip():
            continue
        if not arrow or not split_words(old) or not new.strip():
            raise ValueError(f"not 'old words -> new words': {line}")
        if name := re.fullmatch(r"`(\w+)`", old.strip()):
            names[name[1]] = new.strip()
        else:
            words[split_words(old)] = new.strip()
    return WordList(words, names)


def find_words(text: str, entries: Mapping[Words, str]) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the words and the replacement of every place at which an entry occurs."""
    starts = {entry[0] for entry in entries}
    for number, line in enumerate(text.splitlines(), 1):
        found = split_words(line)
        for start, word in enumerate(found):
            for entry in entries if word in starts else ():
                if found[start : start + len(entry)] == entry:
                    yield number, " ".join(entry), entries[entry]


def find_names(code: str, entries: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the name and the replacement of every place of Python code that uses a renamed name."""
    if not any(name in code for name in entries):
        return
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NAME and token.string in entries:
            yield token.start[0], token.string, entries[token.string]


def main() -> int:
    """Print each place of a renamed word; return 1 if there is one."""
    entries = read_words(WORDS.read_text(encoding="utf-8"))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    places = []
    for name in listed.stdout.decode().split("\0"):
        if not name.endswith(ENDINGS) or name.startswith(EXCEPTIONS) or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        found = [*find_words(text, entries.words), *(find_names(text, entries.names) if name.endswith(".py") else ())]
        places += [f"{name}:{number}: {words}; say {better}" for number, words, better in sorted(found)]
    print(*places, sep="\n", end="\n" if places else "")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main())
