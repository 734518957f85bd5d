"""Counts private helpers that are called once: ``python hack/count_helpers.py [PACKAGE]`` lists those of a package.

A function with one caller sends its reader around; it is worth that if its name says what its lines do not.
Counted are functions and methods whose name begins with one underscore and stands twice in their module: at the
definition and at one call. A function in a table, a decorated one and a callback are named at that place, not called.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {
    "modelexport": ROOT / "sdk/src/modelexport",
    "modelexport_operator": ROOT / "operator/src/modelexport_operator",
    "modelexport_converter": ROOT / "converter-image/src/modelexport_converter",
}
LONGEST = 60
"""Lines of the body of a function, without its docstring."""


@dataclass(frozen=True)
class Function:
    """A function or method of a module."""

    name: str
    line: int
    lines: int
    called_once: bool
    """It is private, and its module names it at its definition and at one call."""


def functions_of(source: str) -> Iterator[Function]:
    """Yield the functions and methods of a module."""
    tree = ast.parse(source)
    named = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    called = Counter(
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            private = node.name.startswith("_") and not node.name.startswith("__")
            once = private and not node.decorator_list and named[node.name] == 1 == called[node.name]
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield Function(node.name, node.lineno, lines, once)


def functions_below(folder: Path) -> list[tuple[Path, Function]]:
    """Return the functions of all modules below a folder."""
    return [
        (path, function)
        for path in sorted(folder.rglob("*.py"))
        for function in functions_of(path.read_text(encoding="utf-8"))
    ]


def main(package: str | None = None) -> None:
    """Print the share of such helpers in each package, or each of them in one."""
    for name in [package] if package else SOURCES:
        functions = functions_below(SOURCES[name])
        once = [(path, function) for path, function in functions if function.called_once]
        if package:
            for path, function in once:
                print(f"{path.relative_to(ROOT)}:{function.line}: {function.name}, {function.lines} lines")
        print(f"{name}: {len(once)} of {len(functions)} functions, {100 * len(once) / len(functions):.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
