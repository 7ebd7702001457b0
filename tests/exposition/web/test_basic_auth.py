"""Logins: valid ones are cached, invalid ones throttled, and response times do not disclose which names exist."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from exporter.exposition.web.basic_auth import (
    CPU_SHARE,
    FAILURE_SECONDS,
    FAILURES,
    Logins,
    TokenBucket,
    Verdict,
    bcrypt_check,
    client_key,
    parse_basic,
)
from tests.support.patience import patience
from tests.support.served import HASH, PASSWORD, basic

USERS = {b"bob": b"hash of bob", b"eve": b"hash of eve"}


class Checks:
    """A check that accepts two passwords and records its calls; a test may block or slow it."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bytes]] = []
        self.go = threading.Event()
        self.go.set()
        self.seconds = 0.0

    def __call__(self, password: bytes, reference: bytes) -> bool:
        self.calls.append((password, reference))
        assert self.go.wait(patience(10))
        time.sleep(self.seconds)
        return (password, reference) in {(b"of bob", b"hash of bob"), (b"of eve", b"hash of eve")}


class Harness:
    """Logins with a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.checks = Checks()
        self.logins = Logins(USERS, lambda: self.now, self.checks)

    async def login(self, name: str, password: str, client: str = "10.0.0.1") -> Verdict:
        verdict = self.logins.check(basic(name, password).encode(), client)
        return verdict if isinstance(verdict, Verdict) else await asyncio.wait_for(verdict, patience())

    def at_once(self, name: str, password: str, client: str = "10.0.0.1") -> Verdict | None:
        """The verdict, None if bcrypt has to run first."""
        verdict = self.logins.check(basic(name, password).encode(), client)
        return verdict if isinstance(verdict, Verdict) else None


def run_story(story: Callable[[Harness], Coroutine[None, None, None]]) -> None:
    """Run a story in an event loop."""

    async def play() -> None:
        harness = Harness()
        try:
            await story(harness)
        finally:
            harness.checks.go.set()
            harness.logins.stop()

    asyncio.run(play())


def test_a_valid_password_is_checked_once() -> None:
    async def story(harness: Harness) -> None:
        assert await harness.login("bob", "of bob") is Verdict.VALID
        assert harness.at_once("bob", "of bob", "10.9.9.9") is Verdict.VALID
        assert len(harness.checks.calls) == 1

    run_story(story)


def test_an_invalid_password_is_checked_once() -> None:
    """A Prometheus with an invalid password retries every 15 s: that costs neither CPU nor its remaining failures."""

    async def story(harness: Harness) -> None:
        assert await harness.login("bob", "of eve") is Verdict.INVALID
        assert {harness.at_once("bob", "of eve") for _ in range(1000)} == {Verdict.INVALID}
        assert await harness.login("bob", "of bob") is Verdict.VALID
        assert len(harness.checks.calls) == 2

    run_story(story)


def test_an_unknown_name_costs_what_a_known_one_does() -> None:
    """Fault 65: also if the password happens to match the decoy hash."""

    async def story(harness: Harness) -> None:
        verdicts = {await harness.login(name, "of bob", f"10.0.0.{name}") for name in map(str, range(20))}
        assert verdicts == {Verdict.INVALID}
        assert len(harness.checks.calls) == 20
        assert {reference for _, reference in harness.checks.calls} == set(USERS.values())

    run_story(story)


def test_concurrent_logins_with_one_password_share_a_check() -> None:
    """Two Prometheus servers with the same account, just after the exporter started."""

    async def story(harness: Harness) -> None:
        harness.checks.go.clear()
        both = [asyncio.ensure_future(harness.login("bob", "of bob", f"10.0.0.{n}")) for n in range(50)]
        await asyncio.sleep(0.02)
        harness.checks.go.set()
        assert set(await asyncio.gather(*both)) == {Verdict.VALID}
        assert len(harness.checks.calls) == 1

    run_story(story)


def test_a_client_that_fails_too_often_is_throttled() -> None:
    async def story(harness: Harness) -> None:
        guesses = [await harness.login("bob", f"guess {n}") for n in range(FAILURES)]
        assert set(guesses) == {Verdict.INVALID}
        calls = len(harness.checks.calls)
        assert harness.at_once("bob", "one more") is Verdict.THROTTLED
        assert harness.at_once("bob", "of bob") is Verdict.THROTTLED  # or guessing would disclose that it is valid
        assert harness.at_once("nobody", "x") is Verdict.THROTTLED
        assert len(harness.checks.calls) == calls
        assert await harness.login("bob", "of bob", "10.0.0.2") is Verdict.VALID  # other clients are not affected
        assert harness.at_once("bob", "of bob") is Verdict.VALID  # nor are cached passwords
        harness.now += FAILURE_SECONDS
        assert await harness.login("bob", "guess again") is Verdict.INVALID
        assert harness.at_once("bob", "and again") is Verdict.THROTTLED

    run_story(story)


def test_valid_passwords_are_not_counted() -> None:
    async def story(harness: Harness) -> None:
        for _ in range(2 * FAILURES):
            harness.logins._valid.clear()  # so that it is checked again
            assert await harness.login("bob", "of bob") is Verdict.VALID

    run_story(story)


def test_invalid_passwords_use_a_share_of_one_core() -> None:
    """From however many addresses; the loop's thread checks none of them."""

    async def story(harness: Harness) -> None:
        harness.checks.seconds = 0.02
        began = time.monotonic()
        guesses = await asyncio.gather(*[harness.login("bob", f"guess {n}", f"10.0.0.{n}") for n in range(5)])
        assert set(guesses) == {Verdict.INVALID}
        assert time.monotonic() - began >= 4 * 0.02 / CPU_SHARE

    run_story(story)


