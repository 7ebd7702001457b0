"""Notifications to systemd, received by a real socket in its place."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.service.systemd import Notifier


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0)

    def received(self) -> list[bytes]:
        """Return the messages since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(100))
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_ready_once_and_then_twice_in_each_period(manager: Manager, tmp_path: Path) -> None:
    ticks = iter([100.0, 101.0, 109.9, 110.0, 111.0, 120.5])
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000000"}
    notifier = Notifier(environ, clock=lambda: next(ticks))
    sent = []
    for _ in range(6):
        notifier.observe(None)
        sent.append(manager.received())
    assert sent == [[b"READY=1"], [], [], [b"WATCHDOG=1"], [], [b"WATCHDOG=1"]]


def test_without_a_watchdog_only_ready_is_sent(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, clock=iter(range(0, 1000, 100)).__next__)
    for _ in range(3):
        notifier.observe(None)
    assert manager.received() == [b"READY=1"]


def test_abstract_socket(tmp_path: Path) -> None:
    name = f"aee-notify-{tmp_path.name}-{id(tmp_path)}"
    manager = Manager(f"\0{name}")
    Notifier({"NOTIFY_SOCKET": f"@{name}"}).observe(None)
    assert manager.received() == [b"READY=1"]
    manager.socket.close()


def test_ready_is_sent_again_until_a_manager_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "late")
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.observe(None)
    manager = Manager(path)
    notifier.observe(None)
    assert manager.received() == [b"READY=1"]
    manager.socket.close()


def test_a_message_that_finds_the_queue_full_is_sent_after_the_next_tick(manager: Manager, tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000000"}
    notifier = Notifier(environ, clock=iter([0.0, 10.0, 11.0]).__next__)
    notifier.observe(None)
    with contextlib.suppress(BlockingIOError):
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                other.sendto(b"STATUS=1", environ["NOTIFY_SOCKET"])
    notifier.observe(None)
    assert set(manager.received()) == {b"READY=1", b"STATUS=1"}
    notifier.observe(None)
    assert manager.received() == [b"WATCHDOG=1"]


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "soon"}, {"NOTIFY_SOCKET": "/nonexistent/socket"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    for _ in range(3):
        notifier.observe(None)
