from dataclasses import fields
from pathlib import Path

import pytest

from modelexport_operator.settings import Settings, SettingsError


def test_empty_environment_gives_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_defaults_match_operator_docs() -> None:
    page = (Path(__file__).parents[3] / "docs/operator.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `MODELEXPORT_")]
    told = {
        name.strip("|` "): default
        for names, defaults, _ in rows
        for name, default in zip(names.split(", "), defaults.replace("none", "").split(", "), strict=True)
    }
    assert Settings.from_env(told) == Settings()
    assert set(told) == {f"MODELEXPORT_{field.name.upper()}" for field in fields(Settings)}


def test_every_setting_can_be_set() -> None:
    environ = {
        "MODELEXPORT_WORKERS": "4",
        "MODELEXPORT_HTTP_HOST": "127.0.0.1",
        "MODELEXPORT_HTTP_PORT": "9000",
        "MODELEXPORT_RESYNC_SECONDS": "60",
        "MODELEXPORT_WATCH_CHECK_SECONDS": "5.5",
        "MODELEXPORT_WATCH_LAG_TOLERANCE_SECONDS": "2",
        "MODELEXPORT_LOG_LEVEL": "debug",
        "MODELEXPORT_LOG_FORMAT": "text",
        "MODELEXPORT_NAMESPACES": "team-a, team-b,team-a",
        "MODELEXPORT_LEADER_ELECTION": "True",
        "MODELEXPORT_LEASE_NAMESPACE": "ml",
        "MODELEXPORT_LEASE_NAME": "exports",
        "MODELEXPORT_LEASE_SECONDS": "6",
        "MODELEXPORT_LEASE_RENEW_SECONDS": "4.5",
        "MODELEXPORT_LEASE_RETRY_SECONDS": "1",
    }
    where = (4, "127.0.0.1", 9000, 60.0, 5.5, 2.0, "DEBUG", "text", ("team-a", "team-b"))
    assert Settings.from_env(environ) == Settings(*where, True, "ml", "exports", 6, 4.5, 1.0)


def test_all_errors_are_reported_at_once() -> None:
    environ = {
        "MODELEXPORT_WORKERS": "0",
        "MODELEXPORT_HTTP_PORT": "http",
        "MODELEXPORT_WATCH_CHECK_SECONDS": "nan",
        "MODELEXPORT_LOG_LEVEL": "loud",
        "MODELEXPORT_LOG_FORMAT": "xml",
    }
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    assert str(error.value).splitlines() == [
        "MODELEXPORT_WORKERS='0': must be a whole number from 1 to 256",
        "MODELEXPORT_HTTP_PORT='http': must be a whole number from 1 to 65535",
        "MODELEXPORT_WATCH_CHECK_SECONDS='nan': must be a number of seconds greater than 0",
        "MODELEXPORT_LOG_LEVEL='loud': must be one of DEBUG, INFO, WARNING, ERROR",
        "MODELEXPORT_LOG_FORMAT='xml': must be one of json, text",
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("WORKERS", ["1", "256"], ["0", "257", "-1", "1.5", ""]),
        ("HTTP_PORT", ["1", "65535"], ["0", "65536"]),
        ("RESYNC_SECONDS", ["0.5", "999999"], ["0", "-1", "1000000", "inf", "soon"]),
        ("LOG_LEVEL", ["debug", "ERROR"], ["", "TRACE"]),
        ("LOG_FORMAT", ["json", "text"], ["", "JSON", "logfmt"]),
        ("NAMESPACES", ["", "team-a", "a,b"], ["Team", "a b", "-a", "x" * 64]),
        ("LEADER_ELECTION", ["true", "False"], ["", "yes", "1"]),
        ("LEASE_NAMESPACE", ["a", "ml-9"], ["", "a.b", "A"]),
        ("LEASE_SECONDS", ["11", "3600"], ["0", "3601", "11.5"]),
    ],
)
def test_setting_is_accepted_only_within_limits(name: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        Settings.from_env({f"MODELEXPORT_{name}": text})
    for text in bad:
        with pytest.raises(SettingsError):
            Settings.from_env({f"MODELEXPORT_{name}": text})


def test_renew_deadline_after_lease_duration_is_refused() -> None:
    environ = {"MODELEXPORT_LEASE_SECONDS": "10", "MODELEXPORT_LEASE_RETRY_SECONDS": "10"}
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    assert str(error.value).splitlines() == [
        "MODELEXPORT_LEASE_RETRY_SECONDS=10: must be less than MODELEXPORT_LEASE_RENEW_SECONDS=10",
        "MODELEXPORT_LEASE_RENEW_SECONDS=10: must be less than MODELEXPORT_LEASE_SECONDS=10",
    ]
