"""The unit tests run with the packages of requirements/unit.txt alone, which install in seconds."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

TESTS = Path(__file__).parents[2]
LOCK = TESTS.parent / "requirements/unit.txt"


def imported_by(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports when it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def imports_of_unit_tests() -> dict[str, Path]:
    """Return the names that unit tests, and the modules of tests/ that they share, import, with one importer each."""
    found, files, seen = dict[str, Path](), [*TESTS.glob("unit/**/*.py")], set[Path]()
    while files:
        path = files.pop()
        seen.add(path)
        for module in imported_by(path):
            found.setdefault(module.partition(".")[0], path)
            shared = TESTS / f"{module.replace('.', '/')}.py"
            if shared.exists() and shared not in seen:
                files.append(shared)
    return found


def test_unit_tests_need_the_packages_of_their_lock_alone() -> None:
    names = re.findall(r"^([\w.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    locked, owners = {normalise(name) for name in (*names, "modelexport")}, packages_distributions()
    missing = {
        f"{path.relative_to(TESTS)} imports {name}"
        for name, path in imports_of_unit_tests().items()
        if name in owners and locked.isdisjoint(map(normalise, owners[name]))
    }
    assert not missing


def normalise(package: str) -> str:
    """Return the name of a package as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", package).lower()
