"""HTTP basic authentication: bcrypt in a separate thread, throttled so that guessing is slow and costs little CPU.

Nothing here blocks, and everything but bcrypt runs in the server's thread. A password that was valid once is
recognised by its HMAC in microseconds, so guesses by others never delay a client that has logged in before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import importlib
import ipaddress
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import NamedTuple

_MAX_WAITING = 8
_MAX_INVALID = 1024
_MAX_BCRYPT_BYTES = 72
_INSTALL = "pip install bcrypt"

CPU_SHARE = 0.25
"""Of one core, the share that invalid passwords may use."""

FAILURES, FAILURE_SECONDS = 10, 10.0
"""A client may fail ten times in a row, and once more every ten seconds."""


class Verdict(Enum):
    """The result of a login; ``THROTTLED`` means that the password was not checked."""

    VALID = "valid"
    INVALID = "invalid"
    THROTTLED = "throttled"


class TokenBucket:
    """One token bucket per client: ``burst`` tokens, one more every ``seconds``.

    Full buckets are not stored; beyond ``max_clients`` the oldest is evicted.
    """

    def __init__(self, burst: int, seconds: float, clock: Callable[[], float], max_clients: int = 4096) -> None:
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, client: str) -> float:
        """Return the tokens left, 0 to ``burst``."""
        tokens, at = self._buckets.get(client, (float(self._burst), 0.0))
        return min(float(self._burst), tokens + (self._clock() - at) / self._seconds)

    def take(self, client: str) -> bool:
        """Take a token; False if there is none."""
        left = self.left(client)
        if left < 1.0:
            return False
        self._put(client, left - 1.0)
        return True

    def refund(self, client: str) -> None:
        """Return a token."""
        self._put(client, self.left(client) + 1.0)

    def _put(self, client: str, tokens: float) -> None:
        self._buckets.pop(client, None)
        if tokens < self._burst:
            self._buckets[client] = (tokens, self._clock())
            if len(self._buckets) > self._max_clients:
                self._buckets.popitem(last=False)


class _Job(NamedTuple):
    key: bytes
    client: str
    password: bytes
    reference: bytes
    known: bool
    verdict: asyncio.Future[Verdict]


class Logins:
    """Checks logins. ``check_password`` takes password and hash; the default is bcrypt's."""

    def __init__(
        self,
        users: Mapping[bytes, bytes],
        clock: Callable[[], float] = time.monotonic,
        check_password: Callable[[bytes, bytes], bool] | None = None,
    ) -> None:
        """Raises ValueError if bcrypt is not installed."""
        self._check_password = check_password or bcrypt_check()
        self._users = users
        self._key = secrets.token_bytes(32)
        self._allowed_failures = TokenBucket(FAILURES, FAILURE_SECONDS, clock)
        self._valid: set[bytes] = set()
        self._invalid: OrderedDict[bytes, None] = OrderedDict()
        self._queue: deque[_Job] = deque()
        self._low_priority: deque[_Job] = deque()
        self._pending: dict[bytes, asyncio.Future[Verdict]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="login")

    def replace_users(self, users: Mapping[bytes, bytes]) -> None:
        """Replace the users; valid passwords stay cached for every user whose hash did not change."""
        self._users = users

    def check(self, authorization: bytes, client: str) -> Verdict | asyncio.Future[Verdict]:
        """Check an ``Authorization`` header; a future only if bcrypt has to run."""
        credentials = parse_basic(authorization)
        if credentials is None:
            return Verdict.INVALID
        name, password = credentials
        stored = self._users.get(name)
        # A check of an unknown name takes as long as one of a known name: it runs against a decoy and always fails.
        reference = stored or self._decoy_hash(name)
        known = stored is not None
        key = self._digest(b"%d %d %d " % (known, len(name), len(reference)) + name + reference + password)
        if key in self._valid:
            return Verdict.VALID
        if key in self._invalid:
            self._invalid.move_to_end(key)
            return Verdict.INVALID
        if key in self._pending:
            return self._pending[key]
        return self._enqueue(_Job(key, client, password, reference, known, _verdict()))

    def stop(self) -> None:
        """Stop the thread, without waiting for a check in progress."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- bcrypt queue -------------------------------------------------------------------------------

    def _enqueue(self, job: _Job) -> Verdict | asyncio.Future[Verdict]:
        queue = self._queue if self._allowed_failures.left(job.client) >= FAILURES else self._low_priority
        if len(queue) >= _MAX_WAITING or not self._allowed_failures.take(job.client):
            return Verdict.THROTTLED
        queue.append(job)
        self._pending[job.key] = job.verdict
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return job.verdict

    async def _work(self) -> None:
        """Check one at a time, clients without failures first; sleep after each invalid password to keep the share."""
        loop = asyncio.get_running_loop()
        while queue := self._queue or self._low_priority:
            job = queue.popleft()
            began = loop.time()
            matches = await loop.run_in_executor(self._thread, self._check_password, job.password, job.reference)
            took = loop.time() - began
            valid = matches and job.known
            if valid:
                self._valid.add(job.key)
                self._allowed_failures.refund(job.client)
            else:
                self._invalid[job.key] = None
                if len(self._invalid) > _MAX_INVALID:
                    self._invalid.popitem(last=False)
            del self._pending[job.key]
            job.verdict.set_result(Verdict.VALID if valid else Verdict.INVALID)
            if not valid:
                await asyncio.sleep(took * (1.0 / CPU_SHARE - 1.0))

    def _decoy_hash(self, name: bytes) -> bytes:
        """Return an existing hash for an unknown name, always the same one for the same name."""
        hashes = sorted(self._users.values())
        return hashes[int.from_bytes(self._digest(name)[:8]) % len(hashes)]

    def _digest(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")


def bcrypt_check() -> Callable[[bytes, bytes], bool]:
    """Return bcrypt's check of a password against a hash. Raises ValueError if it is not installed."""
    try:
        checkpw: Callable[[bytes, bytes], bool] = importlib.import_module("bcrypt").checkpw
    except ImportError:
        raise ValueError(f"needs the package bcrypt: {_INSTALL}") from None
    return checkpw


def parse_basic(authorization: bytes) -> tuple[bytes, bytes] | None:
    """Return name and password of ``Basic …``, None if malformed; the password is cut to bcrypt's 72 bytes."""
    scheme, _, encoded = authorization.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name, password[:_MAX_BCRYPT_BYTES]) if colon else None


def client_key(host: str) -> str:
    """Return the key that limits apply to: the IPv4 address, or the /64 network, which one IPv6 client usually owns."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def _verdict() -> asyncio.Future[Verdict]:
    return asyncio.get_running_loop().create_future()
