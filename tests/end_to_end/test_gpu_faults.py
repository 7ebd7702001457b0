"""GPU faults 19–33 against the exporter as it runs on a node: a process, a scripted driver library, and a scraper."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

STOP_SECONDS = 5.0
"""What is promised after SIGTERM."""

WATTS = 200.0
CHILD = "exporter.sources.nvml.child"
FIELDS = "nvmlDeviceGetFieldValues"


class Scrape:
    """What one scrape shows."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def find(self, name: str, **labels: object) -> dict[tuple[tuple[str, str], ...], float]:
        """Series that have these labels, and maybe others."""
        wanted = {key: str(value) for key, value in labels.items()}
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for sample in self._samples
            if sample.name == name and wanted.items() <= sample.labels.items()
        }

    def sum(self, name: str, **labels: object) -> float | None:
        """Their sum; None where there are none."""
        found = self.find(name, **labels)
        return sum(found.values()) if found else None

    def labels(self, name: str, **labels: object) -> dict[str, str]:
        """All labels of the one series that has these."""
        (found,) = self.find(name, **labels)
        return dict(found)


class Exporter:
    """The program, with the driver's library where the dynamic linker finds it."""

    def __init__(self, folder: Path, environment: dict[str, str], timeout: str = "100ms") -> None:
        command = [sys.executable, "-m", "exporter", "--web.listen-address", "127.0.0.1:0"]
        command += ["--sample.interval", "100ms", "--source.timeout", timeout, "--state.file", f"{folder}/state"]
        command += ["--path.sysfs", f"{folder}/sys", "--path.cgroupfs", "/sys/fs/cgroup"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AI_ENERGY_", "LD_"))}
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=clean | environment, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        threading.Thread(target=self._drain, daemon=True).start()
        (self.url,) = wait_for(lambda: re.findall(r"http://\S+/metrics", "".join(list(self.lines))))

    def _drain(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)

    def scrape(self) -> Scrape:
        deadline = time.monotonic() + patience()
        while True:
            try:
                with urllib.request.urlopen(self.url, timeout=patience()) as answer:
                    return Scrape(answer.read().decode())
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)  # before the first sample

    def wait(self, what: Callable[[Scrape], Any]) -> Scrape:
        """Scrape until something is to be seen."""
        deadline = time.monotonic() + patience()
        while not what(scrape := self.scrape()):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.05)
        return scrape

    def up(self, value: int = 1) -> Scrape:
        """Wait until the source is up, or down."""
        return self.wait(lambda scrape: scrape.sum("energy_source_up", source="nvml") == value)

    def child(self) -> int:
        """Pid of the process that calls the driver."""
        (pid,) = wait_for(lambda: driver_processes(self.process.pid))
        return int(pid)

    def logged(self, *texts: str) -> str:
        """The first line of the log that holds these texts."""
        return str(wait_for(lambda: next((line for line in list(self.lines) if all(t in line for t in texts)), "")))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


class Lab:
    """Cards that use joules, and processes on them, while readings are taken."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self._lock = threading.Lock()
        self._watts: dict[str, tuple[Gpu, float]] = {}
        self._loads: dict[tuple[str, int], tuple[Gpu, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def card(self, **options: Any) -> Gpu:
        """Plug in a card that burns nothing yet; its counter has seen much."""
        gpu = self.driver.add_gpu(**options)
        gpu.energy_joules, gpu.power_watts = 5000.0, 0
        return gpu

    def burn(self, watts: float, *gpus: Gpu) -> None:
        """From now on."""
        with self._lock:
            for gpu in gpus:
                self._watts[gpu.uuid] = gpu, watts
                gpu.power_watts = watts

    def use(self, gpu: Gpu, pid: int, percent: int) -> None:
        """Let a process use that much of the SMs' time from now on."""
        with self._lock:
            self._loads[gpu.uuid, pid] = gpu, percent

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.02):
            now = time.monotonic()
            with self._lock:
                for gpu, watts in self._watts.values():
                    if watts:
                        gpu.energy_joules += watts * (now - last)
                for (_, pid), (gpu, percent) in self._loads.items():
                    gpu.sample(pid, percent)
            last = now


def driver_processes(parent: int) -> list[int]:
    try:
        children = psutil.Process(parent).children()
        return [child.pid for child in children if is_alive(child.pid) and CHILD in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def joules(scrape: Scrape, gpu: Gpu) -> float | None:
    return scrape.sum("energy_device_joules_total", device=gpu.uuid)


@pytest.fixture
def lab(library: Path, tmp_path: Path) -> Iterator[Lab]:
    with FakeDriver(library, tmp_path) as driver:
        made = Lab(driver)
        yield made
        made.stop()


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Exporter]]:
    started: list[Exporter] = []

    def start_one(timeout: str = "100ms") -> Exporter:
        started.append(Exporter(tmp_path, lab.driver.environment(), timeout))
        return started[-1]

    yield start_one
    for exporter in started:
        finish(exporter)


