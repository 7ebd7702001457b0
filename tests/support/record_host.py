"""Record this machine for tests/hosts: what the exporter reads, at three instants, without what identifies it.

``python -m tests.support.record_host NAME``; as root, or much is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.records import Unavailable
from exporter.sources.nvml.driver import Driver
from tests.support import ttar
from tests.support.machine import ARCHIVE
from tests.support.nvml import recorded
from tests.support.repository import HOSTS

BOOT_ID = "00000000-0000-4000-8000-000000000000\n"

PROC_FILES = ("stat", "cpuinfo", "uptime")
PROCESS_FILES = ("stat", "cgroup", "cmdline", "comm")
CGROUP_FILES = ("cgroup.controllers", "cgroup.procs", "cpu.stat", "cpuacct.usage")
CGROUP_TREES = ("cpuacct", "cpu,cpuacct", "unified")
ZONE_FILE = re.compile(r"name|energy_uj|power_uw|max_energy_range_uj|constraint_\d_(name|max_power_uw|power_limit_uw)")
HWMON_FILE = re.compile(
    r"name|(power|energy)\d+_(input|average|label)|power1_(cap|max|oem_info)|(in|curr)[123]_(input|label)|"
    r"temp[12]_input|freq1_input|gpu_busy_percent|mem_info_vram_(used|total)|product_name|device|unique_id|runtime_status"
)
NEURON = "sys/devices/virtual/neuron_device"
EVERY = re.compile(r".*")
DRM_FILE = re.compile(r"uevent|device|unique_id|gpu_busy_percent|runtime_status")
DRM_NODE = re.compile(r"(card|renderD)\d+")
KFD_PROPERTY = re.compile(r"^(cpu_cores_count|simd_count|simd_per_cu|location_id|domain) .*\n", re.MULTILINE)


class Recorder:
    """Reads files below real roots into ``files`` and ``links``, by path in the archive; skips unreadable ones."""

    def __init__(self, processes: int, root: str = "") -> None:
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self._processes = processes
        self._root = root
        self._host_name = socket.gethostname()

    def record(self, pids: list[int]) -> None:
        """Read everything once; ``pids`` are the processes to keep."""
        self._proc(pids)
        self._cpus()
        self._class("powercap", ZONE_FILE, ("",))
        self._folder("sys/cray/pm_counters")
        for device in _entries(f"{self._root}/{NEURON}"):
            self._folder(f"{NEURON}/{device}/stats/power")
            self._folder(f"{NEURON}/{device}/info/architecture")
        self._class("hwmon", HWMON_FILE, ("", "device", "device/power"))
        self._class("drm", DRM_FILE, ("device", "device/power"), DRM_NODE)
        self._nvidia()
        self._kfd()
        self._cgroups(set(pids))

    @property
    def uptime(self) -> float:
        """Boot-time seconds when it was recorded."""
        return float(self.files["proc/uptime"].split()[0])

    def busiest(self) -> list[int]:
        """The pids that used most CPU time so far, and all that have a GPU of AMD or Intel open."""
        ticks = {}
        for entry in _entries(f"{self._root}/proc"):
            if entry.isdigit():
                stat = _read(f"{self._root}/proc/{entry}/stat").rpartition(")")[2].split()
                if len(stat) > 12:
                    ticks[int(entry)] = int(stat[11]) + int(stat[12])
        most = sorted(ticks, key=lambda pid: -ticks[pid])[: self._processes]
        return sorted({*most, *[pid for pid in ticks if any(self._open_gpus(pid))]})

    def _open_gpus(self, pid: int) -> Iterator[tuple[str, str]]:
        folder = f"{self._root}/proc/{pid}/fd"
        for fd in _entries(folder):
            target = _link(f"{folder}/{fd}")
            if target == "/dev/kfd" or target.startswith("/dev/dri/"):
                yield fd, target

    def _put(self, name: str, text: str) -> None:
        if text or name.endswith(("cmdline", "cgroup.procs")):
            self.files[name] = text.replace(self._host_name, "host") if len(self._host_name) > 2 else text

    def _name(self, path: str) -> str:
        return path[len(self._root) + 1 :]

    def _proc(self, pids: list[int]) -> None:
        for name in PROC_FILES:
            self._put(f"proc/{name}", _read(f"{self._root}/proc/{name}"))
        self.files["proc/cpuinfo"] = self.files["proc/cpuinfo"].partition("\n\n")[0] + "\n\n"
        lines = self.files["proc/stat"].splitlines(keepends=True)
        self.files["proc/stat"] = "".join(line for line in lines if not line.startswith(("intr", "softirq")))
        self._put("proc/sys/kernel/random/boot_id", BOOT_ID)
        for pid in pids:
            for name in PROCESS_FILES:
                text = _read(f"{self._root}/proc/{pid}/{name}")
                self._put(f"proc/{pid}/{name}", redact(text) if name == "cmdline" else text)
            for fd, target in self._open_gpus(pid):
                self.links[f"proc/{pid}/fd/{fd}"] = target
                self._put(f"proc/{pid}/fdinfo/{fd}", _read(f"{self._root}/proc/{pid}/fdinfo/{fd}"))

    def _cpus(self) -> None:
        base = "sys/devices/system/cpu"
        self._put(f"{base}/online", _read(f"{self._root}/{base}/online"))
        for cpu in Path(f"{self._root}/{base}").glob("cpu[0-9]*"):
            for name in ("physical_package_id", "die_id"):
                self._put(f"{base}/{cpu.name}/topology/{name}", _read(f"{cpu}/topology/{name}"))

    def _class(
        self, name: str, wanted: re.Pattern[str], folders: tuple[str, ...], entries: re.Pattern[str] = EVERY
    ) -> None:
        """The wanted files of every device of a class; of its links only ``device``, since sysfs links in circles."""
        for entry in filter(entries.fullmatch, _entries(f"{self._root}/sys/class/{name}")):
            path = f"{self._root}/sys/class/{name}/{entry}"
            device = os.path.realpath(f"{path}/device")
            for folder in folders:
                home = f"{device}{folder.removeprefix('device')}" if folder else path
                for file in _entries(home):
                    if wanted.fullmatch(file) and os.path.isfile(f"{home}/{file}"):
                        self._put(self._name(f"{home}/{file}"), _anonymous(file, _read(f"{home}/{file}"), device))
            if folders != ("",) and os.path.isdir(device):
                self.links[self._name(f"{path}/device")] = os.path.relpath(device, path)

    def _folder(self, name: str) -> None:
        """All files of a folder that holds nothing else."""
        for file in _entries(f"{self._root}/{name}"):
            self._put(f"{name}/{file}", _read(f"{self._root}/{name}/{file}"))

    def _nvidia(self) -> None:
        """Which cards NVIDIA's driver has, and whether they sleep; all else is asked of its library."""
        bus = f"{self._root}/sys/bus/pci"
        for address in _entries(f"{bus}/drivers/nvidia"):
            if ":" not in address:
                continue
            device = os.path.realpath(f"{bus}/devices/{address}")
            self._put(self._name(f"{device}/power/runtime_status"), _read(f"{device}/power/runtime_status"))
            for folder in ("devices", "drivers/nvidia"):
                self.links[f"sys/bus/pci/{folder}/{address}"] = os.path.relpath(device, f"{bus}/{folder}")
        for address in _entries(f"{self._root}/proc/driver/nvidia/gpus"):
            name = f"proc/driver/nvidia/gpus/{address}/information"
            self._put(name, re.sub(r"(GPU UUID:\s*).*", r"\1GPU-redacted", _read(f"{self._root}/{name}")))

    def _kfd(self) -> None:
        """Who computes on AMD cards; the kernel names the processes of its own pid namespace."""
        kfd = "sys/class/kfd/kfd"
        for node in _entries(f"{self._root}/{kfd}/topology/nodes"):
            path = f"{kfd}/topology/nodes/{node}"
            self._put(f"{path}/gpu_id", _read(f"{self._root}/{path}/gpu_id"))
            properties = _read(f"{self._root}/{path}/properties")
            self._put(f"{path}/properties", "".join(match[0] for match in KFD_PROPERTY.finditer(properties)))
        for process in Path(f"{self._root}/{kfd}/proc").glob("[0-9]*"):
            for file in (*process.glob("queues/*/gpuid"), *process.glob("stats_*/cu_occupancy")):
                self._put(self._name(str(file)), _read(str(file)))

    def _cgroups(self, pids: set[int]) -> None:
        base = f"{self._root}/sys/fs/cgroup"
        if os.path.exists(f"{base}/cgroup.controllers"):
            return self._tree(base, "cgroup", pids)
        for name in CGROUP_TREES:
            if os.path.islink(f"{base}/{name}"):
                self.links[f"cgroup/{name}"] = os.readlink(f"{base}/{name}")
            elif os.path.isdir(f"{base}/{name}"):
                self._tree(f"{base}/{name}", f"cgroup/{name}", pids)
        return None

    def _tree(self, root: str, name: str, pids: set[int]) -> None:
        for folder, _, files in os.walk(root):
            for file in set(files).intersection(CGROUP_FILES):
                text = _read(f"{folder}/{file}")
                if file == "cgroup.procs":
                    text = "".join(f"{pid}\n" for pid in text.split() if int(pid) in pids)
                self._put(f"{name}{folder.removeprefix(root)}/{file}", text)


