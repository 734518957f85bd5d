from typing import Any

import pytest

from modelexport_operator.kube.encoding import decode, encode


@pytest.mark.parametrize("text", [b"NaN", b'{"a": Infinity}', b"[-Infinity]", b"", b"[1,]", b"\xff", b'{"a": 1'])
def test_non_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text)


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_is_reported_as_such(depth: int) -> None:
    with pytest.raises(RecursionError):
        decode(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"9223372036854775807", 2**63 - 1),
        (b'"\\ud800"', "\ud800"),
        (b"1e400", float("inf")),
        ('"\u00e9"', "\u00e9"),
    ],
)
def test_odd_strings_are_read_as_by_standard_library(text: bytes, value: Any) -> None:
    assert decode(text) == value


@pytest.mark.parametrize("value", [2**70, "\ud800"])
def test_odd_values_are_written_as_they_were_read(value: Any) -> None:
    assert decode(encode({"value": value})) == {"value": value}


def test_written_text_round_trips() -> None:
    body = {"text": "\u00e9\n", "number": 1, "none": None, "list": [True, 0.5], "tuple": (1, 2)}
    assert decode(encode(body)) == {**body, "tuple": [1, 2]}