def finish(exporter: Exporter) -> None:
    if exporter.process.poll() is None:
        exporter.end(signal.SIGKILL)
    wait_for(lambda: exporter.process.stderr is None or exporter.process.stderr.closed)


class TestDriver:
    """What concerns all cards."""

    def test_no_library(self, tmp_path: Path) -> None:
        """Fault 19: the source reports it, no process is started for it, everything else continues."""
        if any(Path(path).exists() for path in ("/dev/nvidiactl", "/proc/driver/nvidia")):
            pytest.skip("this machine has an NVIDIA driver")
        exporter = Exporter(tmp_path, {})
        try:
            scrape = exporter.wait(lambda scrape: scrape.sum("energy_device_power_watts", source="estimate"))
            assert scrape.sum("energy_source_up", source="nvml") == 0
            assert (scrape.sum("energy_source_failures_total", source="nvml", reason="not_found") or 0) >= 1
            assert not scrape.find("energy_device_joules_total", component="gpu")
            assert "install the driver" in exporter.logged("source=nvml")
            assert psutil.Process(exporter.process.pid).children() == []
            assert exporter.end(signal.SIGTERM) == 0
        finally:
            finish(exporter)

    def test_upgrade(self, lab: Lab, start: Callable[..., Exporter]) -> None:
        """Faults 20 and 21: a fresh process loads the new library; no joule is lost and no total falls."""
        gpu = lab.card()
        exporter = start()
        exporter.up()
        first, seen = exporter.child(), gpu.energy_joules
        lab.burn(WATTS, gpu)
        before = joules(exporter.wait(lambda scrape: (joules(scrape, gpu) or 0) > 20), gpu)
        lab.driver.upgrade("590.44.01")
        scrape = exporter.wait(lambda scrape: scrape.find("energy_gpu_info", driver_version="590.44.01"))
        assert exporter.child() != first
        assert not is_alive(first)
        assert (joules(scrape, gpu) or 0) >= (before or 0) > 0
        assert "mismatch" in exporter.logged("reason=driver")
        lab.burn(0, gpu)
        # The counter went on, and so did the meter: not one joule of the time in between is missing.
        exporter.wait(lambda scrape: joules(scrape, gpu) == pytest.approx(gpu.energy_joules - seen, abs=0.01))

        # Now the module alone is replaced: until it matches again the source is down, and reports the fix.
        lab.driver.break_all(control.LIB_RM_VERSION_MISMATCH)
        scrape = exporter.up(0)
        assert scrape.sum("energy_device_up", device=gpu.uuid) == 0
        assert joules(scrape, gpu) is not None
        assert not scrape.find("energy_device_power_watts", device=gpu.uuid)
        total = joules(scrape, gpu)
        gpu.energy_joules = 1.0
        lab.driver.break_all(0)
        exporter.up()
        scrape = exporter.wait(lambda scrape: scrape.sum("energy_meter_resets_total", device=gpu.uuid) == 1)
        assert joules(scrape, gpu) == total
        gpu.energy_joules = 31.0
        exporter.wait(lambda scrape: joules(scrape, gpu) == pytest.approx((total or 0) + 30))

    def test_crash(self, lab: Lab, start: Callable[..., Exporter]) -> None:
        """Fault 20: a library that does not fit its module may crash; the exporter does not."""
        gpu = lab.card()
        exporter = start()
        exporter.up()
        lab.driver.crash(FIELDS)
        assert "SIGSEGV" in exporter.logged("reason=driver")
        exporter.wait(lambda scrape: scrape.sum("energy_source_failures_total", source="nvml", reason="driver"))
        assert joules(exporter.up(), gpu) is not None
        assert exporter.end(signal.SIGTERM) == 0

    def test_hang(self, lab: Lab, start: Callable[..., Exporter]) -> None:
        """Fault 23: reported at once, killed after a while, and restarted in another process when the driver works."""
        gpu = lab.card()
        exporter = start(timeout="50ms")  # patience: 3 s
        exporter.up()
        hung, samples = exporter.child(), exporter.scrape().sum("energy_samples_total") or 0
        lab.driver.hang(FIELDS)
        scrape = exporter.up(0)
        assert (scrape.sum("energy_source_failures_total", source="nvml", reason="timeout") or 0) >= 1
        assert is_alive(hung), "it gets its chance"
        scrape = exporter.wait(lambda scrape: (scrape.sum("energy_samples_total") or 0) > samples + 10)
        assert scrape.find("energy_device_power_watts", source="estimate"), "the others are read on time"
        wait_for(lambda: not is_alive(hung))
        lab.driver.release()
        exporter.up()
        assert exporter.child() != hung
        assert joules(exporter.scrape(), gpu) is not None

        lab.driver.hang(FIELDS)
        exporter.up(0)
        child = exporter.child()
        assert exporter.end(signal.SIGTERM) == 0, "a clean stop, although a call hangs"
        lab.driver.release()
        wait_for(lambda: not is_alive(child))


