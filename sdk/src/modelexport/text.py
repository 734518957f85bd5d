"""Cleans untrusted text for display in messages, names, URIs and logs.

Names of layers, images, Pods and files come from users and end up in terminals, statuses, events and logs. The
functions keep visible text and remove everything that controls a terminal, is invisible, or changes the display order:

* control characters (C0, DEL, C1) and escape sequences of terminals (ECMA-48, section 5.4, and the strings of section
  5.6: OSC, DCS, SOS, PM, APC);
* format characters (general category Cf): bidirectional controls (Unicode TR 9, section 2; the attack is
  https://trojansource.codes, CVE-2021-42574, and Unicode TR 36, section 3), zero-width characters, tags, and those
  that are invisible although they have another category (Default_Ignorable_Code_Point of Unicode TR 44);
* variation selectors, which can carry hidden bytes;
* unpaired surrogates, private-use and unassigned code points: their display is undefined and some cannot be
  encoded. A replacement character stands for each;
* more than four marks on one letter (Unicode TR 39, section 5.4).
"""

import re
import reprlib
import unicodedata
from functools import lru_cache

REPLACEMENT = "\ufffd"
ELLIPSIS = "…"
MOST_MARKS = 4
READ_AHEAD = 16
"""Only the first ``limit * READ_AHEAD`` characters of a text are cleaned."""

QUOTED_ITEMS, QUOTED_CHARACTERS = 20, 2048
"""Of a list or an object, and of a text, how much ``quote`` shows."""

_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]"  # CSI: colours, cursor, clearing
    # Strings up to their terminator. Without a terminator, only the introducer is removed, so no text is hidden.
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[\x20-\x2f]*[\x30-\x7e]"
)
_BREAK = re.compile("\r\n|[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_INVISIBLE = frozenset(
    (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *(*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)),
    )
)
"""Invisible characters of other categories: fillers, an empty Braille cell, tags, variation selectors."""
HIDDEN = (
    r"[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\x{00A0}\x{034F}\x{115F}\x{1160}\x{1680}\x{17B4}\x{17B5}\x{180B}-\x{180F}"
    r"\x{2000}-\x{200A}\x{202F}\x{205F}\x{2800}\x{3000}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}\x{E0000}-\x{E0FFF}]"
)
"""A character that ``clean`` takes out or replaces, in the language of RE2, as a rule of the API server has it."""
_DROPPED, _REPLACED, _SPACES, _MARKS = ("Cc", "Cf"), ("Cs", "Co", "Cn"), ("Zs", "Zl", "Zp"), ("Mn", "Me")


def clean(text: str, limit: int | None = None) -> str:
    """Return a text as it may be shown, on one line.

    Args:
        text: anything; breaks and tabs become spaces.
        limit: characters of the result; what is longer is cut and ends in an ellipsis.
    """
    if limit is None:
        return _clean(text)
    shown = _clean(text[: limit * READ_AHEAD])
    is_whole = len(shown) <= limit and len(text) <= limit * READ_AHEAD
    return shown if is_whole else shown[: limit - 1] + ELLIPSIS


def clean_lines(text: str) -> str:
    """Return a cleaned text of several lines, such as a traceback, with its line breaks."""
    return "\n".join(map(clean, text.split("\n")))


def is_clean(text: str) -> bool:
    """Return whether ``clean`` changes nothing; other names and URIs are rejected, since a cleaned one differs."""
    return clean(text) == text


def _clean(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    kept, marks = [], 0
    for character in "".join(map(_show, _BREAK.sub(" ", _SEQUENCE.sub("", text)))):
        marks = marks + 1 if unicodedata.category(character) in _MARKS else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _show(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    category = unicodedata.category(character)
    if ord(character) in _INVISIBLE or category in _DROPPED:
        return ""
    if category in _REPLACED:
        return REPLACEMENT
    return " " if category in _SPACES else character


class _Quote(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = QUOTED_ITEMS
        self.maxstring = self.maxother = QUOTED_CHARACTERS

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**40 else "a number of more than 40 digits"


quote = _Quote().repr
"""``repr`` of any value for a message, within bounds: the beginning of a long one, the outer levels of a deep one.

``repr`` itself fails on a list nested a thousand times and on a number of thousands of digits.
"""
