"""Import coremltools first through the module that silences its known warnings."""

import pytest

import modelexport_converter.coreml.library  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    # coremltools leaves the folder of each MLModel to the garbage collector, which may run in any later test.
    config.addinivalue_line("filterwarnings", "ignore:Implicitly cleaning up:ResourceWarning")
