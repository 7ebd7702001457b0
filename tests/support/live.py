"""The exporter as a process of its own, on written meters that count and in real cgroups with real processes."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

RANGE_MICROJOULES = 65_532_610_987
WATTS = 60.0
INTERVAL_SECONDS = 0.1

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

BUSY = """import time
while True:
    end = time.process_time() + 0.001
    while time.process_time() < end: pass
    time.sleep(0.02)
"""
"""A Python program that uses a twentieth of a CPU."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Meter:
    """A written powercap zone, driven at so many watts by a thread of its own."""

    period_seconds = 0.005

    def __init__(
        self, sysfs: Path, watts: float = WATTS, *, zone: str = "intel-rapl:0", name: str = "package-0"
    ) -> None:
        folder = sysfs / "class/powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_MICROJOULES}\n")
        self.path = folder / "energy_uj"
        self._watts = watts
        self._lock = threading.Lock()
        self._held = False
        self._began = time.monotonic()
        self._start = RANGE_MICROJOULES - 200e6
        self._stop = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.period_seconds):
            with self._lock:
                if not self._held:
                    self._write()

    def _write(self) -> None:
        # The width never changes, so that no reader sees half of an old number behind a new one.
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(self._value())

    def _value(self) -> bytes:
        return b"%012d\n" % (int(self._start + self.joules() * 1e6) % RANGE_MICROJOULES)

    def joules(self) -> float:
        """True joules since the zone began."""
        return (time.monotonic() - self._began) * self._watts

    def hold(self) -> Path:
        """Leave the file alone, for the test to spoil it; the joules go on. Returns its path."""
        with self._lock:
            self._held = True
        return self.path

    def go_on(self) -> None:
        """Put a whole file in the place of whatever is there now."""
        new = self.path.with_suffix(".new")
        with self._lock:
            new.write_bytes(self._value())
            new.rename(self.path)
            self._held = False

    def restart(self) -> None:
        """Count from 0, as after a restart of the machine; so do `joules`."""
        with self._lock:
            self._start, self._began = 0.0, time.monotonic()

    def stop(self) -> None:
        """Stand still."""
        self._stop.set()
        self._thread.join()


