"""Record this machine for tests/hosts: the files the exporter reads, at three instants, without what identifies it."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HOSTS = Path(__file__).parent / "hosts"
BOOT_ID = "00000000-0000-4000-8000-000000000000\n"

PROC_FILES = ("stat", "cpuinfo", "uptime")
PROCESS_FILES = ("stat", "cgroup", "cmdline", "comm")
CGROUP_FILES = ("cgroup.controllers", "cgroup.procs", "cpu.stat", "cpuacct.usage")
CGROUP_TREES = ("cpuacct", "cpu,cpuacct", "unified")
ZONE_FILE = re.compile(r"name|energy_uj|max_energy_range_uj|constraint_\d_(name|max_power_uw|power_limit_uw)")
HWMON_FILE = re.compile(
    r"name|(power|energy)\d+_(input|average|label)|power1_(cap|max|oem_info)|(in|curr)[123]_(input|label)|"
    r"temp[12]_input|freq1_input|gpu_busy_percent|mem_info_vram_(used|total)|product_name|runtime_status"
)


class Recorder:
    """Reads files below real roots into ``files`` and ``links``, named as in ``t0/``; leaves out what is unreadable."""

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
        self._class("hwmon", HWMON_FILE, ("", "device", "device/power"))
        self._cgroups(set(pids))

    @property
    def uptime(self) -> float:
        """Boot-time seconds when it was recorded."""
        return float(self.files["proc/uptime"].split()[0])

    def busiest(self) -> list[int]:
        """The pids that used most CPU time so far."""
        ticks = {}
        for entry in _entries(f"{self._root}/proc"):
            if entry.isdigit():
                stat = _read(f"{self._root}/proc/{entry}/stat").rpartition(")")[2].split()
                if len(stat) > 12:
                    ticks[int(entry)] = int(stat[11]) + int(stat[12])
        return sorted(sorted(ticks, key=lambda pid: -ticks[pid])[: self._processes])

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

    def _cpus(self) -> None:
        base = "sys/devices/system/cpu"
        self._put(f"{base}/online", _read(f"{self._root}/{base}/online"))
        for cpu in Path(f"{self._root}/{base}").glob("cpu[0-9]*"):
            for name in ("physical_package_id", "die_id"):
                self._put(f"{base}/{cpu.name}/topology/{name}", _read(f"{cpu}/topology/{name}"))

    def _class(self, name: str, wanted: re.Pattern[str], folders: tuple[str, ...]) -> None:
        """The wanted files of every device of a class; of its links only ``device``, since sysfs links in circles."""
        for entry in _entries(f"{self._root}/sys/class/{name}"):
            path = f"{self._root}/sys/class/{name}/{entry}"
            device = os.path.realpath(f"{path}/device")
            for folder in folders:
                home = f"{device}{folder.removeprefix('device')}" if folder else path
                for file in _entries(home):
                    if wanted.fullmatch(file) and os.path.isfile(f"{home}/{file}"):
                        self._put(self._name(f"{home}/{file}"), _read(f"{home}/{file}"))
            if folders != ("",) and os.path.isdir(device):
                self.links[self._name(f"{path}/device")] = os.path.relpath(device, path)

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


def write(target: Path, instants: list[Recorder]) -> None:
    """Write ``t0/``, ``t1.json``, …; files that appeared or went in between are left as they were."""
    first = instants[0]
    for name, text in first.files.items():
        path = target / "t0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, link in first.links.items():
        path = target / "t0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(link)
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


def _entries(path: str) -> Iterator[str]:
    try:
        yield from sorted(os.listdir(path))
    except OSError:
        return


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
    pids = instants[0].busiest()
    for number, instant in enumerate(instants):
        time.sleep(options.seconds if number else 0)
        instant.record(pids)
    write(target, instants)
    return 0


if __name__ == "__main__":
    sys.exit(main())
