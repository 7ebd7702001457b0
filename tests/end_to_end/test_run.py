"""``run`` as people meet it: exit status, signals, files, and the exporter of the machine."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from tests.support.live import Exporter, Meter
from tests.support.patience import patience, wait_for
from tests.support.program import COMMAND, ENVIRONMENT, children_of
from tests.support.repository import REPOSITORY

ALONE = ("--exporter.url=", "--sample.interval", "5s", "--source.timeout", "5s")


def words(*flags: str, script: str = "") -> list[str]:
    """The program with a script of the shell, or without a command."""
    return [*COMMAND, "run", *flags, *(["--", "/bin/sh", "-c", script] if script else [])]


def run(*flags: str, script: str = "", environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        words(*flags, script=script),
        cwd=REPOSITORY,
        env=ENVIRONMENT | (environ or {}),
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )


def sh(*flags: str, script: str) -> subprocess.CompletedProcess[str]:
    """The same, without an exporter."""
    return run(*ALONE, *flags, script=script)


class Started:
    """A run that prints ``ready`` once its command is at work."""

    def __init__(self, script: str, *flags: str) -> None:
        self.process = subprocess.Popen(
            words(*ALONE, *flags, script=script),
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # as a shell does; in a group that no process could continue, nothing stops
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        out, err = self.process.communicate(timeout=patience())
        return self.process.returncode, out, err


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    made = Meter(tmp_path / "sys")
    yield made
    made.stop()


def test_the_line_is_on_stderr_and_the_output_is_the_commands(tmp_path: Path) -> None:
    done = sh("--json", str(tmp_path / "run.json"), script="echo out; echo err >&2; exit 3")
    assert done.returncode == 3
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\nai-energy-exporter run: ")
    assert "J (cpu " in done.stderr
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["exit_status"] == 3
    assert written["command"][:2] == ["/bin/sh", "-c"]
    assert written["name"] == "sh"


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (["/nonexistent/program"], 127, "/nonexistent/program: No such file or directory"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed(command: list[str], status: int, reason: str) -> None:
    done = run(*ALONE, "--", *command)
    assert done.returncode == status
    assert done.stderr == f"ai-energy-exporter run: {reason}\n"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "needs a command after --"),
        (["true"], "unknown command"),
        (["--jsn", "x", "--", "true"], "unknown flag: --jsn"),
        (["--csv", "/nonexistent/runs.csv", "--", "true"], "/nonexistent/runs.csv: No such file or directory"),
        (["--sample.interval", "1x", "--", "true"], "--sample.interval"),
        (["--impact.price", "1", "--", "true"], "impact.price needs impact.currency"),
        (["--demo", "--", "true"], "--demo"),
    ],
)
def test_usage_errors_start_nothing(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *flags], {}) == 2
    assert reason in capsys.readouterr().err


class TestSignals:
    def test_one_that_ends_the_command_is_its_status(self) -> None:
        assert sh("--quiet", script="kill -KILL $$").returncode == 128 + signal.SIGKILL

    def test_it_is_passed_on_once(self) -> None:
        script = "trap 'echo got' TERM; echo ready; n=0; while [ $n -lt 3 ]; do sleep 0.1; n=$((n+1)); done; exit 7"
        started = Started(script)
        started.process.send_signal(signal.SIGTERM)
        status, out, err = started.end()
        assert (status, out) == (7, "got\n")
        assert "CPU s" in err

    def test_stop_and_continue(self) -> None:
        started = Started("echo ready; read x < /dev/null; exec sleep 0.5")
        pid = started.process.pid
        started.process.send_signal(signal.SIGTSTP)
        wait_for(lambda: state(pid) == "T", "the launcher to stop")
        wait_for(lambda: "T" in map(state, children_of(pid)), "the command to stop")
        started.process.send_signal(signal.SIGCONT)
        assert started.end()[0] == 0

    def test_ctrl_c_reaches_the_command_once(self) -> None:
        """The terminal sends it to the whole process group, so it is not passed on."""
        leader, terminal = pty.openpty()
        script = "n=0; trap 'n=$((n+1))' INT; echo ready; sleep 0.6; sleep 0.6; echo interrupted $n; exit 9"
        job = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words(*ALONE, "--quiet", script=script)],
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        output = b""
        while b"ready" not in output:
            output += os.read(leader, 1024)
        os.write(leader, b"\x03")
        with contextlib.suppress(OSError):  # the terminal is closed
            while part := os.read(leader, 1024):
                output += part
        os.close(leader)
        assert (job.wait(patience()), b"interrupted 1" in output) == (9, True), output


def state(pid: int) -> str:
    """State of a process; "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


