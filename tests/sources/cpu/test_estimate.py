"""The modelled CPU: an exact integral between published bounds, for machines without a meter."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.host import Host
from exporter.records import EnergyReading, Reading, Unavailable
from exporter.sources.cpu.estimate import EstimateSource, coefficients_of
from tests.support import machine as machines

HERTZ = os.sysconf("SC_CLK_TCK")


class Vm:
    """A VM whose clock and CPU ticks a test moves."""

    def __init__(self, root: Path, cpus: int = 2, cpuinfo: str = "") -> None:
        self.stat = root / "proc/stat"
        self.online = root / "sys/devices/system/cpu/online"
        for folder in (self.stat.parent, self.online.parent):
            folder.mkdir(parents=True)
        (root / "proc/cpuinfo").write_text(cpuinfo)
        self.cpus = cpus
        self.online.write_text(f"0-{cpus - 1}\n")
        self.now = 1000.0
        self.ticks = {"user": 0, "nice": 0, "system": 0, "idle": 0, "iowait": 0, "irq": 0, "softirq": 0, "steal": 0}
        self.host = Host(str(root / "proc"), str(root / "sys"), clock=lambda: self.now)
        self.write()

    def write(self) -> None:
        counts = " ".join(str(count) for count in self.ticks.values())
        self.stat.write_text(f"cpu  {counts} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nbtime 1767225600\n")

    def run(self, seconds: float, **busy_seconds: float) -> None:
        """Let time pass; each argument is a kind of CPU time, the rest of what passed is idle."""
        self.now += seconds
        for kind, spent in busy_seconds.items():
            self.ticks[kind] += round(spent * HERTZ)
        self.ticks["idle"] += round(max(0.0, seconds * self.cpus - sum(busy_seconds.values())) * HERTZ)
        self.write()


def joules(reading: Reading) -> float:
    (meter,) = reading.meters
    assert isinstance(meter, EnergyReading)
    assert meter.wraps_at is None
    return meter.joules


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    return Vm(tmp_path)


def test_device_is_marked_as_an_estimate(vm: Vm) -> None:
    """Measured and estimated are never mixed silently; idle power is the model's own."""
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 5.0))
    reading = source.read(vm.now)
    assert joules(reading) == 0.0
    assert reading.bounds == ()
    device = reading.meters[0].device
    assert (device.id, device.component, device.quality) == ("cpu-estimate", "cpu", "estimated")
    assert (device.source, device.method, device.within) == ("estimate", "utilization_model", None)
    assert (device.capacity, device.idle_watts) == (2.0, 2.0)


def test_idle_full_and_half(vm: Vm) -> None:
    """n × (min + (max − min) × utilisation), over 10 s each."""
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 5.0))
    source.read(vm.now)
    vm.run(10.0)
    assert joules(source.read(vm.now)) == pytest.approx(20.0)
    vm.run(10.0, user=20.0)
    assert joules(source.read(vm.now)) == pytest.approx(20.0 + 100.0)
    vm.run(10.0, user=10.0)
    assert joules(source.read(vm.now)) == pytest.approx(20.0 + 100.0 + 60.0)


@pytest.mark.parametrize(
    ("kind", "busy"),
    [
        *((kind, True) for kind in ("user", "nice", "system", "irq", "softirq")),
        *((kind, False) for kind in ("idle", "iowait", "steal")),
    ],
)
def test_what_counts_as_busy(vm: Vm, kind: str, busy: bool) -> None:
    """Stolen time ran someone else's work; iowait ran nothing (proc_stat(5))."""
    source = EstimateSource(vm.host, watts_per_cpu=(0.0, 1.0))
    source.read(vm.now)
    vm.run(10.0, **{kind: 4.0})
    assert joules(source.read(vm.now)) == pytest.approx(4.0 if busy else 0.0)


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 1.2)), min_size=1, max_size=12),
    cpus=st.integers(1, 8),
    idle=st.floats(0.0, 5.0),
    dynamic=st.floats(0.0, 10.0),
)
def test_integral_stays_between_idle_and_full(
    steps: list[tuple[float, float]], cpus: int, idle: float, dynamic: float
) -> None:
    """Joules never fall and lie between all-idle and all-busy, even where ticks claim more than there was."""
    with tempfile.TemporaryDirectory() as folder:
        vm = Vm(Path(folder), cpus)
        source = EstimateSource(vm.host, watts_per_cpu=(idle, idle + dynamic))
        began, last = vm.now, joules(source.read(vm.now))
        for seconds, utilization in steps:
            vm.run(seconds, user=seconds * cpus * utilization)
            reading = source.read(vm.now)
            used, passed = joules(reading), (vm.now - began) * cpus
            assert used >= last - 1e-9
            assert passed * idle - 1e-6 <= used <= passed * (idle + dynamic) + 1e-6
            for bounds in reading.bounds:
                assert 0.0 <= bounds.low_watts <= bounds.high_watts
            last = used


