"""Changes what libraries are made of, or the environment that they read, within a block."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_ABSENT = object()


@contextmanager
def replaced(holder: object, name: str, value: object) -> Iterator[None]:
    """Let an attribute of a module or a class have another value within the block, or let it exist there only."""
    before = vars(holder).get(name, _ABSENT)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let variables of the environment have other values within the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