def redact(cmdline: str) -> str:
    """Keep the program's base name and the names of long options; all else may be a path, a name or a secret."""
    program, *arguments = cmdline.rstrip("\0").split("\0")
    kept = [os.path.basename(program.partition(" ")[0])] if program else []
    for argument in arguments:
        option = re.match(r"--[a-z][a-z-]*", argument)
        kept.append(option[0] if option else "redacted")
    return "".join(f"{argument}\0" for argument in kept)


def unique_id(address: str) -> str:
    """Stands for the number that an AMD card has of its own: its place on the bus."""
    return f"1{re.sub('[^0-9a-f]', '', address):0>15}\n"


def _anonymous(file: str, text: str, device: str) -> str:
    """The text of a device's file without what names one among all of its kind."""
    if file == "unique_id":
        return unique_id(os.path.basename(device))
    if file == "uevent":
        return "".join(line for line in text.splitlines(keepends=True) if line.startswith("DRIVER="))
    return text


def write(target: Path, instants: list[Recorder]) -> None:
    """Write ``t0.ttar``, ``t1.json``, …; files that appeared or disappeared in between stay as they were at first."""
    first = instants[0]
    tree: dict[str, ttar.Entry] = {name: text.encode() for name, text in first.files.items()}
    tree |= {name: ttar.Symlink(link) for name, link in first.links.items()}
    target.mkdir(parents=True)
    (target / ARCHIVE).write_bytes(ttar.pack(tree))
    print(f"{target}: {len(first.files)} files, {len(first.links)} links")
    for number, (before, after) in enumerate(itertools.pairwise(instants), start=1):
        changed = {name: text for name, text in sorted(after.files.items()) if before.files.get(name, text) != text}
        document = {"seconds": round(after.uptime - before.uptime, 2), "joules": {}, "files": changed}
        (target / f"t{number}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"t{number}: {len(changed)} files changed in {document['seconds']} s")


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _entries(path: str) -> Iterator[str]:
    try:
        yield from sorted(os.listdir(path))
    except OSError:
        return


def _cards() -> recorded.Recorder | None:
    """The NVIDIA cards of this machine, None where there are none."""
    driver = Driver()
    try:
        driver.open()
        return recorded.Recorder(driver)
    except Unavailable as reason:
        print(f"no NVIDIA cards: {reason}")
        return None


def main(arguments: list[str] | None = None) -> int:
    """Record, wait, record again, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="folder to make below --out")
    parser.add_argument("--seconds", type=float, default=5.0, help="time between instants (default 5)")
    parser.add_argument("--processes", type=int, default=40, help="how many of the busiest to keep (default 40)")
    parser.add_argument("--out", type=Path, default=HOSTS, help="where to write (default tests/hosts)")
    options = parser.parse_args(arguments)
    target: Path = options.out / options.name
    if target.exists():
        print(f"{target} exists already", file=sys.stderr)
        return 2
    instants = [Recorder(options.processes) for _ in range(3)]
    cards = _cards()
    pids: Iterable[int] = instants[0].busiest()
    if cards is not None:
        pids = {*pids, *cards.pids()}
    for number, instant in enumerate(instants):
        time.sleep(options.seconds if number else 0)
        instant.record(sorted(pids))
        if cards is not None:
            cards.record(time.time())
    write(target, instants)
    if cards is not None:
        (target / "gpus.json").write_text(recorded.dumps(cards.document()), encoding="utf-8")
        cards.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
