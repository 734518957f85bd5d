"""The matrix names modules of the converter in its rows, as strings that import-linter cannot see.

The name stays in the row, which is all that an architecture or a format adds: a table in the converter would be another
place to keep in step. The SDK never imports such a module; this test finds a name that leads nowhere.
"""

from pathlib import Path

import pytest

from modelexport.matrix.support import ARCHITECTURES, BACKENDS

SOURCES = Path(__file__).parents[3] / "converter-image/src"


@pytest.mark.parametrize(
    "module", sorted({row.impl for row in ARCHITECTURES.values()} | {row.impl for row in BACKENDS.values()})
)
def test_row_names_a_module_of_the_converter(module: str) -> None:
    assert module.startswith(("modelexport_converter.architectures.", "modelexport_converter.backends."))
    assert (SOURCES / f"{module.replace('.', '/')}.py").is_file()
