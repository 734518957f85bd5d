"""The environment of containers and of processes that open untrusted files.

Kubernetes replaces ``$(NAME)`` in the environment and the arguments of a container by the variable of that name, and
``$$`` by ``$``.
"""

from collections.abc import Mapping

from modelexport import names

PASSED_ON = frozenset(
    (
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        names.JOB_ENV,
        names.SHARED_DIR_ENV,
        names.THREADS_ENV,
    )
)
"""Environment variables that reach the child: search paths, locale, cache folder and thread count."""
PASSED_ON_PREFIXES = ("CUDA_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_")


def escape(value: str) -> str:
    """Escape a value so that the container receives it unchanged."""
    return value.replace("$", "$$")


def unescape(value: str) -> str:
    """Return the value that the container receives."""
    return value.replace("$$", "$")


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a converting process needs."""
    return {name: value for name, value in environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}
