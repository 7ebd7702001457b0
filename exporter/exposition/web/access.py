"""Authorization of connections and requests by the web configuration, which is reloaded when it changes on disk."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import h11

from .basic_auth import Logins, TokenBucket, Verdict, bcrypt_check
from .clients import Client
from .response import Headers, Response
from .tls import TlsPolicy
from .web_config import RateLimit, WebConfig, read
from .web_config_file import WebConfigError

log = logging.getLogger(__name__)

_REPEAT_SECONDS = 60.0
"""Between two log lines about the same kind of rejection."""

_RECONNECT = Response(503, b"the TLS settings changed: reconnect\n", headers=((b"Retry-After", b"0"),), close=True)
_UNAUTHORIZED = Response(
    401, b"log in\n", headers=((b"WWW-Authenticate", b'Basic realm="ai-energy-exporter", charset="UTF-8"'),)
)
_TOO_MANY_FAILURES = Response(429, b"too many failed logins\n", headers=((b"Retry-After", b"10"),))
_RATE_LIMITED = Response(429, b"too many requests: see rate_limit\n", headers=((b"Retry-After", b"1"),))


class _Rules(NamedTuple):
    """One version of the file, parsed and checked."""

    config: WebConfig
    tls: TlsPolicy | None


class Access:
    """Authorizes connections and requests.

    A configuration that is invalid at startup raises `WebConfigError`; one that becomes invalid later is logged, and
    the previous one stays in force. ``ok`` is False meanwhile.
    """

    def __init__(
        self, path: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.ok = True
        self._path = path
        self._clock = clock
        self._wall = wall
        self._rules = _prepare(path)
        self._loaded_signature: object = _signature(self._rules.config.files)
        self._problems: tuple[str, ...] = ()
        self._logged: tuple[str, ...] = ()
        self._logins = Logins(self._rules.config.users, clock) if self._rules.config.users else None
        self._rate = _token_bucket(self._rules.config.rate, clock)
        self._rejections = RejectionLog(clock)
        self._expired: TlsPolicy | None = None

    @property
    def tls(self) -> TlsPolicy | None:
        """The policy for new connections; None is plain HTTP."""
        return self._rules.tls

    @property
    def headers(self) -> Headers:
        """Headers to add to every response."""
        return self._rules.config.headers

    # --- clients ------------------------------------------------------------------------------------

    def check_certificate(self, client: Client) -> Response | None:
        """Return the rejection of a connection by its TLS policy or client certificate, None if it is accepted."""
        tls = self._rules.tls
        if not _compatible(client.tls, tls):
            return _RECONNECT
        reason = tls.rejection_reason(client.certificate, self._wall()) if tls is not None else ""
        if not reason:
            return None
        self._rejections.record("a client certificate", client.host, reason)
        return Response(403, f"{reason}\n".encode(), close=True)

    def authorize(self, request: h11.Request, client: Client) -> Response | Awaitable[Response | None] | None:
        """Return the rejection of a request, None if it is accepted; an awaitable while bcrypt checks a password."""
        if self._rate is not None and not self._rate.take(""):
            return _RATE_LIMITED
        if self._logins is None:
            return None
        authorization = next((value for name, value in request.headers if name == b"authorization"), None)
        if authorization is None:
            return _UNAUTHORIZED
        verdict = self._logins.check(authorization, client.client_key)
        if isinstance(verdict, Verdict):
            return self._response(verdict, client)
        return self._await_response(verdict, client)

    async def _await_response(self, verdict: asyncio.Future[Verdict], client: Client) -> Response | None:
        # Several clients may await one verdict: a disconnecting client must not cancel it.
        return self._response(await asyncio.shield(verdict), client)

    def _response(self, verdict: Verdict, client: Client) -> Response | None:
        if verdict is Verdict.VALID:
            return None
        throttled = verdict is Verdict.THROTTLED
        self._rejections.record("a login", client.host, "too many failed" if throttled else "wrong name or password")
        return _TOO_MANY_FAILURES if throttled else _UNAUTHORIZED

    def handshake_failed(self, host: str, reason: str) -> None:
        """Log a failed handshake, at a limited rate."""
        self._rejections.record("a TLS handshake", host, reason)

    # --- files --------------------------------------------------------------------------------------

    def log_warnings(self) -> None:
        """Log what the operator should know about the configuration in force."""
        for warning in self._rules.config.warnings:
            log.warning("%s", warning)
        if self.tls is not None and self.tls.certificate_problem:
            log.warning(
                "%s: clients may reject this certificate: %s", self.tls.settings.where, self.tls.certificate_problem
            )

    def refresh(self) -> bool:
        """Reload files that changed; True if existing connections must be closed. Call once a second."""
        self._maintain_tls()
        old, signature = self._rules, _signature(self._rules.config.files)
        if signature == self._loaded_signature and not self._problems:
            return False
        try:
            new = _prepare(self._path, old)
        except WebConfigError as error:
            self._log_problems(error.problems)
            return False
        self._rules, self._problems, self._logged, self.ok = new, (), (), True
        # A newly referenced file may have changed while it was read for the first time: read it again.
        self._loaded_signature = signature if new.config.files == old.config.files else None
        if new.config.users and self._logins is None:
            self._logins = Logins(new.config.users, self._clock)
        elif self._logins is not None:
            self._logins.replace_users(new.config.users)
        if new.config.rate != old.config.rate:
            self._rate = _token_bucket(new.config.rate, self._clock)
        log.info("%s: web configuration and certificates reloaded", self._path)
        self.log_warnings()
        return not _compatible(old.tls, new.tls)

    def stop(self) -> None:
        """Stop the thread that checks passwords."""
        if self._logins is not None:
            self._logins.stop()

    def _log_problems(self, problems: tuple[str, ...]) -> None:
        """Log problems once, when two reads in a row find them: a certificate and its key are replaced one by one."""
        if problems == self._problems and problems != self._logged:
            self._logged, self.ok = problems, False
            for problem in problems:
                log.error("web configuration not reloaded: %s", problem)
        self._problems = problems

    def _maintain_tls(self) -> None:
        if self.tls is None:
            return
        self.tls.bound_session_cache()
        expires_at = self.tls.expires_at
        if expires_at is not None and expires_at < self._wall() and self._expired is not self.tls:
            self._expired = self.tls
            log.warning("%s: this certificate has expired: clients will reject it", self.tls.settings.where)


class RejectionLog:
    """Logs rejected clients: per kind the first at once, then at most one line a minute with the count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def record(self, kind: str, host: str, reason: str) -> None:
        """Count a rejection and log it if one is due. ``reason`` must hold nothing that the client sent."""
        logged_at, suppressed = self._kinds.get(kind, (float("-inf"), 0))
        if self._clock() - logged_at < _REPEAT_SECONDS:
            self._kinds[kind] = (logged_at, suppressed + 1)
            return
        more = f", and {suppressed} more since the last such line" if suppressed else ""
        log.warning("%s was rejected: %s (from %s%s)", kind, reason, host, more)
        self._kinds[kind] = (self._clock(), 0)