def test_the_queue_is_short_and_prefers_clients_without_failures() -> None:
    async def story(harness: Harness) -> None:
        assert await harness.login("bob", "wrong", "10.6.6.6") is Verdict.INVALID
        harness.checks.go.clear()
        waiting: list[Awaitable[Verdict]] = []
        for n in range(100):  # one client floods
            verdict = harness.logins.check(basic("bob", f"guess {n}").encode(), "10.6.6.6")
            if not isinstance(verdict, Verdict):
                waiting.append(verdict)
        assert len(waiting) < FAILURES
        honest = asyncio.ensure_future(harness.login("eve", "of eve", "10.0.0.1"))
        await asyncio.sleep(0.02)
        harness.checks.go.set()
        assert await honest is Verdict.VALID
        assert len(harness.checks.calls) <= 3  # the first failure, the guess under way, and this one
        clean = [harness.at_once("bob", f"x{n}", f"10.1.0.{n}") for n in range(100)]
        assert clean.count(None) < 100

    run_story(story)


def test_a_changed_password_replaces_the_old_one() -> None:
    async def story(harness: Harness) -> None:
        assert await harness.login("bob", "of bob") is Verdict.VALID
        assert await harness.login("eve", "of eve") is Verdict.VALID
        harness.logins.replace_users({b"bob": b"hash of eve", b"eve": b"hash of eve"})
        assert harness.at_once("eve", "of eve") is Verdict.VALID
        assert await harness.login("bob", "of bob") is Verdict.INVALID
        assert await harness.login("bob", "of eve") is Verdict.VALID
        harness.logins.replace_users({b"eve": b"hash of eve"})
        assert await harness.login("bob", "of eve") is Verdict.INVALID

    run_story(story)


def test_the_caches_are_bounded() -> None:
    async def story(harness: Harness) -> None:
        harness.logins._invalid.update((b"%d" % n, None) for n in range(1024))
        assert await harness.login("bob", "wrong") is Verdict.INVALID
        assert len(harness.logins._invalid) == 1024
        bucket = TokenBucket(3, 1.0, lambda: 0.0, max_clients=10)
        assert all(bucket.take(str(n)) for n in range(1000))
        assert len(bucket._buckets) == 10

    run_story(story)


def test_bcrypt_itself() -> None:
    check = bcrypt_check()
    assert check(PASSWORD.encode(), HASH.encode())
    assert check(PASSWORD.encode(), HASH.replace("$2b$", "$2y$").encode())  # as htpasswd writes it
    assert not check(b"", HASH.encode())


def test_a_password_is_cut_where_bcrypt_cuts_it() -> None:
    """bcrypt looks at 72 bytes; its newer versions raise where there are more."""
    credentials = parse_basic(basic("bob", "p" * 5000).encode())
    assert credentials == (b"bob", b"p" * 72)
    assert bcrypt_check()(credentials[1], HASH.encode()) is False


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        (b"Basic Ym9iOng=", (b"bob", b"x")),
        (b"  bAsIc   Ym9iOng=  ", (b"bob", b"x")),
        (b"Basic " + base64.b64encode("bób:pä:ß".encode()), ("bób".encode(), "pä:ß".encode())),
        (b"Basic " + base64.b64encode(b"bob:\0\xff"), (b"bob", b"\0\xff")),
        (b"Basic Og==", (b"", b"")),
        (b"Basic Ym9i", None),
        (b"Basic Ym9iOng", None),
        (b"Basic Ym9iOng=!", None),
        (b"Basic \xff\xfe", None),
        (b"Basic", None),
        (b"Bearer Ym9iOng=", None),
        (b"", None),
    ],
)
def test_parse_basic(header: bytes, credentials: tuple[bytes, bytes] | None) -> None:
    assert parse_basic(header) == credentials


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("odd", "odd"),
    ],
)
def test_client_key(host: str, client: str) -> None:
    assert client_key(host) == client
