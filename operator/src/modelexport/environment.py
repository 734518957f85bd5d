"""Values in the environment and the arguments of a container, as the API writes them.

Kubernetes replaces ``$(NAME)`` in them by the variable of that name, and ``$$`` by ``$``.
"""


def escape(value: str) -> str:
    """Write a value so that a container receives it as it is."""
    return value.replace("$", "$$")


def unescape(value: str) -> str:
    """Read a value as a container receives it."""
    return value.replace("$$", "$")
