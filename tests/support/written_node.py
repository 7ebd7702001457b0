"""A small written machine whose counters move when told: RAPL zones, hwmon chips, cgroups, processes, /proc/stat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.host import FdBudget, Host
from exporter.records import Reading, UnattributedReason
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import DeviceRow, Snapshot
from exporter.sources.custom.meter import Meter
from exporter.sources.custom.poller import Poller
from exporter.sources.custom.source import CustomSource
from exporter.sources.hwmon.labels import Components
from exporter.sources.protocol import Source
from exporter.sources.registry import build
from exporter.workloads.namer import WorkloadNamer

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nflags\t\t: fpu {}\n\n"
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nflags\t\t: fpu\n\n"
POWERCAP = "sys/class/powercap"


class WrittenNode:
    """Counters are in SI units; `flush` writes them. Files are rewritten in place, so that open descriptors see it."""

    def __init__(self, root: Path, cpus: int = 8, sockets: int = 1, cpuinfo: str = INTEL.format("")) -> None:
        self.root = root
        self.now = 5000.0
        self.joules: dict[str, float] = {}
        self.watts: dict[str, float] = {}
        self.used: dict[str, float] = {"/": 1.0}
        self.cpu_busy = dict.fromkeys(range(cpus), 100.0)
        self.namespaced = False
        self.first_lines: list[str] = []
        self.components: Components = {}
        self.meters: list[Meter] = []
        self.text("sys/devices/system/cpu/online", f"0-{cpus - 1}")
        for cpu in range(cpus):
            self.text(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", cpu * sockets // cpus)
        self.text("proc/sys/kernel/random/boot_id", "3c1f7e9a-0000-4000-8000-000000000001")
        self.text("proc/cpuinfo", cpuinfo)

    def text(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch()
        with file.open("r+") as out:
            out.write(f"{value}\n")
            out.truncate()

    def zone(self, zone: str, name: str, joules: float = 1000.0) -> None:
        self.text(f"{POWERCAP}/{zone}/name", name)
        self.text(f"{POWERCAP}/{zone}/max_energy_range_uj", 262143328850)
        self.joules[f"{POWERCAP}/{zone}/energy_uj"] = joules

    def uses(self, seconds: float, **watts: float) -> None:
        """Zones draw ``watts``: zone0 is intel-rapl:0, zone0_1 is intel-rapl:0:1."""
        for zone, value in watts.items():
            path = f"{POWERCAP}/intel-rapl:{zone.removeprefix('zone').replace('_', ':')}/energy_uj"
            self.joules[path] += value * seconds

    def chip(self, number: int, name: str, **files: object) -> str:
        base = f"sys/class/hwmon/hwmon{number}"
        for file, value in {"name": name, **files}.items():
            self.text(f"{base}/{file}", value)
        return base

    def flush(self) -> None:
        for path, joules in self.joules.items():
            self.text(path, int(joules * 1e6) % 262143328850)
        for path, watts in self.watts.items():
            self.text(path, int(watts * 1e6))
        for group in self.used:
            total = sum(s for other, s in self.used.items() if f"{other}/".startswith(f"{group.rstrip('/')}/"))
            base = f"cgroup{group.rstrip('/')}"
            self.text(f"{base}/cpu.stat", f"usage_usec {int(total * 1e6)}")
            if group != "/" or self.namespaced:
                self.text(f"{base}/cgroup.events", "populated 1")
            self.text(f"{base}/cgroup.procs", "")
        busy = sum(self.cpu_busy.values())
        idle = max(0.0, self.now * len(self.cpu_busy) - busy)
        lines = [f"cpu  {int(busy * 100)} 0 0 {int(idle * 100)} 0 0 0 0 0 0"]
        lines += [f"cpu{n} {int(s * 100)} 0 0 {int((self.now - s) * 100)} 0 0 0 0" for n, s in self.cpu_busy.items()]
        self.text("proc/stat", "\n".join([*self.first_lines, *lines, "intr 1"]))
        self.text("proc/uptime", f"{self.now:.2f} 0.00")

    def host(self) -> Host:
        proc, sys, cgroup = (str(self.root / name) for name in ("proc", "sys", "cgroup"))
        return Host(proc, sys, cgroup, clock=lambda: self.now, wall=lambda: 1767225600.0 + self.now, fds=FdBudget(1024))

    def play(
        self,
        step: Callable[[float], None],
        ticks: int,
        seconds: float = 1.0,
        *,
        whole: bool = False,
        more: Sequence[Source] = (),
        watch: Callable[[Snapshot], None] | None = None,
    ) -> Played:
        """Tick after each ``step``; the sources and the sampler are the real ones. ``watch`` sees every snapshot."""
        self.flush()
        host = self.host()
        off = {"nvml": False, "podresources": False, "drm": False}
        sources = build(host, off, hwmon_components=self.components, whole=whole)
        if self.meters:  # read in each tick, not in threads of their own
            sources.append(TickedMeters(host, self.meters))
        options = SamplerOptions(interval_seconds=seconds, source_timeout_seconds=5.0)
        sampler = Sampler([*sources, *more], WorkloadNamer(), host, options, observers=[watch] if watch else ())
        try:
            snapshot = sampler.tick()
            worst = 0.0
            for _ in range(ticks):
                self.now += seconds
                step(seconds)
                self.flush()
                snapshot = sampler.tick()
                worst = max(worst, snapshot.energy.conservation_error_ratio)
        finally:
            sampler.close()
        assert worst < 1e-9, "joules are lost or counted twice"
        return Played(snapshot)


class TickedMeters(CustomSource):
    """Meters of one's own, each read whenever the source is."""

    def __init__(self, host: Host, meters: Sequence[Meter]) -> None:
        self._ticked: list[Poller] = []
        super().__init__(host, meters, start=self._ticked.append)

    def read(self, now: float) -> Reading:
        if not self._ticked:
            super().read(now)
        for poller in self._ticked:
            poller.read()
        return super().read(now)


class Played:
    """What the last tick published, by name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    @property
    def node_watts(self) -> dict[str, float | None]:
        return {row.component: row.watts for row in self.snapshot.energy.nodes}

    @property
    def node_joules(self) -> dict[str, float]:
        return {row.component: row.joules for row in self.snapshot.energy.nodes}

    def device(self, id_: str) -> DeviceRow:
        return next(row for row in self.snapshot.energy.devices if row.device.id == id_)

    def container(self, name: str) -> float:
        """CPU joules of a container."""
        rows = [row for row in self.snapshot.energy.containers if getattr(row.owner, "container", "") == name]
        return sum(sum(row.joules) for row in rows)

    def unattributed(self, reason: UnattributedReason) -> float:
        return sum(joules for _, why, joules in self.snapshot.energy.unattributed if why == reason)

    def problem(self, source: str) -> tuple[str | None, str]:
        """Reason and message of what is wrong with a source."""
        health = next(each for each in self.snapshot.exporter.sources if each.name == source)
        return health.reason, health.message
