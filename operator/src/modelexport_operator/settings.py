"""The settings of the operator, read from its environment. All errors are reported at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

PREFIX = "MODELEXPORT_"
LOG_FORMATS = ("json", "text")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(ValueError):
    """Some variables are invalid; ``str()`` names each, one per line."""


@dataclass(frozen=True)
class Settings:
    """The settings; each is read from ``MODELEXPORT_`` plus its name in capitals."""

    workers: int = 8
    """How many exports are synced concurrently."""
    http_host: str = "0.0.0.0"  # noqa: S104  # Probes and Prometheus come from outside of the Pod.
    http_port: int = 8080
    """Port of /healthz, /readyz and /metrics."""
    resync_seconds: float = 600.0
    """How often every export that has not ended is synced without a change."""
    watch_check_seconds: float = 60.0
    """How often the watches are compared with a list."""
    watch_lag_tolerance_seconds: float = 15.0
    """How long a watch may be behind a list."""
    log_level: str = "INFO"
    log_format: str = "json"
    """``json``: one line of JSON per event, as the converter logs in its Jobs; ``text``: for people."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose exports are served; empty: all."""
    leader_election: bool = False
    """Whether only the holder of a Lease writes."""
    lease_namespace: str = "modelexport-system"
    lease_name: str = "modelexport-operator"
    lease_seconds: int = 15
    """Time without a renewal after which another operator may lead."""
    lease_renew_seconds: float = 10.0
    """Time without a renewal after which the leader stops writing."""
    lease_retry_seconds: float = 2.0
    """How often the Lease is renewed, or tried to acquire."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings.

        Raises:
            SettingsError: a variable has an invalid value.
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
    """Check that a leader tries to renew more than once before it stops, and stops before another one starts."""
    order = ("lease_retry_seconds", "lease_renew_seconds", "lease_seconds")
    shown = [(PREFIX + name.upper(), values.get(name, getattr(Settings, name))) for name in order]
    return [
        f"{variable}={value:g}: must be less than {next_variable}={next_value:g}"
        for (variable, value), (next_variable, next_value) in pairwise(shown)
        if value >= next_value
    ]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ValueError("must be a number of seconds greater than 0")
    return seconds


def _names(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found:
        _name(name)
    return found


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError(f"{text!r} is not a valid Kubernetes name")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _one_of(words: Sequence[str], fold: Callable[[str], str] = str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if fold(text) not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return fold(text)

    return parse


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "workers": _whole(1, 256),
    "http_host": str,
    "http_port": _whole(1, 65535),
    "resync_seconds": _seconds,
    "watch_check_seconds": _seconds,
    "watch_lag_tolerance_seconds": _seconds,
    "log_level": _one_of(LOG_LEVELS, str.upper),
    "log_format": _one_of(LOG_FORMATS),
    "namespaces": _names,
    "leader_election": _switch,
    "lease_namespace": _name,
    "lease_name": _name,
    "lease_seconds": _whole(1, 3600),
    "lease_renew_seconds": _seconds,
    "lease_retry_seconds": _seconds,
}