@given(cuts=st.lists(st.integers(1, 99), unique=True, max_size=6).map(sorted))
def test_joules_do_not_depend_on_how_often_it_is_read(cuts: list[int]) -> None:
    """The integral is exact: 100 s at half load are 100 s at half load."""
    with tempfile.TemporaryDirectory() as folder:
        vm = Vm(Path(folder), cpus=4)
        source = EstimateSource(vm.host, watts_per_cpu=(0.74, 3.5))
        source.read(vm.now)
        for seconds in (b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)):
            vm.run(seconds, system=seconds * 2.0)
            final = joules(source.read(vm.now))
        assert final == pytest.approx(4 * 100 * 0.74 + (3.5 - 0.74) * 200)


def test_ticks_ahead_of_the_clock_are_credited_later(vm: Vm) -> None:
    """/proc/stat counts in ticks: what it counts too early is not lost, only late."""
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 5.0))
    source.read(vm.now)
    vm.run(0.001, user=0.02)
    reading = source.read(vm.now)
    assert joules(reading) == pytest.approx(0.001 * 2 * 5.0)
    assert reading.bounds[0].high_watts == 2 * 5.0
    vm.run(0.999, user=0.98)
    assert joules(source.read(vm.now)) == pytest.approx(2 * 1.0 + 4.0 * 1.0)


def test_bounds_are_the_spread_of_current_servers_at_this_utilisation(vm: Vm) -> None:
    """Idle: EPYC 3rd Gen is lowest, Sapphire Rapids highest; the estimate lies between."""
    source = EstimateSource(vm.host)
    source.read(vm.now)
    vm.run(10.0)
    (bounds,) = source.read(vm.now).bounds
    assert (bounds.device, bounds.low_watts, bounds.high_watts) == ("cpu-estimate", 2 * 0.46, 2 * 1.04)
    vm.run(10.0, user=20.0)
    (bounds,) = source.read(vm.now).bounds
    assert (bounds.low_watts, bounds.high_watts) == pytest.approx((2 * 1.69, 2 * 4.48))


@given(utilization=st.floats(0.0, 1.0), model=st.sampled_from([45, 62, 63, 79, 85, 106, 143, 158, 173, 207, 999]))
def test_bounds_contain_the_estimate(utilization: float, model: int) -> None:
    """Also for processors older than any current server."""
    with tempfile.TemporaryDirectory() as folder:
        vm = Vm(Path(folder), cpus=2, cpuinfo=f"vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n")
        source = EstimateSource(vm.host)
        source.read(vm.now)
        vm.run(100.0, user=200.0 * utilization)
        reading = source.read(vm.now)
        (bounds,) = reading.bounds
        watts = joules(reading) / 100.0
        assert bounds.low_watts - 1e-9 <= watts <= bounds.high_watts + 1e-9


def test_suspended_time_draws_nothing(vm: Vm) -> None:
    """Fault 51: the boot clock goes on while the machine sleeps, CPU time does not."""
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 5.0))
    source.read(vm.now)
    vm.now += 8 * 3600
    vm.run(2.0)
    assert joules(source.read(vm.now)) == pytest.approx(4.0)


def test_late_read_of_a_running_machine_loses_nothing(vm: Vm) -> None:
    """Fault 52: a long pause of the exporter itself is no pause of the CPU."""
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 5.0))
    source.read(vm.now)
    vm.run(600.0, user=600.0)
    assert joules(source.read(vm.now)) == pytest.approx(600 * 2 * 1.0 + 600 * 4.0)


