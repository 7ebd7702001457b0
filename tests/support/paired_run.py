"""A run of a real command, and an exporter's sampler beside it: both read one written meter at the same moments.

Words: root of the cgroup tree, folder of the meter, seconds between readings, command. While they are read, the cgroups
of the command are frozen where that is possible (v2), and the meter is written as of then: so the result depends on no
clock, and on no other load.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.config.loading import load
from exporter.host import Host
from exporter.runs.consumption import Consumption, Focused, RunNamer
from exporter.runs.descendants import Descendants
from exporter.runs.launcher import Ending, Link, launch
from exporter.runs.measuring import Measurement
from exporter.runs.own_cgroup import OwnCgroup
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.service.assembly import make_host, make_sampler, make_sources, sampler_options
from exporter.snapshot import Snapshot
from exporter.sources.protocol import Source
from tests.support.live import RANGE_MICROJOULES
from tests.support.patience import wait_for

WATTS_PER_CPU = 40.0


class Package:
    """A written RAPL zone: so many watts for each CPU that is busy in the tree, and no idle power."""

    def __init__(self, folder: Path, root: Path) -> None:
        zone = folder / "sys/class/powercap/intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE_MICROJOULES}\n")
        self._file = zone / "energy_uj"
        self.root = root

    def write(self) -> None:
        """Write its joules as of now."""
        self._file.write_text(f"{int(WATTS_PER_CPU * self.used() * 1e6) % RANGE_MICROJOULES}\n")

    def used(self) -> float:
        """CPU seconds of the tree so far."""
        counter = self.root / "cpuacct.usage"
        if counter.exists():
            return int(counter.read_text()) / 1e9
        return int((self.root / "cpu.stat").read_text().split()[1]) / 1e6


class Frozen:
    """The cgroups below a tree's root but one, in which the measuring process is."""

    def __init__(self, root: Path, own: str) -> None:
        self._files = [path for path in root.rglob("cgroup.freeze") if path.parent not in (root, root / own)]

    def __enter__(self) -> None:
        for file in self._files:
            file.write_text("1")
        for file in self._files:
            wait_for(lambda events=file.parent / "cgroup.events": "frozen 1" in events.read_text(), "the freezer")  # type: ignore[misc]

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.write_text("0")


class Paired(Sampler):
    """Reads both, the exporter's sampler first."""

    def __init__(
        self, sources: Sequence[Source], host: Host, options: SamplerOptions, reference: Sampler, package: Package
    ) -> None:
        super().__init__(sources, RunNamer(), host, options)
        self.reference = reference
        self._package = package
        self.ticks = 0

    def tick(self) -> Snapshot:
        self.ticks += 1
        with Frozen(self._package.root, "shell"):
            self._package.write()
            self.reference.tick()
            return super().tick()


class Often(Link):
    """Waits for ``most_seconds`` at most: the deadlines of sources are those of a longer interval."""

    most_seconds = 0.2

    def wait(self, seconds: float) -> Ending | None:
        return super().wait(min(seconds, self.most_seconds))


def main(root: Path, folder: Path, most_seconds: float, command: list[str]) -> int:
    """Run the command, and write what was found to a file of the folder. Returns the command's exit status."""
    flags = {
        "path.sysfs": str(folder / "sys"),
        "path.cgroupfs": str(root),
        "attribution.cpu-scope": "machine",
        "idle.watts": ["package-0=0"],
        "sample.interval": "20s",
        "source.timeout": "20s",
    }
    settings = load(flags, {})
    host = make_host(settings)
    package = Package(folder, root)
    group = OwnCgroup(host, "paired")

    def measure(link: Link) -> None:
        (root.parent / "cgroup.procs").write_text("0")  # what it uses itself is not measured
        link.__class__ = Often
        Often.most_seconds = most_seconds
        consumption = Consumption(Descendants(host, link.launcher, os.getpid()), group, subreaper=link.subreaper)
        sources = [Focused(source, consumption) for source in make_sources(settings, host)]
        paired = Paired(sources, host, sampler_options(settings), make_sampler(settings, host), package)
        result = Measurement(paired, sources, consumption, host).run(link)
        assert paired.reference.snapshot is not None
        exporter = {
            f"{row.owner.runtime}/{row.owner.container}": sum(row.joules)  # type: ignore[union-attr]
            for row in paired.reference.snapshot.energy.containers
        }
        found = {
            "joules": result.of("cpu"),
            "cpu_seconds": result.cpu_seconds,
            "method": result.method,
            "ticks": paired.ticks,
            "living": result.living,
            "exporter": exporter,
        }
        (folder / "found.json").write_text(json.dumps(found))
        paired.close()
        paired.reference.close()

    try:
        return launch(command, group.attach, measure, wait_for_all=True, fail=sys.exit)
    finally:
        group.remove()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
