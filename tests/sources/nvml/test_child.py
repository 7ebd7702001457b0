"""NVIDIA cards through a child process: what the driver does to that one, the source reports and survives."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter import __version__
from exporter.host import Host, boot_seconds
from exporter.records import EnergyReading, Reading, Unavailable
from exporter.sources.driver_child import serve
from exporter.sources.driver_process import Timeouts
from exporter.sources.nvml.fast_reads import FastReads
from exporter.sources.nvml.process import NvmlProcess
from exporter.sources.registry import build
from tests.support.nvml.control import FakeDriver
from tests.support.patience import patience, wait_for

PATIENCE_SECONDS = 30.0
SHORT = Timeouts(first=20.0, answer=0.3)
CHILD = "exporter.sources.nvml.child"


def children() -> list[psutil.Process]:
    """Our child processes that call the driver, zombies included."""
    found = []
    for child in psutil.Process().children():
        try:
            ours = child.status() == psutil.STATUS_ZOMBIE or CHILD in child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if ours:
            found.append(child)
    return found


def only_child() -> int:
    (child,) = children()
    return child.pid


def open_files() -> set[int]:
    """Our descriptors."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


class Timeline:
    """Reads a source with time passing between two reads, more than a new child must wait."""

    def __init__(self, source: NvmlProcess) -> None:
        self.source = source
        self.now = boot_seconds()

    def read(self, seconds: float = 10.0) -> Reading:
        self.now += seconds
        return self.source.read(self.now)

    def failure(self, seconds: float = 10.0) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            self.read(seconds)
        return caught.value


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    with FakeDriver(library, tmp_path) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def start(driver: FakeDriver) -> Iterator[Callable[..., Timeline]]:
    started: list[NvmlProcess] = []

    def start_one(patience: Timeouts | None = None) -> Timeline:
        started.append(NvmlProcess(Host(), patience))
        return Timeline(started[-1])

    yield start_one
    driver.release()
    for source in started:
        source.close()
    wait_for(lambda: not children())