class TestChildren:
    def test_orphans_are_adopted_counted_and_reaped(self, tmp_path: Path) -> None:
        script = "(sleep 0.2 & ) ; (sleep 0.2 & ); echo ready; sleep 0.6; ps -o stat= --ppid $PPID"
        done = sh("--json", str(tmp_path / "run.json"), script=script)
        assert done.returncode == 0
        assert "Z" not in done.stdout
        assert json.loads((tmp_path / "run.json").read_text())["still_running"] == 0

    def test_what_is_left_behind_is_said(self, tmp_path: Path) -> None:
        done = sh("--json", str(tmp_path / "run.json"), script="(sleep 30 > /dev/null 2>&1 & echo $! )")
        os.kill(int(done.stdout), signal.SIGKILL)
        assert "1 process still runs" in done.stderr
        assert json.loads((tmp_path / "run.json").read_text())["still_running"] == 1

    def test_it_waits_for_all_if_asked(self) -> None:
        done = sh("--wait-all", "--quiet", script="(sleep 0.5; echo late) & exit 5")
        assert (done.returncode, done.stdout) == (5, "late\n")


def test_rows_of_a_csv_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.csv"
    for name in ("one", 'the "second", with commas'):
        assert sh("--csv", str(path), "--name", name, "--quiet", script="true").returncode == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["one", 'the "second", with commas']
    assert all(float(row["joules"]) >= 0 and row["exit_status"] == "0" and row["gpu_joules"] == "" for row in rows)
    other = tmp_path / "emissions.csv"
    other.write_text("timestamp,project_name\n")
    assert main(["run", "--csv", str(other), "--", "true"], {}) == 2
    assert f"{other}: its first line is not the header" in capsys.readouterr().err
    assert other.read_text() == "timestamp,project_name\n"


class TestBesideAnExporter:
    """Of a machine whose meter the user of the run may not read."""

    def found(self, tmp_path: Path, exporter: Exporter, *flags: str) -> dict[str, Any]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        path = tmp_path / "run.json"
        url = exporter.url.removesuffix("/metrics")
        script = "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done"
        flags = (
            "--exporter.url",
            url,
            "--path.sysfs",
            str(tmp_path / "empty"),
            "--path.cgroupfs",
            "/sys/fs/cgroup",
            *flags,
        )
        done = run("--attribution.cpu-scope", "machine", "--json", str(path), *flags, script=script)
        assert done.returncode == 0, done.stderr
        written: dict[str, Any] = json.loads(path.read_text())
        return written

    def test_its_meter_its_factors_and_its_word_on_quality(self, tmp_path: Path, meter: Meter) -> None:
        flags = (
            "--path.sysfs",
            str(tmp_path / "sys"),
            "--attribution.cpu-scope",
            "machine",
            "--idle.watts=package-0=5",
        )
        exporter = Exporter(*flags, "--impact.intensity", "360", "--impact.price", "0.36", "--impact.currency", "EUR")
        try:
            written = self.found(tmp_path, exporter)
        finally:
            exporter.end()
        assert written["exporter"] == exporter.url.removesuffix("/metrics")
        assert [device["source"] for device in written["devices"]] == ["exporter"]
        assert written["quality"] == {"cpu": "measured"}
        assert 0 < written["joules"] < 60 * written["duration_seconds"] + 60
        assert written["carbon_grams"] == pytest.approx(written["joules"] * 360 / 3.6e6)
        assert written["cost"] == pytest.approx(written["joules"] * 0.36 / 3.6e6)
        assert written["currency"] == "EUR"

    def test_one_that_simulates_is_not_used(self, tmp_path: Path) -> None:
        exporter = Exporter("--demo")
        try:
            written = self.found(tmp_path, exporter)
        finally:
            exporter.end()
        assert written["exporter"] is None
        assert written["quality"] == {"cpu": "estimated"}


def test_a_named_exporter_that_does_not_answer_is_said(tmp_path: Path) -> None:
    done = run("--exporter.url", "http://127.0.0.1:1", script="true")
    assert done.returncode == 0
    assert "http://127.0.0.1:1/metrics" in done.stderr
    assert "reads the meters itself" in done.stderr
