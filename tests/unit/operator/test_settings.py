import pytest

from modelexport_operator.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_every_setting_can_be_set() -> None:
    environ = {
        "MODELEXPORT_WORKERS": "4",
        "MODELEXPORT_HTTP_HOST": "127.0.0.1",
        "MODELEXPORT_HTTP_PORT": "9000",
        "MODELEXPORT_RESYNC_SECONDS": "60",
        "MODELEXPORT_AUDIT_SECONDS": "5.5",
        "MODELEXPORT_PATIENCE_SECONDS": "2",
        "MODELEXPORT_LOG_LEVEL": "debug",
    }
    assert Settings.from_env(environ) == Settings(4, "127.0.0.1", 9000, 60.0, 5.5, 2.0, "DEBUG")


def test_all_errors_are_told_at_once() -> None:
    environ = {
        "MODELEXPORT_WORKERS": "0",
        "MODELEXPORT_HTTP_PORT": "http",
        "MODELEXPORT_AUDIT_SECONDS": "nan",
        "MODELEXPORT_LOG_LEVEL": "loud",
    }
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    assert str(error.value).splitlines() == [
        "MODELEXPORT_WORKERS='0': not a whole number from 1 to 256",
        "MODELEXPORT_HTTP_PORT='http': not a whole number from 1 to 65535",
        "MODELEXPORT_AUDIT_SECONDS='nan': not a number of seconds greater than 0",
        "MODELEXPORT_LOG_LEVEL='loud': not one of DEBUG, INFO, WARNING, ERROR",
    ]
