"""Who is served what: the web configuration as it is on disk now, asked once for each connection and each request."""

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

_QUIET_SECONDS = 60.0

_RECONNECT = Response(503, b"the TLS settings changed: connect anew\n", headers=((b"Retry-After", b"0"),), close=True)
_UNAUTHORIZED = Response(
    401, b"log in\n", headers=((b"WWW-Authenticate", b'Basic realm="ai-energy-exporter", charset="UTF-8"'),)
)
_TOO_MANY_FAILURES = Response(429, b"too many failed logins\n", headers=((b"Retry-After", b"10"),))
_RATE_LIMITED = Response(429, b"too many requests: see rate_limit\n", headers=((b"Retry-After", b"1"),))


class _Rules(NamedTuple):
    """One reading of the file, ready to use."""

    config: WebConfig
    tls: TlsPolicy | None


class Access:
    """The doorkeeper. What cannot be used when it starts is a `WebConfigError`; later, all stays as it was."""

    def __init__(
        self, path: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.ok = True
        self._path = path
        self._clock = clock
        self._wall = wall
        self._rules = _prepare(path)
        self._seen: object = _signature(self._rules.config.files)
        self._problems: tuple[str, ...] = ()
        self._logged: tuple[str, ...] = ()
        self._logins = Logins(self._rules.config.users, clock) if self._rules.config.users else None
        self._rate = _token_bucket(self._rules.config.rate, clock)
        self._rejections = RejectionLog(clock)
        self._expired: TlsPolicy | None = None

    @property
    def tls(self) -> TlsPolicy | None:
        """How to shake hands with a new client; None is plain HTTP."""
        return self._rules.tls

    @property
    def headers(self) -> Headers:
        """Headers to add to every answer."""
        return self._rules.config.headers

    # --- clients ------------------------------------------------------------------------------------

    def check_certificate(self, client: Client) -> Response | None:
        """Why this connection is served nothing at all, None if it is."""
        tls = self._rules.tls
        if not _compatible(client.tls, tls):
            return _RECONNECT
        reason = tls.rejection_reason(client.certificate, self._wall()) if tls is not None else ""
        if not reason:
            return None
        self._rejections.record("a client certificate", client.host, reason)
        return Response(403, f"{reason}\n".encode(), close=True)

    def authorize(self, request: h11.Request, client: Client) -> Response | Awaitable[Response | None] | None:
        """Why this request is not answered, None if it is; may take until bcrypt is done."""
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
        # Others may wait for the same verdict: a client that leaves must not cancel it.
        return self._response(await asyncio.shield(verdict), client)

    def _response(self, verdict: Verdict, client: Client) -> Response | None:
        if verdict is Verdict.VALID:
            return None
        late = verdict is Verdict.THROTTLED
        self._rejections.record("a login", client.host, "too many failed" if late else "wrong name or password")
        return _TOO_MANY_FAILURES if late else _UNAUTHORIZED

    def handshake_failed(self, host: str, reason: str) -> None:
        """Tell the log, but not for each of thousands."""
        self._rejections.record("a TLS handshake", host, reason)

    # --- files --------------------------------------------------------------------------------------

    def log_warnings(self) -> None:
        """Tell the log what the operator should know about the file."""
        for warning in self._rules.config.warnings:
            log.warning("%s", warning)
        if self.tls is not None and self.tls.certificate_problem:
            log.warning(
                "%s: clients may refuse this certificate: %s", self.tls.settings.where, self.tls.certificate_problem
            )

    def refresh(self) -> bool:
        """Take over what changed on disk; True if connections made so far are to be given up. Call once a second."""
        self._maintain_tls()
        old, signature = self._rules, _signature(self._rules.config.files)
        if signature == self._seen and not self._problems:
            return False
        try:
            new = _prepare(self._path, old)
        except WebConfigError as error:
            self._log_problems(error.problems)
            return False
        self._rules, self._problems, self._logged, self.ok = new, (), (), True
        # Other files may have changed while they were read for the first time: those are read again.
        self._seen = signature if new.config.files == old.config.files else None
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
        """Let go of the thread that checks passwords."""
        if self._logins is not None:
            self._logins.stop()

    def _log_problems(self, problems: tuple[str, ...]) -> None:
        """Once, and only of what lasts: a certificate and its key are seldom replaced at the same instant."""
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
            log.warning("%s: this certificate has expired: clients will refuse it", self.tls.settings.where)


class RejectionLog:
    """Tells the log who was not let in: of each kind the first at once, then one line a minute with their number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def record(self, what: str, host: str, reason: str) -> None:
        """One more; nothing of what the client sent is to be in ``reason``."""
        told_at, untold = self._kinds.get(what, (float("-inf"), 0))
        if self._clock() - told_at < _QUIET_SECONDS:
            self._kinds[what] = (told_at, untold + 1)
            return
        more = f", and {untold} more since the last such line" if untold else ""
        log.warning("%s was refused: %s (from %s%s)", what, reason, host, more)
        self._kinds[what] = (self._clock(), 0)


def _prepare(path: str, old: _Rules | None = None) -> _Rules:
    """Read the file and try out what it says. Raises `WebConfigError`."""
    config = read(path)
    problems = []
    tls = old.tls if old is not None else None
    if config.users:
        try:
            bcrypt_check()
        except ValueError as error:
            problems.append(f"{path}: basic_auth_users: {error}")
    elif old is not None and old.config.users:
        problems.append(f"{path}: basic_auth_users: has nobody left; to let everybody in, restart")
    if config.tls is None:
        if tls is not None:
            problems.append(f"{path}: tls_server_config: is gone; to serve without TLS, restart")
    elif tls is None or tls.settings != config.tls:
        try:
            tls = TlsPolicy(config.tls)
        except ValueError as error:
            problems.append(f"{config.tls.where}: tls_server_config: {error}")
    if problems:
        raise WebConfigError(problems)
    return _Rules(config, tls)


def _compatible(one: TlsPolicy | None, other: TlsPolicy | None) -> bool:
    """Whether a connection that was made under one policy is good enough for the other."""
    return one is other or (one is not None and other is not None and one.settings.compatible_with(other.settings))


def _token_bucket(rate: RateLimit | None, clock: Callable[[], float]) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate.burst, rate.interval, clock)


def _signature(files: Iterable[str]) -> tuple[tuple[int, ...] | None, ...]:
    """What changes when one of these files does."""
    found: list[tuple[int, ...] | None] = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)
