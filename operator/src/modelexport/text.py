"""Text that comes from outside, made fit to be shown: in a terminal, a status, an event, a log or a report."""

import unicodedata

_SPACES = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")


def clean(text: str, limit: int | None = None) -> str:
    """Return a text on one line, without what a terminal obeys or a reader cannot see.

    Control characters (and with them escape sequences), characters that turn the direction of writing, of no width, of
    private use or of no meaning are left out; of ``limit`` characters the last is an ellipsis where more follow.
    """
    shown = "".join(" " if character in _SPACES else character for character in text if _is_shown(character))
    return shown if limit is None or len(shown) <= limit else shown[: max(0, limit - 1)] + "…"


def _is_shown(character: str) -> bool:
    return character in _SPACES or not unicodedata.category(character).startswith("C")
