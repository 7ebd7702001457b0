"""Reads the file of ``--web.config.file``, in the format of Prometheus's exporter-toolkit.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md; docs/web-security.md lists
the differences. A key that demands protection which this server does not implement is an error, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...config.value_types import count, did_you_mean, duration, flag, quoted
from .tls_config import TLS_NAMES, TlsSettings, read_tls
from .web_config_file import WebConfigError, WebFile

_HTTP2, _HEADERS, _USERS = "http_server_config.http2", "http_server_config.headers", "basic_auth_users"
_INTERVAL, _BURST = "rate_limit.interval", "rate_limit.burst"

_ALWAYS_SENT = "X-Content-Type-Options"

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_COSTS = range(4, 15)
"""A check at cost 14 takes a second of CPU; at 31, the maximum of bcrypt, it would take a day."""


class RateLimit(NamedTuple):
    """At most ``burst`` requests at once, and one more every ``interval`` seconds."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The parsed file. ``users`` maps names to bcrypt hashes; ``files`` are the paths it was read from.

    ``warnings`` are about keys that have another effect here than in the toolkit.
    """

    tls: TlsSettings | None
    headers: tuple[tuple[bytes, bytes], ...]
    users: Mapping[bytes, bytes]
    rate: RateLimit | None
    files: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: str) -> WebConfig:
    """Read the file and the certificates it names. Raises `WebConfigError` with every problem found."""
    mappings = (_HEADERS, _USERS)
    file = WebFile(path, (*TLS_NAMES, _HTTP2, _INTERVAL, _BURST, *mappings), mappings)
    tls, headers, users, rate = read_tls(file), _headers(file), _users(file), _rate(file)
    if file.take(_HTTP2, flag().parse, False):
        file.warn(_HTTP2, "HTTP/2 is not supported, clients get HTTP/1.1")
    if file.problems:
        raise WebConfigError(file.problems)
    return WebConfig(tls, headers, users, rate, tuple(file.files), tuple(file.warnings))


def _headers(file: WebFile) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers to add to every response; one with an empty value is left out."""
    found = []
    for where, name, value in file.entries(_HEADERS):
        try:
            _check_header(name, value)
        except ValueError as error:
            file.problems.append(f"{where}: {_HEADERS}: {error}")
        if value and name != _ALWAYS_SENT:
            found.append((name.encode(), value.encode()))
    return tuple(found)


def _check_header(name: str, value: str) -> None:
    allowed: dict[str, tuple[str, ...]] = {
        "Content-Security-Policy": (),
        "Strict-Transport-Security": (),
        _ALWAYS_SENT: ("nosniff",),
        "X-Frame-Options": ("deny", "sameorigin"),
        "X-XSS-Protection": (),
    }
    if name not in allowed:
        raise ValueError(f"{quoted(name)} cannot be set{did_you_mean(name, allowed)}")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} has characters not allowed in a header")
    if value and allowed[name] and value not in allowed[name]:
        raise ValueError(f"{name} must be {' or '.join(allowed[name])}")


def _users(file: WebFile) -> dict[bytes, bytes]:
    """Return name → bcrypt hash. Errors name the line and never quote it: it may hold a secret."""
    found = {}
    for where, name, value in file.entries(_USERS):
        match = _BCRYPT.fullmatch(value)
        if not match:
            file.problems.append(f"{where}: {_USERS}: not a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
        elif int(match[1]) not in _COSTS:
            file.problems.append(f"{where}: {_USERS}: cost {match[1]} is not from {_COSTS[0]} to {_COSTS[-1]}")
        if not name or ":" in name:
            file.problems.append(f"{where}: {_USERS}: a name has at least one character and no colon")
        found[name.encode()] = value.encode()
    return found


def _rate(file: WebFile) -> RateLimit | None:
    """Return the limit; None if the section is absent or its interval is 0."""
    interval = file.take(_INTERVAL, lambda value: 0.0 if value == "0" else duration(0.0, 3600.0).parse(value), 0.0)
    burst = file.take(_BURST, count(0, 1_000_000).parse, 0)
    if interval and not burst:
        file.problems.append(f"{file.where(_BURST, _INTERVAL)}: {_BURST}: must be at least 1")
    return RateLimit(interval, burst) if interval else None
