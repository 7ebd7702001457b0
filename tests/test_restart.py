"""Killed in mid-run and started again on the same state file: no counter falls, no joule of a device is lost."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 20.0
RANGE_MICROJOULES = 65_532_610_987
WATTS = 60.0

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Meter:
    """A written powercap package zone, driven at 60 W by a thread of its own."""

    def __init__(self, sysfs: Path) -> None:
        zone = sysfs / "class/powercap/intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE_MICROJOULES}\n")
        self._path = zone / "energy_uj"
        self._began = time.monotonic()
        self._start = RANGE_MICROJOULES - 200e6
        self._stop = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self._write()

    def _write(self) -> None:
        # The width never changes, so that no reader sees half of an old number behind a new one.
        value = int(self._start + self.joules() * 1e6) % RANGE_MICROJOULES
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(b"%012d\n" % value)

    def joules(self) -> float:
        """True joules since the zone began."""
        return (time.monotonic() - self._began) * WATTS

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Exporter:
    """The program, in a process that may be killed."""

    def __init__(self, *flags: str) -> None:
        command = [
            sys.executable,
            "-m",
            "exporter",
            "--sample.interval",
            "100ms",
            "--web.listen-address",
            "127.0.0.1:0",
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AI_ENERGY_")}
        self.process = subprocess.Popen(
            [*command, *flags], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._drain, args=(lines,), daemon=True).start()
        while not (found := re.search(r"http://\S+/metrics", line := lines.get(timeout=PATIENCE_SECONDS))):
            assert "level=error" not in line, line
        self.url = found[0]

    def _drain(self, lines: queue.SimpleQueue[str]) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                lines.put(line)

    def scrape(self) -> Series:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    text = answer.read().decode()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)  # before the first sample
                continue
            return {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

    def end(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    meter = Meter(tmp_path / "sys")
    yield meter
    meter.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Exporter]]:
    started: list[Exporter] = []

    def start_one() -> Exporter:
        cgroupfs = ["--path.cgroupfs", "/sys/fs/cgroup"]
        started.append(Exporter("--path.sysfs", f"{tmp_path}/sys", *cgroupfs, "--state.file", f"{tmp_path}/state"))
        return started[-1]

    yield start_one
    for exporter in started:
        exporter.end(signal.SIGKILL)


def counters(series: Series) -> Series:
    """Joules of everything but processes that may have ended meanwhile, and the exporter's own."""
    kept = ("energy_node_", "energy_device_", "energy_container_", "energy_unattributed_", "energy_retired_")
    return {key: value for key, value in series.items() if key[0].startswith(kept) and key[0].endswith("_joules_total")}


def device_joules(series: Series) -> float:
    return sum(value for (name, _), value in series.items() if name == "energy_device_joules_total")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_falls_and_nothing_is_lost(start: Callable[[], Exporter], meter: Meter, number: int) -> None:
    """Fault 53."""
    first = start()
    before = first.scrape()
    while device_joules(before) == 0:
        time.sleep(0.05)
        before = first.scrape()
    base_true, base_told = meter.joules(), device_joules(before)
    time.sleep(1.5)
    # The counter of the last scrape before the kill is what Prometheus remembers.
    last = counters(first.scrape())
    first.end(number)
    time.sleep(2.5)  # the zone wraps while nobody looks

    second = start()
    back = counters(second.scrape())
    assert {key: (value, back.get(key)) for key, value in last.items() if back.get(key, -1.0) < value} == {}
    time.sleep(0.5)
    after = second.scrape()
    told, true = device_joules(after) - base_told, meter.joules() - base_true
    # One sample and the meter's own 5 ms may be under way.
    assert told == pytest.approx(true, abs=WATTS * 0.4)
    gap = sum(
        v
        for (name, labels), v in after.items()
        if name == "energy_unattributed_joules_total" and ("reason", "gap") in labels
    )
    assert gap == pytest.approx(WATTS * 2.5, abs=WATTS * 2)
    assert after["energy_conservation_error_ratio", ()] <= 1e-9


def test_after_a_reboot_accounts_go_on_but_sensors_start_anew(
    tmp_path: Path, start: Callable[[], Exporter], meter: Meter
) -> None:
    """Fault 54: the boot id in the file is another one; a sensor value of that boot means nothing now."""
    first = start()
    while device_joules(series := first.scrape()) < WATTS / 4:
        time.sleep(0.05)
    first.end(signal.SIGTERM)
    from exporter.accounting.checkpoint import decode, encode

    state = decode((tmp_path / "state").read_bytes())
    state.boot_id = "another-boot"
    (tmp_path / "state").write_bytes(encode(state, whole=True))
    time.sleep(1.0)
    back = start().scrape()
    assert device_joules(back) >= device_joules(series)
    assert device_joules(back) == pytest.approx(state.books.devices["package-0"], abs=WATTS * 0.5)
    assert ("energy_unattributed_joules_total", (("component", "cpu"), ("reason", "gap"))) not in back
