"""Private helpers that are called once do not become more, and functions do not become long."""

import pytest

from count_helpers import LONGEST, ROOT, SOURCES, functions_below, functions_of

MOST_PERCENT = 15.0
"""Of all functions of a package."""


@pytest.mark.parametrize("package", SOURCES)
def test_few_helpers_are_called_once(package: str) -> None:
    functions = [function for _, function in functions_below(SOURCES[package])]
    share = 100 * sum(function.called_once for function in functions) / len(functions)
    way_out = f"inline one that hides no idea; python hack/count_helpers.py {package} lists them"
    assert share <= MOST_PERCENT, f"{share:.2f} % of the functions are private helpers called once; {way_out}"


@pytest.mark.parametrize("package", SOURCES)
def test_no_function_is_long(package: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{function.line}: {function.name} has {function.lines} lines"
        for path, function in functions_below(SOURCES[package])
        if function.lines > LONGEST
    ]
    assert not long


COUNTED = """
def _once(x): return x
def _twice(x): return x
def _in_a_table(x): return x
def __dunder__(x): return _once(_twice(_twice(x)))
TABLE = {"a": _in_a_table}

class Thing:
    def _method(self): return 1
    @property
    def _shown(self): return 2
    def public(self): return self._method() + self._shown
"""


def test_helper_called_once_is_counted() -> None:
    assert [function.name for function in functions_of(COUNTED) if function.called_once] == ["_once", "_method"]
