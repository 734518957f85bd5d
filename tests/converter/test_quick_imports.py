"""Tests that imports of large libraries run without garbage collection, now and later."""

import gc
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from modelexport_converter.runtime.quick_imports import quick_imports

OBJECTS = 20_000
LIBRARY = f"""
import gc
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info))
made = [[] for _ in range({OBJECTS})]
gc.callbacks.pop()
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that makes many objects and counts the collections meanwhile."""
    name = f"library_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    gc.unfreeze()


def test_import_looks_for_no_garbage(library: str) -> None:
    with quick_imports():
        imported = import_module(library)
    assert imported.collections == []
    assert gc.isenabled()


def test_collections_skip_what_an_import_made(library: str) -> None:
    before = gc.get_freeze_count()
    with quick_imports():
        import_module(library)
    assert gc.get_freeze_count() >= before + OBJECTS


def test_nothing_is_set_aside_without_an_import() -> None:
    before, made = gc.get_freeze_count(), [[] for _ in range(OBJECTS)]  # type: tuple[int, list[list[int]]]
    with quick_imports():
        import_module("sys")
    assert gc.get_freeze_count() == before
    assert made


def test_failed_import_leaves_collection_on() -> None:
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import_module("no_such_library")
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with quick_imports():
            import_module("sys")
        assert not gc.isenabled()
    finally:
        gc.enable()
