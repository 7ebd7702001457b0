"""Commands of meters of one's own: they fail, hang, flood, or leave processes behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from exporter.records import Unavailable
from exporter.sources.custom.command import MAX_BYTES, Command
from tests.support.patience import patience, wait_for


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_a_command_says_its_number() -> None:
    assert Command(shell("echo 41"), 5.0).run() == "41\n"


def test_a_command_gets_no_input_and_a_decimal_point() -> None:
    assert Command(shell("cat; echo $LC_ALL"), 5.0).run() == "C\n"


def test_there_is_no_shell() -> None:
    assert Command(["/bin/echo", "$HOME", ";", "reboot"], 5.0).run() == "$HOME ; reboot\n"


@pytest.mark.parametrize(
    ("argv", "reason", "words"),
    [
        (["/nonexistent/qaic-util", "-q"], "not_found", "No such file"),
        (["/etc/passwd"], "permission", "Permission denied"),
        (shell("echo no card >&2; exit 3"), "error", "exit status 3: no card"),
        (shell("kill -9 $$"), "error", "ended by signal 9"),
        (shell("exec sleep 1000"), "timeout", "killed"),
    ],
)
def test_a_command_that_fails(argv: list[str], reason: str, words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        Command(argv, 0.3).run()
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert caught.value.message.startswith(argv[0])


def test_arguments_are_never_in_a_message() -> None:
    with pytest.raises(Unavailable) as caught:
        Command(["/bin/sh", "-c", 'echo "login $1 failed" >&2; exit 1', "sh", "s3cret"], 5.0).run()
    assert "s3cret" not in f"{caught.value.message} {caught.value.fix}"


def test_children_of_a_command_are_killed_too(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="killed"):
        Command(shell(f"sleep 1000 & echo $! > {tmp_path}/pid; wait"), 0.3).run()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: _is_gone(pid), "the end of the child")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith(("Z", "X"))
    except OSError:
        return True


@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ("sleep 1000 & echo $! > {}; echo 41", False),  # it keeps the pipe
        ("sleep 1000 >/dev/null 2>&1 & echo $! > {}; echo 41", True),
        ("sleep 1000 >/dev/null 2>&1 & echo $! > {}; exit 3", True),
    ],
)
def test_what_a_command_leaves_behind_is_killed(tmp_path: Path, script: str, ends: bool) -> None:
    """Each run would leave one more."""
    command = Command(shell(script.format(tmp_path / "pid")), patience(20.0 if ends else 0.5))
    with contextlib.suppress(Unavailable):
        assert command.run() == "41\n"
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: _is_gone(pid), "the end of what was left behind")


def test_a_command_without_end_of_output_is_killed_after_some() -> None:
    """A gigabyte each time would take a second of a core to throw away."""
    with pytest.raises(Unavailable) as caught:
        Command(shell("exec head -c 1000000000 /dev/zero"), 600.0).run()
    assert (caught.value.reason, "16 MiB" in caught.value.message) == ("implausible", True)


def test_output_is_bounded() -> None:
    """It says more than is read, on both ends of the pipe, and ends."""
    output = Command(shell("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"), patience(20.0)).run()
    assert len(output) == MAX_BYTES


def test_endless_output_ends() -> None:
    with pytest.raises(Unavailable, match="killed"):
        Command(shell("exec yes"), 0.3).run()


def test_a_run_that_cannot_be_ended_is_the_only_one() -> None:
    command = Command(shell("echo 1; exec sleep 1000"), 5.0)

    def run() -> None:
        with contextlib.suppress(Unavailable):
            command.run()

    thread = threading.Thread(target=run)
    thread.start()
    process = wait_for(lambda: command._process)
    assert process is not None
    with pytest.raises(Unavailable, match="an earlier run cannot be ended"):
        command.run()
    os.killpg(process.pid, signal.SIGKILL)
    thread.join(patience())
