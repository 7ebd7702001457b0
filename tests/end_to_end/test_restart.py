"""Killed in mid-run and started again on the same state file: no counter falls, no joule of a device is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live import RANGE_MICROJOULES, WATTS, Audit, Exporter, Meter, Scrape
from tests.support.patience import wait_for


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    meter = Meter(tmp_path / "sys")
    yield meter
    meter.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Exporter]]:
    started: list[Exporter] = []

    def start_one(*flags: str) -> Exporter:
        kept = ["--path.cgroupfs", "/sys/fs/cgroup", "--state.file", f"{tmp_path}/state"]
        started.append(Exporter("--path.sysfs", f"{tmp_path}/sys", *kept, *flags))
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


def held(exporter: Exporter, meter: Meter) -> tuple[float, Scrape]:
    """Let the zone stand still: what it shows, in joules, and a scrape that has all of it."""
    zone = meter.hold()
    held_at = time.time()

    def read() -> bool:
        scrape = exporter.scrape()
        when = scrape.find("energy_device_last_reading_timestamp_seconds", device="package-0")
        return any(at > held_at for _, at in when) and scrape.total("energy_device_up") == 1

    wait_for(read, "a reading of it")
    return int(zone.read_text()) / 1e6, exporter.scrape()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_falls_and_nothing_is_lost(start: Callable[..., Exporter], meter: Meter, number: int) -> None:
    """Fault 53. What Prometheus remembers is the last scrape before the end."""
    first = start()
    wait_for(lambda: device_joules(first.scrape()) > WATTS / 4, "joules")
    stood, last = held(first, meter)
    first.end(number)
    ended = time.monotonic()
    meter.go_on()
    time.sleep(2.5)

    away = time.monotonic() - ended
    second = start()
    back = counters(second.scrape())
    assert {key: (value, back.get(key)) for key, value in counters(last).items() if back.get(key, -1.0) < value} == {}
    stands, after = held(second, meter)
    counted = device_joules(after) - device_joules(last)
    assert counted == pytest.approx((stands - stood) % (RANGE_MICROJOULES / 1e6), abs=1e-3)
    assert WATTS * away * 0.9 <= after.total("energy_unattributed_joules_total", reason="gap") <= counted
    assert after["energy_conservation_error_ratio", ()] <= 1e-9


def test_a_meter_that_is_not_there_yet_keeps_its_counter(
    tmp_path: Path, start: Callable[..., Exporter], meter: Meter
) -> None:
    """Faults 8 and 53: the driver is loaded after the exporter. In every scrape the devices make the node."""
    labels = {"component": "cpu", "device": "package-0", "source": "rapl"}
    first = start("--no-source.estimate")
    wait_for(lambda: device_joules(first.scrape()) > WATTS / 4, "joules")
    last = first.scrape()
    meter.hold()
    first.end(signal.SIGKILL)
    powercap = tmp_path / "sys/class/powercap"
    powercap.rename(tmp_path / "unloaded")

    second, audit = start("--no-source.estimate"), Audit()
    for _ in range(3):
        away = second.scrape()
        audit.hear(away)
        assert [found for found, _ in away.find("energy_device_joules_total")] == [labels]
        assert device_joules(last) <= device_joules(away) == away.total("energy_node_joules_total")
        assert away.find("energy_device_up") == [(labels, 0.0)]
        assert not away.find("energy_device_power_watts") + away.find("energy_device_idle_watts")
        time.sleep(0.1)
    (tmp_path / "unloaded").rename(powercap)
    meter.go_on()
    wait_for(lambda: second.scrape().find("energy_device_up") == [(labels, 1.0)], "the meter")
    wait_for(lambda: device_joules(second.scrape()) > device_joules(away), "its joules")
    back = second.scrape()
    audit.hear(back)
    assert device_joules(back) == back.total("energy_node_joules_total")
    assert audit.broken == []


def test_after_a_reboot_accounts_go_on_but_sensors_start_anew(
    tmp_path: Path, start: Callable[..., Exporter], meter: Meter
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
    assert device_joules(back) == pytest.approx(state.devices.joules["package-0"], abs=WATTS * 0.5)
    assert ("energy_unattributed_joules_total", (("component", "cpu"), ("reason", "gap"))) not in back