class TestEnd:
    """Fault 33: no call into the driver is cut off if that can be helped."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_in_the_middle_of_a_call(self, lab: Lab, start: Callable[..., Exporter], number: int) -> None:
        """Fault 33: however the exporter ends, its child finishes the call, and then its session with the driver."""
        lab.card()
        exporter = start()
        exporter.up()
        child = exporter.child()
        lab.driver.hang(FIELDS)
        wait_for(lambda: lab.driver.hanging(FIELDS))
        exporter.end(number)
        assert is_alive(child)
        assert lab.driver.calls("nvmlShutdown") == 0
        lab.driver.release()
        wait_for(lambda: not is_alive(child))
        assert lab.driver.calls("nvmlShutdown") == 1

    def test_between_calls(self, lab: Lab, start: Callable[..., Exporter]) -> None:
        """Fault 33: a clean stop waits for the read it is in, and leaves no process behind."""
        lab.card()
        lab.driver.delay(FIELDS, seconds=0.03)
        exporter = start()
        exporter.up()
        child = exporter.child()
        os.kill(child, signal.SIGTERM)  # like a service manager that signals every process
        exporter.process.send_signal(signal.SIGHUP)
        exporter.logged("settings reloaded")
        assert exporter.child() == child
        assert exporter.end(signal.SIGTERM) == 0
        assert not psutil.pid_exists(child)
        assert lab.driver.calls("nvmlShutdown") == 1

    def test_commands_that_print_and_end(self, lab: Lab, tmp_path: Path) -> None:
        """Fault 33: ``doctor`` and ``--once`` leave no session with the driver and no process."""
        lab.card()
        printed = []
        for argument in ("doctor", "--once"):
            command = [sys.executable, "-m", "exporter", argument, "--path.sysfs", f"{tmp_path}/sys"]
            command += ["--sample.interval", "300ms"]
            environment = os.environ | lab.driver.environment()
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
            printed.append(done.stdout)
        assert "GPU 0: NVIDIA H100 80GB HBM3" in printed[0]
        assert "nvml         works" in printed[0]
        assert Scrape(printed[1]).find("energy_source_up", source="nvml")
        opened = lab.driver.calls("nvmlInitWithFlags")
        assert opened >= 1
        wait_for(lambda: lab.driver.calls("nvmlShutdown") == opened)


class Ward:
    """One exporter and a dozen cards, each of which gets a fault of its own while it is watched.

    Started first: some faults show after ten seconds, which the other tests use.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.unplugged, self.well, self.reset, self.lost = (lab.card() for _ in range(4))
        self.bare, self.frozen, self.stale = (lab.card() for _ in range(3))
        self.sliced = lab.card(mig=["3g.40gb", "1g.10gb"])
        self.foreign, self.shared, self.left, self.right, self.served = (lab.card() for _ in range(5))
        self.worker, self.idler = self.run(), self.run()
        self.server, self.client = self.run("nvidia-cuda-mps-server"), self.run()
        self.stranger = 4_000_000  # above the kernel's default pid_max
        for gpu in (self.shared, self.left, self.right):
            gpu.process(self.worker)
        self.shared.process(self.idler)
        self.foreign.process(self.stranger)
        self.served.process(self.server)
        self.served.process(self.client, kind="mps")
        self.exporter = Exporter(folder, lab.driver.environment())
        self.healthy = self.exporter.wait(
            lambda scrape: len(scrape.find("energy_device_power_watts", source="nvml")) == len(lab.driver.gpus)
        )
        self.seen = {gpu.uuid: gpu.energy_joules for gpu in lab.driver.gpus}
        lab.burn(WATTS, *lab.driver.gpus)
        self.exporter.wait(lambda scrape: all((joules(scrape, gpu) or 0) > 0 for gpu in lab.driver.gpus))

    def run(self, name: str = "sleep") -> int:
        """Start a process of that name."""
        program = self.folder / name
        if not program.exists():
            shutil.copy2(shutil.which("sleep") or "/bin/sleep", program)
        self.processes.append(subprocess.Popen([str(program), "600"]))
        return self.processes[-1].pid

    def strike(self) -> None:
        """Let everything go wrong at once."""
        lab = self.lab
        lab.use(self.shared, self.worker, 60)
        for gpu, percent in ((self.left, 90), (self.right, 10)):
            lab.use(gpu, self.worker, percent)
        lab.use(self.foreign, self.stranger, 50)
        lab.use(self.served, self.server, 80)
        self.before = self.exporter.up()
        self.lost.lose()
        lab.burn(0, self.frozen, self.bare, self.stale)
        self.bare.energy_joules = self.bare.temperature_celsius = None
        self.frozen.power_watts = self.bare.power_watts = WATTS
        self.stale.repeat()
        self.sliced.set_mig(["7g.80gb"])
        self.wait(lambda scrape: scrape.sum("energy_device_up", device=self.lost.uuid) == 0)
        self.added = lab.card(uuid="GPU-added")

    def wait(self, what: Callable[[Scrape], Any]) -> Scrape:
        return self.exporter.wait(what)

    def close(self) -> None:
        finish(self.exporter)
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", autouse=True)
def ward(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    with FakeDriver(library, folder) as driver:
        made = Ward(Lab(driver), folder)
        try:
            made.strike()
            yield made
        finally:
            made.close()
            made.lab.stop()


class TestCards:
    """What concerns one card, or its users; the others go on."""

    def test_lost(self, ward: Ward) -> None:
        """Fault 22: down, without watts and state, its joules kept; the source is up for the others."""
        uuid = ward.lost.uuid
        assert ward.healthy.sum("energy_device_up", device=uuid) == 1
        scrape = ward.wait(
            lambda scrape: (
                scrape.sum("energy_device_up", device=uuid) == 0
                and scrape.sum("energy_device_up", device=ward.well.uuid) == 1
                and scrape.sum("energy_source_up", source="nvml") == 1
            )
        )
        assert not scrape.find("energy_device_power_watts", device=uuid)
        assert not scrape.find("energy_gpu_temperature_celsius", uuid=uuid)
        assert (joules(scrape, ward.lost) or 0) > 0
        ward.exporter.logged(uuid, "nvidia-smi --gpu-reset")

    def test_not_supported(self, ward: Ward) -> None:
        """Fault 24: its power is integrated, as the series reports; values it does not report are absent, not 0."""
        uuid = ward.bare.uuid
        assert ward.healthy.labels("energy_power_source_info", device=uuid)["method"] == "energy_counter"
        assert ward.healthy.sum("energy_gpu_temperature_celsius", uuid=uuid) == 35
        ward.wait(lambda scrape: scrape.find("energy_power_source_info", device=uuid, method="power_integrated"))
        scrape = ward.wait(lambda scrape: scrape.sum("energy_device_power_watts", device=uuid) == WATTS)
        assert not scrape.find("energy_gpu_temperature_celsius", uuid=uuid)
        assert scrape.find("energy_gpu_memory_total_bytes", uuid=uuid)

    def test_new_cards_and_new_places(self, ward: Ward) -> None:
        """Faults 31 and 32: one is added, the first is removed and all others move up; each keeps its identity."""
        ward.wait(lambda scrape: scrape.find("energy_gpu_info", uuid=ward.added.uuid))
        assert ward.before.labels("energy_gpu_info", uuid=ward.well.uuid)["gpu"] == "1"
        ward.unplugged.remove()
        scrape = ward.wait(lambda scrape: scrape.find("energy_gpu_info", uuid=ward.well.uuid, gpu=0))
        assert not scrape.find("energy_gpu_info", uuid=ward.unplugged.uuid)
        assert joules(scrape, ward.unplugged) is not None
        ward.lab.burn(0, ward.well)
        burned = ward.well.energy_joules - ward.seen[ward.well.uuid]
        ward.wait(lambda scrape: joules(scrape, ward.well) == pytest.approx(burned, abs=0.01))

    def test_stale_values(self, ward: Ward) -> None:
        """Fault 27: the driver answers, but with what it answered before: the age of that shows, per card."""
        name, uuid = "energy_device_last_reading_timestamp_seconds", ward.stale.uuid
        scrape = ward.wait(
            lambda scrape: (
                (scrape.sum(name, device=ward.left.uuid) or 0) - (scrape.sum(name, device=uuid) or 0) > 1
                and scrape.sum("energy_source_up", source="nvml") == 1
            )
        )
        assert scrape.sum("energy_device_up", device=uuid) == 0
        known = joules(scrape, ward.stale)
        assert known is not None
        ward.stale.repeat(False)
        ward.stale.energy_joules += 70
        ward.wait(lambda scrape: scrape.sum("energy_device_up", device=uuid) == 1)
        ward.wait(lambda scrape: joules(scrape, ward.stale) == pytest.approx(known + 70, abs=0.01))

    def test_counter_that_goes_back(self, ward: Ward) -> None:
        """Fault 25: counted as a reset, never as a negative charge; the total goes on from where it was."""
        gpu = ward.reset
        ward.lab.burn(0, gpu)
        burned = gpu.energy_joules - ward.seen[gpu.uuid]
        ward.wait(lambda scrape: joules(scrape, gpu) == pytest.approx(burned, abs=0.01))
        gpu.energy_joules = 0
        ward.wait(lambda scrape: scrape.sum("energy_meter_resets_total", device=gpu.uuid) == 1)
        gpu.energy_joules = 12
        ward.wait(lambda scrape: joules(scrape, gpu) == pytest.approx(burned + 12, abs=0.01))

    def test_shares(self, ward: Ward) -> None:
        """Faults 29 and 30: by samples where there are any, per card; one that holds a card idle pays idle joules."""

        def joules_of(scrape: Scrape, pid: int, mode: str = "active") -> float:
            return scrape.sum("energy_process_joules_total", pid=pid, component="gpu", mode=mode) or 0.0

        pids = (ward.worker, ward.idler, ward.client)
        scrape = ward.wait(
            lambda s: (
                joules_of(s, ward.worker) > 0
                and joules_of(s, ward.client) > 0
                and all(joules_of(s, pid, "idle") > 0 for pid in pids)
            )
        )
        assert joules_of(scrape, ward.idler) == 0
        assert joules_of(scrape, ward.server) == joules_of(scrape, ward.server, "idle") == 0, "its clients are charged"
        cards = len(scrape.find("energy_device_up", source="nvml"))
        busy = (0.6 + 0.9 + 0.1) / cards
        ward.wait(
            lambda s: (
                0.5 * busy
                < (s.sum("energy_process_utilization_ratio", pid=ward.worker, component="gpu") or 0)
                < 1.1 * busy
            )
        )

    def test_processes_of_another_namespace(self, ward: Ward) -> None:
        """Fault 28: use of pids that are not found here is unattributed, and the fix is reported."""
        scrape = ward.wait(
            lambda scrape: (
                (scrape.sum("energy_source_failures_total", source="nvml", reason="not_found") or 0) >= 1
                and (scrape.sum("energy_unattributed_joules_total", component="gpu", reason="unknown") or 0) > 0
            )
        )
        assert "hostPID: true" in ward.exporter.logged("another pid namespace")
        assert not scrape.find("energy_process_joules_total", pid=ward.stranger)
        assert (scrape.sum("energy_conservation_error_ratio") or 0) < 1e-9

    def test_changed_layout(self, ward: Ward) -> None:
        """Fault 26: the old instances end, the new one begins, the card's joules go on."""
        uuid = ward.sliced.uuid

        def instances(scrape: Scrape) -> set[str]:
            found = scrape.find("energy_gpu_memory_total_bytes", uuid=uuid)
            return {value for labels in found for key, value in labels if key == "gpu_instance"}

        assert len(instances(ward.before)) == 3
        scrape = ward.wait(lambda scrape: len(instances(scrape)) == 2)
        assert (joules(scrape, ward.sliced) or 0) > (joules(ward.before, ward.sliced) or 0)

    def test_frozen_counter(self, ward: Ward) -> None:
        """Fault 25: a counter that stands still while the card draws power is replaced by that power."""
        uuid = ward.frozen.uuid
        assert ward.before.labels("energy_power_source_info", device=uuid)["method"] == "energy_counter"
        ward.wait(lambda scrape: scrape.find("energy_power_source_info", device=uuid, method="power_integrated"))
        ward.wait(lambda scrape: scrape.sum("energy_device_power_watts", device=uuid) == WATTS)
        ward.exporter.logged(uuid, "the energy counter does not advance")

    def test_the_program_did_not_notice(self, ward: Ward) -> None:
        """Faults 22–32: through all of it one process served, one child read, and the totals add up."""
        assert ward.exporter.process.poll() is None
        scrape = ward.exporter.scrape()
        assert (scrape.sum("energy_conservation_error_ratio") or 0) < 1e-9
        assert not any("level=error" in line for line in ward.exporter.lines)
        child = ward.exporter.child()
        assert ward.exporter.end(signal.SIGTERM) == 0
        assert not psutil.pid_exists(child)