def _prepare(path: str, old: _Rules | None = None) -> _Rules:
    """Read the file and check that it can be used. Raises `WebConfigError`."""
    config = read(path)
    problems = []
    tls = old.tls if old is not None else None
    if config.users:
        try:
            bcrypt_check()
        except ValueError as error:
            problems.append(f"{path}: basic_auth_users: {error}")
    elif old is not None and old.config.users:
        problems.append(f"{path}: basic_auth_users: lists no user any more; to serve without logins, restart")
    if config.tls is None:
        if tls is not None:
            problems.append(f"{path}: tls_server_config: was removed; to serve without TLS, restart")
    elif tls is None or tls.settings != config.tls:
        try:
            tls = TlsPolicy(config.tls)
        except ValueError as error:
            problems.append(f"{config.tls.where}: tls_server_config: {error}")
    if problems:
        raise WebConfigError(problems)
    return _Rules(config, tls)


def _compatible(one: TlsPolicy | None, other: TlsPolicy | None) -> bool:
    """Whether a connection made under one policy may continue under the other."""
    return one is other or (one is not None and other is not None and one.settings.compatible_with(other.settings))


def _token_bucket(rate: RateLimit | None, clock: Callable[[], float]) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate.burst, rate.interval, clock)


def _signature(files: Iterable[str]) -> tuple[tuple[int, ...] | None, ...]:
    """Metadata that changes when one of the files does; None for a file that cannot be read."""
    found: list[tuple[int, ...] | None] = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)
