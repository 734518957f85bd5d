"""coremltools is imported here first, by the module that knows which of its warnings to expect."""

import pytest

import modelexport_converter.coreml.library  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    # coremltools leaves the folder of every MLModel to the garbage collector, which runs in whichever test comes next.
    config.addinivalue_line("filterwarnings", "ignore:Implicitly cleaning up:ResourceWarning")
