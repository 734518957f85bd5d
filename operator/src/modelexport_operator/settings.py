"""What can be set about the operator, from its environment. All errors are told at once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

PREFIX = "MODELEXPORT_"
LOG_FORMATS = ("json", "text")


class SettingsError(ValueError):
    """Some variables cannot be used; ``str()`` names each, one per line."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings; each is read from ``MODELEXPORT_`` and its name in capitals."""

    workers: int = 8
    """How many exports are synced at the same time."""
    http_host: str = "0.0.0.0"  # noqa: S104  # Probes and Prometheus come from outside of the Pod.
    http_port: int = 8080
    """Port of /healthz, /readyz and /metrics."""
    resync_seconds: float = 600.0
    """How often every export is looked at without a cause."""
    audit_seconds: float = 60.0
    """How often the watches are compared with a listing."""
    patience_seconds: float = 15.0
    """How long a watch may be behind a listing."""
    log_level: str = "INFO"
    log_format: str = "json"
    """One line of JSON per event, as the converter logs in its Jobs, or of text for people."""
    namespaces: tuple[str, ...] = ()
    """Namespaces in which exports are served; none: all."""
    leader_election: bool = False
    """Whether only the holder of a Lease writes."""
    lease_namespace: str = "modelexport-system"
    lease_name: str = "modelexport-operator"
    lease_seconds: int = 15
    """After how long without a renewal another operator may lead."""
    lease_renew_seconds: float = 10.0
    """After how long without a renewal the leader stops writing."""
    lease_retry_seconds: float = 2.0
    """How often the Lease is renewed, or looked at."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings.

        Raises:
            SettingsError: a variable holds a value that cannot be used.
        """
        values: dict[str, Any] = {}
        problems = []
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            if variable in environ:
                try:
                    values[field.name] = _PARSERS[field.name](environ[variable])
                except ValueError as error:
                    problems.append(f"{variable}={environ[variable]!r}: {error}")
        problems += _order_problems(values) if not problems else ()
        if problems:
            raise SettingsError("\n".join(problems))
        return cls(**values)


def _order_problems(values: Mapping[str, Any]) -> list[str]:
    """A leader has to try more than once before it stops, and to stop before another one begins."""
    order = ("lease_retry_seconds", "lease_renew_seconds", "lease_seconds")
    shown = [(PREFIX + name.upper(), values.get(name, getattr(Settings, name))) for name in order]
    return [
        f"{variable}={value:g}: not less than {next_variable}={next_value:g}"
        for (variable, value), (next_variable, next_value) in pairwise(shown)
        if value >= next_value
    ]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"not a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ValueError("not a number of seconds greater than 0")
    return seconds


def _names(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found:
        _name(name)
    return found


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError(f"{text!r} is not the name of an object of Kubernetes")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("not one of true, false")
    return text.lower() == "true"


def _level(text: str) -> str:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    if text.upper() not in levels:
        raise ValueError(f"not one of {', '.join(levels)}")
    return text.upper()


def _format(text: str) -> str:
    if text not in LOG_FORMATS:
        raise ValueError(f"not one of {', '.join(LOG_FORMATS)}")
    return text


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "workers": _whole(1, 256),
    "http_host": str,
    "http_port": _whole(1, 65535),
    "resync_seconds": _seconds,
    "audit_seconds": _seconds,
    "patience_seconds": _seconds,
    "log_level": _level,
    "log_format": _format,
    "namespaces": _names,
    "leader_election": _switch,
    "lease_namespace": _name,
    "lease_name": _name,
    "lease_seconds": _whole(1, 3600),
    "lease_renew_seconds": _seconds,
    "lease_retry_seconds": _seconds,
}
