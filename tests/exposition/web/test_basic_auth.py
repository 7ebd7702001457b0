"""Logins: right ones at once, wrong ones seldom, and nobody learns from the time it takes who has an account."""

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
    Limits,
    Logins,
    Verdict,
    bcrypt_check,
    client_of,
    parse_basic,
)
from tests.support.patience import patience
from tests.support.served import HASH, PASSWORD, basic

USERS = {b"bob": b"hash of bob", b"eve": b"hash of eve"}


class Checks:
    """A check that knows two passwords and remembers what it was asked; it may be held up."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.go = threading.Event()
        self.go.set()
        self.seconds = 0.0

    def __call__(self, password: bytes, reference: bytes) -> bool:
        self.asked.append((password, reference))
        assert self.go.wait(patience())
        time.sleep(self.seconds)
        return (password, reference) in {(b"of bob", b"hash of bob"), (b"of eve", b"hash of eve")}


class Desk:
    """Logins with a clock of their own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.checks = Checks()
        self.logins = Logins(USERS, lambda: self.now, self.checks)

    async def login(self, name: str, password: str, client: str = "10.0.0.1") -> Verdict:
        verdict = self.logins.check(basic(name, password).encode(), client)
        return verdict if isinstance(verdict, Verdict) else await asyncio.wait_for(verdict, patience())

    def at_once(self, name: str, password: str, client: str = "10.0.0.1") -> Verdict | None:
        """The verdict, None if it is to be waited for."""
        verdict = self.logins.check(basic(name, password).encode(), client)
        return verdict if isinstance(verdict, Verdict) else None


def with_desk(story: Callable[[Desk], Coroutine[None, None, None]]) -> None:
    """Play a story in a loop."""

    async def play() -> None:
        desk = Desk()
        try:
            await story(desk)
        finally:
            desk.checks.go.set()
            desk.logins.stop()

    asyncio.run(play())


def test_a_right_password_is_checked_once() -> None:
    async def story(desk: Desk) -> None:
        assert await desk.login("bob", "of bob") is Verdict.RIGHT
        assert desk.at_once("bob", "of bob", "10.9.9.9") is Verdict.RIGHT
        assert len(desk.checks.asked) == 1

    with_desk(story)


def test_a_wrong_password_is_checked_once() -> None:
    """A Prometheus with the wrong password asks every 15 s for ever: that costs neither CPU nor its right to try."""

    async def story(desk: Desk) -> None:
        assert await desk.login("bob", "of eve") is Verdict.WRONG
        assert {desk.at_once("bob", "of eve") for _ in range(1000)} == {Verdict.WRONG}
        assert await desk.login("bob", "of bob") is Verdict.RIGHT
        assert len(desk.checks.asked) == 2

    with_desk(story)


def test_an_unknown_name_costs_what_a_known_one_does() -> None:
    """Fault 65: also where it guesses the password of whose hash it is checked against."""

    async def story(desk: Desk) -> None:
        verdicts = {await desk.login(name, "of bob", f"10.0.0.{name}") for name in map(str, range(20))}
        assert verdicts == {Verdict.WRONG}
        assert len(desk.checks.asked) == 20
        assert {reference for _, reference in desk.checks.asked} == set(USERS.values())

    with_desk(story)


def test_who_waits_for_the_same_password_waits_together() -> None:
    """Two Prometheus servers with the same account, just after the exporter started."""

    async def story(desk: Desk) -> None:
        desk.checks.go.clear()
        both = [asyncio.ensure_future(desk.login("bob", "of bob", f"10.0.0.{n}")) for n in range(50)]
        await asyncio.sleep(0.02)
        desk.checks.go.set()
        assert set(await asyncio.gather(*both)) == {Verdict.RIGHT}
        assert len(desk.checks.asked) == 1

    with_desk(story)