class TestReading:
    def test_what_the_driver_reports_arrives(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        gpu = driver.add_gpu()
        gpu.energy_joules, gpu.temperature_celsius = 1234.5, 61
        gpu.process(os.getpid())
        line = start()
        reading = line.read()
        (meter,), (state,), (use,) = reading.meters, reading.gpus, reading.gpu_uses
        assert isinstance(meter, EnergyReading)
        assert (meter.device.id, meter.joules, state.temperature_celsius) == (gpu.uuid, 1234.5, 61)
        assert use.pid == os.getpid()
        assert meter.at == pytest.approx(boot_seconds(), abs=PATIENCE_SECONDS), "the child's clock is ours"
        gpu.energy_joules = 2000
        (meter,) = line.read().meters
        assert isinstance(meter, EnergyReading)
        assert meter.joules == 2000
        assert len(children()) == 1

    def test_patience_is_a_multiple_of_the_deadline(self) -> None:
        assert Timeouts.of(0.5) == Timeouts()
        assert Timeouts.of(0.1) == pytest.approx((12, 6, 1))
        assert Timeouts.of(0.001) == (10, 3, 0.5), "to kill one that only starts slowly would do harm"

    def test_it_is_what_the_exporter_uses(self, driver: FakeDriver) -> None:
        (source,) = (source for source in build(Host(), {}) if source.name == "nvml")
        assert isinstance(source, NvmlProcess)

    def test_close_leaves_no_process(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 33: a clean stop ends the session with the driver, and leaves neither a process nor a zombie."""
        driver.add_gpu()
        line = start()
        line.read()
        line.source.close()
        assert children() == []
        assert driver.calls("nvmlShutdown") == 1
        line.source.close()
        assert line.read().meters, "the next read starts another"

    def test_without_a_library_nothing_is_started(
        self, start: Callable[..., Timeline], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fault 19."""
        monkeypatch.delenv("LD_LIBRARY_PATH")
        if any(Path(path).exists() for path in ("/dev/nvidiactl", "/proc/driver/nvidia")):
            pytest.skip("this machine has an NVIDIA driver")
        error = start().failure()
        assert (error.reason, bool(error.fix)) == ("not_found", True)
        assert children() == []

    def test_reasons_travel_with_their_fix(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        line = start()
        error = line.failure()
        assert (error.reason, error.fix) == ("not_found", "check nvidia-smi -L and dmesg")
        assert "sees no GPU" in error.message
        wait_for(lambda: not children())
        driver.add_gpu()
        assert line.read().meters

    def test_it_needs_little(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """docs/nvidia.md quotes 18 MiB; half as much again is a change to be explained."""
        for _ in range(8):
            driver.add_gpu()
        line = start()
        for _ in range(5):
            line.read()
        assert psutil.Process(only_child()).memory_info().rss < 27 << 20

    def test_what_lies_in_the_current_folder_is_not_run(
        self, driver: FakeDriver, start: Callable[..., Timeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "exporter").mkdir()
        (tmp_path / "exporter/__init__.py").write_text("raise SystemExit('wrong')\n")
        monkeypatch.chdir(tmp_path)
        driver.add_gpu()
        assert start().read().meters


class TestFaults:
    def test_upgraded_driver(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 20: the library that is loaded stays stale, whatever happens; a fresh process loads the new one."""
        driver.add_gpu()
        line = start()
        line.read()
        before = only_child()
        driver.upgrade("590.44.01")
        error = line.failure()
        assert (error.reason, "mismatch" in error.message) == ("driver", True)
        (state,) = line.read().gpus
        assert state.driver_version == "590.44.01"
        assert only_child() != before

    def test_crash_of_the_library(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 20: a library that does not match may do anything; the signal is reported, and the next try works."""
        gpu = driver.add_gpu()
        line = start()
        line.read()
        driver.crash("nvmlDeviceGetUtilizationRates")
        error = line.failure()
        assert (error.reason, "SIGSEGV" in error.message, bool(error.fix)) == ("driver", True, True)
        assert [meter.device.id for meter in line.read().meters] == [gpu.uuid]

    def test_killed_for_lack_of_memory(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        driver.add_gpu()
        line = start()
        line.read()
        os.kill(only_child(), signal.SIGKILL)
        error = line.failure()
        assert (error.reason, "SIGKILL" in error.message, "memory" in error.fix) == ("driver", True, True)

    def test_hanging_call(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 23: the child is killed, and another one is there when the driver is."""
        driver.add_gpu()
        line = start(SHORT)
        line.read()
        hung = only_child()
        driver.hang("nvmlDeviceGetFieldValues")
        error = line.failure()
        assert (error.reason, "for 0.3 s" in error.message) == ("timeout", True)
        wait_for(lambda: not psutil.pid_exists(hung))
        driver.release()
        assert line.read().meters

    def test_a_slow_start_is_no_hang(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """A driver without persistence mode initialises its cards for seconds when the first process comes."""
        driver.add_gpu()
        line = start(SHORT)
        driver.delay("nvmlInitWithFlags", seconds=0.5)
        assert line.read().meters

    def test_processes_that_even_a_kill_does_not_end_are_few(
        self, driver: FakeDriver, start: Callable[..., Timeline]
    ) -> None:
        """Fault 23: as with a process in D state, here held by a tracer. It affects nothing but itself."""
        driver.add_gpu()
        line = start(SHORT)
        held: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(3):
                line.read()
                held.append(_hold(next(child.pid for child in children() if child.status() != psutil.STATUS_ZOMBIE)))
                driver.hang("nvmlDeviceGetFieldValues")
                assert line.failure().reason == "timeout"
                driver.release()
            error = line.failure()
            assert (error.reason, error.message) == ("timeout", "3 processes hang in the driver")
            wait_for(lambda: len(children()) == 3)  # one that is about to end has no command line for a moment
        finally:
            for tracer in held:
                tracer.communicate()  # it ends with its input
        wait_for(lambda: not children())
        assert line.read().meters

    def test_starts_are_apart(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """A driver that ends every process must not keep the exporter busy with starting them."""
        driver.add_gpu()
        line = start()
        line.read()
        os.kill(only_child(), signal.SIGKILL)
        error = line.failure(0.5)
        driver.reset_calls()
        for _ in range(8):
            again = line.failure(0.5)
            assert (again.reason, again.message, again.fix) == (error.reason, error.message, error.fix)
        assert driver.calls("nvmlInitWithFlags") == 0
        assert line.read(0.6).meters, "5 s after the last start"

    def test_a_system_without_room_for_it(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 60: whichever descriptor it fails for, it reports it, leaks none, and goes on when there are enough."""
        driver.add_gpu()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in (0, 2, 4):
            line = start()
            # Earlier children give their pipes back when they are gone: that may be after close().
            wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "nvml-leaving"])
            taken = open_files()
            free = itertools.islice((number for number in itertools.count() if number not in taken), room, None)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next(free), hard))
            try:
                errors = [line.failure(), line.failure(0.1)]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert {(error.reason, error.message, bool(error.fix)) for error in errors} == {
                ("error", "cannot start a process: Too many open files", True)
            }
            assert open_files() <= taken
            assert line.read().meters
            line.source.close()

    def test_counters_of_a_card_go_on(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 20: seconds of throttling are counted by the child; another child must not begin at 0 again."""
        gpu = driver.add_gpu()
        line = start()
        line.read()
        for expected in (0.02, 0.05):
            gpu.throttle(sw_power_cap=expected - (0.02 if expected > 0.02 else 0.0))
            (state,) = line.read().gpus
            assert dict(state.throttle_seconds)["sw_power_cap"] == pytest.approx(expected)
            os.kill(only_child(), signal.SIGKILL)
            line.failure()
            (state,) = line.read().gpus
            assert dict(state.throttle_seconds)["sw_power_cap"] == pytest.approx(expected)

    def test_signalled_to_end_with_all_the_others(self, driver: FakeDriver, start: Callable[..., Timeline]) -> None:
        """Fault 33: a service manager's SIGTERM to every process, and Ctrl-C in a terminal, must not cut a call off."""
        driver.add_gpu()
        line = start()
        line.read()
        child = only_child()
        assert os.getpgid(child) != os.getpgrp()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(child, number)
        assert line.read().meters
        assert only_child() == child


def _hold(pid: int) -> subprocess.Popen[bytes]:
    """Trace a process: while the tracer lives and does not wait for it, not even SIGKILL makes it go away."""
    script = f"""
        import ctypes, sys
        if ctypes.CDLL(None, use_errno=True).ptrace(0x4206, {pid}, 0, 0):  # PTRACE_SEIZE
            sys.exit(1)
        print("held", flush=True)
        sys.stdin.read()
    """
    tracer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert tracer.stdout is not None
    if not tracer.stdout.readline():
        tracer.communicate()
        pytest.skip("this machine allows no tracing")
    return tracer


class TestBrokenInstallation:
    """What is imported as ``pynvml`` is scripted here: the first thing that the child loads by name."""

    @pytest.fixture(autouse=True)
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def install(text: str) -> None:
            (tmp_path / "pynvml.py").write_text(text)
            monkeypatch.syspath_prepend(str(tmp_path))

        return install

    def test_unexpected_exceptions_arrive_with_their_traceback(
        self, installed: Callable[[str], None], start: Callable[..., Timeline]
    ) -> None:
        installed("1 / 0\n")
        line = start()
        with pytest.raises(RuntimeError) as caught:
            line.read()
        assert str(caught.value) == "ZeroDivisionError: division by zero"
        assert "pynvml.py" in "".join(caught.value.__notes__)

    def test_last_line_of_output_is_reported(
        self, installed: Callable[[str], None], start: Callable[..., Timeline]
    ) -> None:
        installed("import os, sys\nprint('hm\\nNVRM: API mismatch', file=sys.stderr, flush=True)\nos._exit(3)\n")
        error = start().failure()
        assert error.reason == "error"
        assert error.message.endswith("ended with status 3: NVRM: API mismatch")

    def test_chatter_is_neither_an_answer_nor_a_hindrance(
        self, installed: Callable[[str], None], start: Callable[..., Timeline], capfd: pytest.CaptureFixture[str]
    ) -> None:
        chatter = "import os\nfor _ in range(200):\n try: os.write(2, b'x' * 1000)\n except BlockingIOError: pass\n"
        installed(f"{chatter}raise ImportError\n")
        error = start().failure()
        assert (error.reason, error.fix) == ("not_found", "pip install nvidia-ml-py")
        assert capfd.readouterr() == ("", "")


class TestChild:
    """The child alone, without the source that starts it."""

    def run(self, version: str = __version__, limit_seconds: float = 60.0) -> tuple[Any, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.settimeout(patience())
        command = [sys.executable, "-m", CHILD, version, "/proc", "/sys", "", str(limit_seconds)]
        with theirs:
            return subprocess.Popen(command, stdin=theirs.fileno(), stderr=subprocess.PIPE, text=True), ours

    def test_a_hung_orphan_ends_itself(self, driver: FakeDriver) -> None:
        """Fault 33: killed with SIGKILL, the exporter cannot end the child any more."""
        driver.add_gpu()
        driver.hang("nvmlDeviceGetFieldValues")
        child, ours = self.run(limit_seconds=0.5)
        with child:
            with ours:
                ours.sendall(b"1.0\n")
            assert child.wait(patience()) == -signal.SIGALRM

    def test_another_version_is_refused(self) -> None:
        """After an upgrade on disk the answers of a new child would be read by old code."""
        child, ours = self.run(version="0.0.1")
        with ours:
            _, said = child.communicate(timeout=patience())
        assert (child.returncode, "restart it" in said) == (1, True)

    def test_the_source_is_closed_when_the_input_ends(self) -> None:
        class Scripted:
            name = "scripted"
            closed = False

            def read(self, now: float) -> Reading:
                if now > 1:
                    raise Unavailable("driver", "gone", "mend it")
                return Reading(rest_seconds=now)

            def close(self) -> None:
                self.closed = True

        source, answers = Scripted(), io.BytesIO()
        serve(source, [b"0.5\n", b"2.0\n"], answers, 60.0, FastReads(lambda _: None, boot_seconds))
        answers.seek(0)
        assert [pickle.load(answers), pickle.load(answers)] == [
            Reading(rest_seconds=0.5),
            ("driver", "gone", "mend it"),
        ]
        assert source.closed
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
