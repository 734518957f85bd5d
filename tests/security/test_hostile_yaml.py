"""YAML that expands, nests, repeats or calls: refused quickly with file, line and way out, and nothing runs."""

import time
from pathlib import Path

import pytest

from modelexport.bounded_yaml import load_documents
from modelexport.cli import main

MIB = 1 << 20
SECONDS = 10.0
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 40)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a billion laughs": (LAUGHS, "more than 4,194,304 characters with its aliases expanded; shorten it"),
    "a billion merged keys": (MERGES, "more than 4,194,304 characters with its aliases expanded"),
    "a long text a thousand times": (
        f"a: &a {'x' * 900_000}\nb: [{'*a,' * 1000}]",
        "with its aliases expanded; shorten it",
    ),
    "a list within itself": (
        "a: &a [*a]",
        "line 1, column 8: an alias is inside the node that it refers to; write the value out",
    ),
    "an object within itself": ("&a {b: *a}", "an alias is inside the node that it refers to"),
    "an object that is its own key": ("&a {*a : b}", "an alias is inside the node that it refers to"),
    "an alias of nothing": ("a: *b", "undefined alias 'b'"),
    "brackets to the end": ("[" * MIB, "nested deeper than 64 levels; write it flatter"),
    "braces to the end": ("{a: " * (MIB // 4), "nested deeper than 64 levels"),
    "dashes to the end": ("- " * (MIB // 2), "nested deeper than 64 levels"),
    "question marks to the end": ("? " * (MIB // 2), "nested deeper than 64 levels"),
    "indented to the end": ("".join(" " * level + "a:\n" for level in range(1400)), "nested deeper than 64 levels"),
    "a file of many megabytes": ("#" * (MIB + 1), "has more than 1,048,576 bytes; split it into several files"),
    "documents without end": ("---\n" * (MIB // 4), "has more than 1000 documents; split it into several files"),
    "keys without end": ("".join(f"k{i}: v\n" for i in range(90_000)), "more than 20,000 keys and values"),
    "items without end": ("- a\n" * (MIB // 4), "more than 20,000 keys and values"),
    "a flow without end": ("[" + "a," * (MIB // 2 - 1) + "]", "more than 20,000 keys and values"),
    "anchors without end": ("".join(f"k{i}: &a{i} v\n" for i in range(40_000)), "more than 20,000 keys and values"),
    "a quote without end": ("'" + "a" * (MIB - 1), "unexpected end of stream"),
    "a key without end": ("a" * (MIB - 3) + ": 1", "mapping values are not allowed here"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is duplicated; remove one"),
    "a key twice in a flow": ("a: {b: 1, b: 2}", "line 1, column 11: the key 'b' is duplicated"),
    "a key twice, once quoted": ('a: 1\n"a": 2', "the key 'a' is duplicated"),
    "a key twice, once escaped": ('a: 1\n"\\x61": 2', "the key 'a' is duplicated"),
    "a list as key": ("? [a]\n: b", "a key must be a string"),
    "an object as key": ("{{a: b}: c}", "a key must be a string"),
    "a whole number of no digits": (
        'a: !!int ""',
        "line 1, column 4: '' is not a valid int; quote it to make it a string",
    ),
    "a number of no digits": ("a: !!float ''", "'' is not a valid float; quote it to make it a string"),
    "a sign alone": ("a: !!int +", "'+' is not a valid int"),
    "parts of an hour that are none": ("a: !!int '1::2'", "'1::2' is not a valid int"),
    "a truth that is none": ("a: !!bool perhaps", "'perhaps' is not a valid bool"),
    "an object of Python": ("!!python/object:os.system {}", "the tag '!!python/object:os.system' is not allowed"),
    "a call of Python": (
        "a: !!python/object/apply:os.system ['touch canary']",
        "line 1, column 4: the tag '!!python/object/apply:os.system' is not allowed in a Kubernetes object; remove it",
    ),
    "a new object of Python": ("!!python/object/new:type ['x', [], {}]", "the tag '!!python/object/new:type'"),
    "a name of Python": ("a: !!python/name:os.system ''", "the tag '!!python/name:os.system'"),
    "a module of Python": ("a: !!python/module:os ''", "the tag '!!python/module:os'"),
    "a tuple of Python": ("a: !!python/tuple [1]", "the tag '!!python/tuple'"),
    "a tag by its whole name": (
        "a: !<tag:yaml.org,2002:python/name:os.system> ''",
        "the tag '!!python/name:os.system'",
    ),
    "a tag behind a handle": (
        "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\n!os.system ['touch canary']",
        "the tag '!!python/object/apply:os.system'",
    ),
    "a tag of nobody": ("a: !foo b", "the tag '!foo' is not allowed in a Kubernetes object; remove it"),
    "bytes": ("a: !!binary aGVsbG8=", "the tag '!!binary'"),
    "a set": ("a: !!set {b}", "the tag '!!set'"),
    "an ordered map": ("a: !!omap [b: 1]", "the tag '!!omap'"),
    "a date by its tag": ("a: !!timestamp 2026-01-01", "the tag '!!timestamp'"),
    "a tag of a megabyte": ("!" * MIB, "is not allowed in a Kubernetes object"),
    "a text as object": ("a: !!map b", "expected a mapping node, but found scalar"),
    "an object as text": ("a: !!str {b: 1}", "expected a scalar node, but found mapping"),
    "an int of 5,000 digits": ("a: " + "1" * 5000, "a number of 5000 characters; quote it to make it a string"),
    "an int of a megabyte in hexadecimals": ("a: 0x" + "f" * 1_000_000, "a number of 1000002 characters"),
    "an int in base 60 without end": ("a: 1" + ":1" * 400_000, "a number of 800001 characters"),
    "an int of 65 bits": ("a: 18446744073709551616", "does not fit into JSON or 64 bits"),
    "an int of bits": ("a: 0b" + "1" * 62 + "11", "a number of 66 characters"),
    "not a number": ("a: .nan", "line 1, column 4: '.nan' does not fit into JSON or 64 bits"),
    "infinity": ("a: .inf", "'.inf' does not fit"),
    "less than infinity": ("a: -.INF", "'-.INF' does not fit"),
    "a float beyond all": ("a: 1.0e+400", "'1.0e+400' does not fit"),
    "a float that is none": ("a: !!float abc", "'abc' is not a valid float; quote it to make it a string"),
    "an int that is none": ("a: !!int abc", "'abc' is not a valid int; quote it to make it a string"),
    "a bool that is none": ("a: !!bool abc", "'abc' is not a valid bool; quote it to make it a string"),
    "a merge that is a value": ("a: <<", "could not determine a constructor"),
    "a merge of a number": ("<<: 3", "expected a mapping or list of mappings for merging"),
    "a tab": ("a:\n\tb: 1", "line 2, column 1: while scanning for the next token found character '\\t'"),
    "a NUL": ("a: 1\nb: \0", "line 2, column 4: the character U+0000 is not allowed; remove it"),
    "an escape sequence": ("a: \x1b[31m", "line 1, column 4: the character U+001B is not allowed"),
    "half a character": ('a: "\\ud800"', "an escaped surrogate; write the character itself"),
    "bytes that are no UTF-8": (b"a: \xff\xfe", "is not UTF-8 text"),
    "UTF-16": ("a: 1".encode("utf-16"), "is not UTF-8 text"),
    "UTF-8 of a surrogate": (b"a: \xed\xa0\x80", "is not UTF-8 text"),
    "an overlong NUL": (b"a: \xc0\x80", "is not UTF-8 text"),
    "a directive twice": ("%YAML 1.1\n%YAML 1.1\n---\na: 1", "found duplicate YAML directive"),
    "YAML of another world": ("%YAML 9.9\n---\na: 1", "found incompatible YAML document"),
    "an anchor twice": ("a: &a 1\nb: &a 2", "line 2, column 4: found duplicate anchor 'a'; correct it there"),
    "a text alone": ("hello", "'hello' is not a Kubernetes object"),
    "a number alone": ("1", "'1' is not a Kubernetes object"),
    "a text that acts on the terminal": ('"\\x1b[2Jhello"', "'hello' is not a Kubernetes object"),
    "nothing": ("", "has no objects"),
    "a comment": ("# nothing", "has no objects"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_yaml_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    content, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "export.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    begin = time.monotonic()
    assert main(["validate", str(path)]) == 2
    assert time.monotonic() - begin < SECONDS
    said = capsys.readouterr().err
    assert said.startswith(f"modelexport: {path}: ")
    assert message in said
    assert len(said) < 1000
    assert "\x1b" not in said
    assert [found.name for found in tmp_path.iterdir()] == ["export.yaml"], "nothing was run"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-01-01", "2026-01-01"),
        ("a: 2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("a: =", "="),
        ("a: '.nan'", ".nan"),
        ("a: 9223372036854775807", 2**63 - 1),
        ("a: -9223372036854775808", -(2**63)),
        ("a: 0.5", 0.5),
        ("a: null", None),
        ("\ufeffa: 1", 1),
        ("b: &x 1\na: *x", 1),
        ("b: &x {c: 1}\na: {<<: *x, d: 2}", {"c": 1, "d": 2}),
        ("b: &x {c: 1}\na: {<<: *x, c: 2}", {"c": 2}),
        ('{"a": {"b": [1, true, null, "x"]}}', {"b": [1, True, None, "x"]}),
        ("a: " + "[" * 60 + "]" * 60, eval("[" * 60 + "]" * 60)),
    ],
)
def test_plain_yaml_parses_like_json(text: str, value: object) -> None:
    [document] = load_documents(text)
    assert document["a"] == value


def test_endless_device_is_read_only_to_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "/dev/zero"]) == 2
    assert "/dev/zero: has more than 1,048,576 bytes" in capsys.readouterr().err