def test_falling_ticks_add_no_dynamic_energy(vm: Vm) -> None:
    """Fault 3, for /proc/stat: lxcfs and unplugged CPUs make it fall; joules go on from there."""
    source = EstimateSource(vm.host, watts_per_cpu=(0.0, 1.0))
    source.read(vm.now)
    vm.run(10.0, user=10.0)
    assert joules(source.read(vm.now)) == pytest.approx(10.0)
    vm.ticks["user"] = 0
    vm.run(10.0)
    assert joules(source.read(vm.now)) == pytest.approx(10.0)
    vm.run(10.0, user=3.0)
    assert joules(source.read(vm.now)) == pytest.approx(13.0)


def test_cpus_that_come_are_counted_within_a_minute(vm: Vm) -> None:
    source = EstimateSource(vm.host, watts_per_cpu=(1.0, 1.0))
    source.read(vm.now)
    vm.online.write_text("0-3\n")
    vm.run(60.0)
    vm.cpus = 4
    assert source.read(vm.now).meters[0].device.capacity == 4.0


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu a b c d\n", "cpu0 1 2 3 4\n", "cpu  -1 0 0 0\n"])
def test_garbage_is_rejected(vm: Vm, text: str) -> None:
    """Fault 13."""
    vm.stat.write_text(text)
    with pytest.raises(Unavailable) as caught:
        EstimateSource(vm.host).read(vm.now)
    assert caught.value.reason == "implausible"


def test_old_kernel_without_steal_column(vm: Vm) -> None:
    vm.stat.write_text("cpu  100 0 100 1000 0 0 0\n")
    assert joules(EstimateSource(vm.host).read(vm.now)) == 0.0


def test_missing_stat_in_a_proc_is_unavailable(vm: Vm) -> None:
    """A wrong --path.procfs must not silently become another machine's numbers."""
    vm.stat.unlink()
    with pytest.raises(Unavailable) as caught:
        EstimateSource(vm.host).read(vm.now)
    assert caught.value.reason == "not_found"


def test_works_without_a_proc(tmp_path: Path) -> None:
    """macOS and FreeBSD have no /proc: real CPU times through psutil."""
    now = 50.0
    source = EstimateSource(Host(str(tmp_path / "no-proc"), str(tmp_path / "no-sys"), clock=lambda: now))
    first = joules(source.read(now))
    now = 51.0
    reading = source.read(now)
    device = reading.meters[0].device
    assert first == 0.0
    assert device.idle_watts is not None
    assert joules(reading) >= device.idle_watts
    assert device.capacity == (os.cpu_count() or 1)


def test_recorded_cloud_vm(tmp_path: Path) -> None:
    """4 vCPUs of an EPYC 4th Gen: 0.74 to 2.28 W each, over 5 s."""
    machine = machines.load("cloud-vm", tmp_path / "machine")
    source = EstimateSource(machine.host())
    assert source.read(machine.now).meters[0].device.name == "AMD EPYC 4th Gen"
    machine.advance()
    assert joules(source.read(machine.now)) == pytest.approx(machine.joules["cpu-estimate"], abs=0.02)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "watts"),
    [
        (
            "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17\nmodel name : AMD EPYC",
            "AMD EPYC 4th Gen",
            (0.74, 2.28),
        ),
        ("vendor_id : AuthenticAMD\ncpu family : 23\nmodel : 49", "AMD EPYC 2nd Gen", (0.47, 1.69)),
        ("vendor_id : AuthenticAMD\ncpu family : 26\nmodel : 2", "AMD EPYC 4th Gen", (0.74, 2.28)),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : 4", "Intel Skylake", (0.61, 4.10)),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : 7", "Intel Cascade Lake", (0.69, 4.06)),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143", "Intel Sapphire Rapids", (1.04, 4.16)),
        ("CPU implementer : 0x41\nCPU part : 0xd40", "AWS Graviton 2-4", (0.47, 1.69)),
        ("CPU implementer : 0x61\nCPU part : 0x022", "average AWS processor", (0.74, 3.5)),
        ("vendor_id : GenuineIntel\ncpu family : 15\nmodel : 143", "average AWS processor", (0.74, 3.5)),
        ("", "average AWS processor", (0.74, 3.5)),
        ("garbage", "average AWS processor", (0.74, 3.5)),
    ],
)
def test_coefficients_follow_family_and_model(cpuinfo: str, name: str, watts: tuple[float, float]) -> None:
    """Published per microarchitecture; unknown ones get the published average."""
    assert coefficients_of(cpuinfo) == (name, *watts)