class Scrape(dict[Key, float]):
    """Value by name and sorted labels."""

    @classmethod
    def parse(cls, text: str) -> Scrape:
        """Of the text format; no series is there twice."""
        scrape = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in scrape, f"twice: {key}"
                scrape[key] = sample.value
        return scrape

    def find(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of the series that have these labels, whatever others they have."""
        return [
            (dict(pairs), value)
            for (family, pairs), value in self.items()
            if family == name and labels.items() <= set(pairs)
        ]

    def total(self, name: str, **labels: str) -> float:
        """Sum of those."""
        return sum(value for _, value in self.find(name, **labels))

    def info(self, **labels: str) -> dict[str, str]:
        """All that ``energy_container_info`` says of the one container with these labels; empty if there is none."""
        found = [labels for labels, _ in self.find("energy_container_info", **labels)]
        assert len(found) <= 1, found
        return found[0] if found else {}


class Exporter:
    """The program, in a process that may be killed. ``environment`` is added to ours, less our own variables."""

    def __init__(self, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        own = ["--sample.interval", f"{INTERVAL_SECONDS * 1000:.0f}ms", "--web.listen-address", "127.0.0.1:0"]
        kept = ("AI_ENERGY_", "KUBERNETES_", "NODE_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exporter", *own, *flags],
            cwd=REPOSITORY,
            env=ours | dict(environment or {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._drain, args=(lines,), daemon=True).start()
        found = None
        while found is None:
            try:
                line = lines.get(timeout=patience())
            except queue.Empty:
                raise AssertionError(f"does not listen (status {self.process.poll()}): {self.log}") from None
            assert "level=error" not in line, line
            found = re.search(r"http://\S+/metrics", line)
        self.url = found[0]

    def _drain(self, lines: queue.SimpleQueue[str]) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.log.append(line)
                lines.put(line)

    def body(self, accept: str = "text/plain") -> str:
        """One scrape as it comes; the first waits for the first sample."""
        deadline = time.monotonic() + patience()
        request = urllib.request.Request(self.url, headers={"Accept": accept})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=patience()) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def scrape(self) -> Scrape:
        """One scrape."""
        return Scrape.parse(self.body())

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(patience())


class Audit:
    """Holds one scrape after the other against the promises; ``broken`` tells those that were not kept.

    ``given`` is what the accounts must add up to: where devices include each other, or one was given up, the node's.
    """

    def __init__(self, given: str = "energy_device_joules_total") -> None:
        self._given = given
        self.seen: set[tuple[str, str, str, str]] = set()
        self.models: set[tuple[str, str, str]] = set()
        self.broken: list[str] = []
        self._last: Scrape = Scrape()
        self._came: dict[Key, float] = {}

    def hear(self, scrape: Scrape) -> None:
        """The next scrape."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        booked: defaultdict[str, float] = defaultdict(float)
        for name in ("container_joules_total", "unattributed_joules_total", "retired_joules_total", "unnamed_joules"):
            for labels, joules in scrape.find(f"energy_{name}"):
                booked[labels["component"]] += joules
        given: defaultdict[str, float] = defaultdict(float)
        for labels, joules in scrape.find(self._given):
            given[labels["component"]] += joules
        for component, joules in given.items():
            if abs(booked[component] - joules) > 1e-9 * max(joules, 1.0):
                self.broken.append(f"{component}: devices gave {joules!r}, accounts have {booked[component]!r}")
        if scrape["energy_conservation_error_ratio", ()] > 1e-9:
            self.broken.append("energy_conservation_error_ratio")
        for key, value in self._last.items():
            if key[0].endswith("_joules_total") and scrape.get(key, value) < value:
                if _is_another_process(key, self._came[key]):
                    self._came[key] = now
                else:
                    self.broken.append(f"{key} fell from {value} to {scrape[key]}")
        self._came = {key: self._came.get(key, now) for key in scrape}
        containers = [labels for labels, _ in scrape.find("energy_container_joules_total")]
        models = [labels for labels, _ in scrape.find("energy_model_joules_total")]
        # Replaced, so that who reads one may take his time.
        self.seen = self.seen | {(own["namespace"], own["pod"], own["container"], own["runtime"]) for own in containers}
        self.models = self.models | {(own["model_name"], own["namespace"], own["phase"]) for own in models}
        self._last = scrape

    def forget_processes(self) -> None:
        """The machine has started anew: whatever has one of the pids now is another process."""
        self._last = Scrape({key: value for key, value in self._last.items() if "pid" not in dict(key[1])})


def _is_another_process(key: Key, since: float) -> bool:
    """Whether the pid of a process's series was given anew after boot time ``since``: a new series (fault 34)."""
    pid = dict(key[1]).get("pid")
    if pid is None:
        return False
    try:
        ticks = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return False
    return int(ticks) / os.sysconf("SC_CLK_TCK") > since


class Auditor(Audit):
    """Scrapes again and again, and holds every scrape against the promises: `check` says whether all were kept."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__()
        self.scrapes = 0
        self._exporter = exporter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """At least one more scrape was taken, and in none was anything lost, twice, or less than before."""
        taken = self.scrapes
        wait_for(lambda: self.scrapes > taken + 1 or self.broken, "a scrape")
        assert self.broken == []

    def stop(self) -> None:
        """No more scrapes; nothing is checked."""
        self._over.set()
        self._thread.join(patience())

    def _work(self) -> None:
        while not self._over.wait(INTERVAL_SECONDS):
            try:
                self.hear(self._exporter.scrape())
            except Exception as error:  # noqa: BLE001 - told by `check`, whatever it is
                if not self._over.is_set():
                    self.broken.append(f"{type(error).__name__}: {error}")
                return
            self.scrapes += 1


class Tree:
    """A group of our own in a real hierarchy, which the exporter takes for the root of the node's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, path: str, command: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a program in a group, which is made if need be; by default one that is busy."""
        group = self.root / path
        group.mkdir(parents=True, exist_ok=True)
        enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        process = subprocess.Popen(
            ["/bin/sh", "-c", enter, str(group), *(command or [sys.executable, "-S", "-E", "-c", BUSY])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    def remove(self, path: str = "") -> None:
        """End all that runs in a group and below, and remove it."""
        top = self.root / path
        for directory, _, _ in os.walk(top, topdown=False):
            wait_for(lambda at=directory: self._emptied(at), f"the end of {directory}")  # type: ignore[misc]

    def _emptied(self, directory: str) -> bool:
        with contextlib.suppress(OSError):
            for pid in Path(directory, "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        self._started = [process for process in self._started if process.poll() is None]
        with contextlib.suppress(OSError):
            os.rmdir(directory)
        return not os.path.exists(directory)


def cgroup_mount(kind: str) -> Path | None:
    """Where groups count CPU time here: ``v2``, or ``v1`` for cpuacct. None if nowhere."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, what, options, *_ = line.split()
        if what == ("cgroup2" if kind == "v2" else "cgroup") and (kind == "v2" or "cpuacct" in options.split(",")):
            return Path(where)
    return None


@contextlib.contextmanager
def tree(kind: str = "v2") -> Iterator[Tree]:
    """A tree of our own, removed at the end; the test is skipped where there can be none."""
    mount = cgroup_mount(kind)
    if mount is None:
        pytest.skip(f"no cgroup {kind} tree with CPU accounting is mounted here")
    try:
        made = Tree(Path(tempfile.mkdtemp(prefix=f"aee-live-{os.getpid()}-", dir=mount)))
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error.strerror}")
    try:
        yield made
    finally:
        made.remove()
