"""Killed in mid-run and started again on the same state file: no counter falls, no joule of a device is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live import WATTS, Exporter, Meter, Scrape


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


def counters(series: Scrape) -> Scrape:
    """Joules of everything but processes that may have ended meanwhile, and the exporter's own."""
    kept = ("energy_node_", "energy_device_", "energy_container_", "energy_unattributed_", "energy_retired_")
    found = {
        key: value for key, value in series.items() if key[0].startswith(kept) and key[0].endswith("_joules_total")
    }
    return Scrape(found)


def device_joules(series: Scrape) -> float:
    return series.total("energy_device_joules_total")


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
    watched_until = meter.joules()
    last = counters(first.scrape())
    first.end(number)
    time.sleep(2.5)  # the zone wraps while nobody looks

    second = start()
    back = counters(second.scrape())
    watched_again = meter.joules()
    assert {key: (value, back.get(key)) for key, value in last.items() if back.get(key, -1.0) < value} == {}
    time.sleep(0.5)
    after = second.scrape()
    told, true = device_joules(after) - base_told, meter.joules() - base_true
    # One sample and the meter's own 5 ms may be under way.
    assert told == pytest.approx(true, abs=WATTS * 0.4)
    gap = after.total("energy_unattributed_joules_total", reason="gap")
    assert WATTS * 2.5 * 0.9 <= gap <= watched_again - watched_until + WATTS * 0.4
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