def test_who_fails_too_often_has_to_wait() -> None:
    async def story(desk: Desk) -> None:
        guesses = [await desk.login("bob", f"guess {n}") for n in range(FAILURES)]
        assert set(guesses) == {Verdict.WRONG}
        asked = len(desk.checks.asked)
        assert desk.at_once("bob", "one more") is Verdict.LATER
        assert desk.at_once("bob", "of bob") is Verdict.LATER  # or a guesser would learn that it was right
        assert desk.at_once("nobody", "x") is Verdict.LATER
        assert len(desk.checks.asked) == asked
        assert await desk.login("bob", "of bob", "10.0.0.2") is Verdict.RIGHT  # others are not concerned
        assert desk.at_once("bob", "of bob") is Verdict.RIGHT  # nor who is known
        desk.now += FAILURE_SECONDS
        assert await desk.login("bob", "guess again") is Verdict.WRONG
        assert desk.at_once("bob", "and again") is Verdict.LATER

    with_desk(story)


def test_right_passwords_do_not_count() -> None:
    async def story(desk: Desk) -> None:
        for _ in range(2 * FAILURES):
            desk.logins._right.clear()  # so that it is checked again
            assert await desk.login("bob", "of bob") is Verdict.RIGHT

    with_desk(story)


def test_wrong_passwords_use_a_share_of_one_core() -> None:
    """Whoever guesses, from however many addresses; the thread of the loop does none of it."""

    async def story(desk: Desk) -> None:
        desk.checks.seconds = 0.02
        began = time.monotonic()
        guesses = await asyncio.gather(*[desk.login("bob", f"guess {n}", f"10.0.0.{n}") for n in range(5)])
        assert set(guesses) == {Verdict.WRONG}
        assert time.monotonic() - began >= 4 * 0.02 / CPU_SHARE

    with_desk(story)


def test_few_wait_and_those_first_who_have_not_failed() -> None:
    async def story(desk: Desk) -> None:
        assert await desk.login("bob", "wrong", "10.6.6.6") is Verdict.WRONG
        desk.checks.go.clear()
        waiting: list[Awaitable[Verdict]] = []
        for n in range(100):  # one client floods
            verdict = desk.logins.check(basic("bob", f"guess {n}").encode(), "10.6.6.6")
            if not isinstance(verdict, Verdict):
                waiting.append(verdict)
        assert len(waiting) < FAILURES
        honest = asyncio.ensure_future(desk.login("eve", "of eve", "10.0.0.1"))
        await asyncio.sleep(0.02)
        desk.checks.go.set()
        assert await honest is Verdict.RIGHT
        assert len(desk.checks.asked) <= 3  # the first failure, the guess under way, and this one
        clean = [desk.at_once("bob", f"x{n}", f"10.1.0.{n}") for n in range(100)]
        assert clean.count(None) < 100

    with_desk(story)


def test_another_password_is_taken_over_and_the_old_one_forgotten() -> None:
    async def story(desk: Desk) -> None:
        assert await desk.login("bob", "of bob") is Verdict.RIGHT
        assert await desk.login("eve", "of eve") is Verdict.RIGHT
        desk.logins.replace_users({b"bob": b"hash of eve", b"eve": b"hash of eve"})
        assert desk.at_once("eve", "of eve") is Verdict.RIGHT
        assert await desk.login("bob", "of bob") is Verdict.WRONG
        assert await desk.login("bob", "of eve") is Verdict.RIGHT
        desk.logins.replace_users({b"eve": b"hash of eve"})
        assert await desk.login("bob", "of eve") is Verdict.WRONG

    with_desk(story)


def test_what_is_remembered_is_bounded() -> None:
    async def story(desk: Desk) -> None:
        desk.logins._wrong.update((b"%d" % n, None) for n in range(1024))
        assert await desk.login("bob", "wrong") is Verdict.WRONG
        assert len(desk.logins._wrong) == 1024
        limits = Limits(3, 1.0, lambda: 0.0, most=10)
        assert all(limits.take(str(n)) for n in range(1000))
        assert len(limits._buckets) == 10

    with_desk(story)


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
def test_who_is_responsible(host: str, client: str) -> None:
    assert client_of(host) == client
