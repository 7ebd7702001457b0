"""Regions of real processes, through the real socket, a fork and a restart of the exporter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.live import Exporter, Meter, Scrape
from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

_PROGRAM = """
import json, os, signal, sys, time
from exporter.regions import region, step

used, entered = {}, {}
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))

def compute(name, seconds):
    began = time.thread_time()
    with region(name) as found:
        while time.thread_time() < began + seconds:
            pass
        found.add(samples=2)
    used[name] = used.get(name, 0.0) + time.thread_time() - began
    entered[name] = entered.get(name, 0) + 1

child = os.fork()
names = ("parent a", "parent b") if child else ("child a", "child b")
while not stopped:
    with step():
        compute(names[0], 0.012)
        compute(names[1], 0.004)
    time.sleep(0.004)
if child:
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
with open(sys.argv[1] + ("" if child else ".child"), "w") as file:
    json.dump([used, entered], file)
"""


class Machine:
    """A written meter, the socket, and exporters that follow one another."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "regions.sock"
        paths = ("--path.sysfs", str(folder / "sys"), "--path.cgroupfs", "/sys/fs/cgroup")
        state = ("--state.file", str(folder / "state"), "--regions.socket", str(self.socket))
        self._flags = (*paths, *state, "--attribution.cpu-scope", "machine")
        self._meter = Meter(folder / "sys")
        self.exporter = self._start()

    def _start(self) -> Exporter:
        return Exporter(*self._flags)

    def restart(self) -> None:
        """End the exporter and start the next one."""
        self.exporter.end()
        assert self.exporter.process.returncode == 0, self.exporter.log
        self.exporter = self._start()

    def stop(self) -> None:
        """End all of it."""
        self.exporter.end(signal.SIGKILL)
        self._meter.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    running = Machine(tmp_path)
    yield running
    running.stop()


def by_region(scrape: Scrape, name: str, **labels: str) -> dict[str, float]:
    return {labels["region"]: value for labels, value in scrape.find(name, **labels)}


def run(machine: Machine, result: Path) -> subprocess.Popen[bytes]:
    environment = {"PYTHONPATH": str(REPOSITORY), "AI_ENERGY_REGIONS_SOCKET": str(machine.socket)}
    return subprocess.Popen([sys.executable, "-c", _PROGRAM, str(result)], env=environment)


def read(result: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """CPU seconds and runs of both processes by region."""
    used, entered = json.loads(result.read_text())
    others = json.loads(result.with_name(f"{result.name}.child").read_text())
    return used | others[0], entered | others[1]


def test_joules_follow_the_cpu_time_of_regions_also_of_a_child_and_across_a_restart(
    machine: Machine, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    program = run(machine, result)
    try:
        wait_for(lambda: by_region(machine.exporter.scrape(), "energy_region_runs_total").get("child b", 0) > 50)
        machine.restart()
        before = by_region(machine.exporter.scrape(), "energy_region_runs_total")
        assert before["parent a"] > 0
        wait_for(
            lambda: by_region(machine.exporter.scrape(), "energy_region_runs_total")["child b"] > before["child b"] + 50
        )
    finally:
        program.terminate()
        program.wait(patience())
    seconds, entered = read(result)
    wait_for(lambda: machine.exporter.scrape().total("energy_region_programs") == 0)
    scrape = machine.exporter.scrape()
    joules = by_region(scrape, "energy_region_joules_total", component="cpu")
    whole = scrape.total("energy_process_joules_total", pid=str(program.pid), component="cpu")
    assert joules["parent a"] + joules["parent b"] <= whole
    for each in ("parent", "child"):
        ratio = joules[f"{each} a"] / joules[f"{each} b"]
        assert ratio == pytest.approx(seconds[f"{each} a"] / seconds[f"{each} b"], rel=0.2)
    runs = by_region(scrape, "energy_region_runs_total")
    units = by_region(scrape, "energy_region_units_total", unit="samples")
    assert {name: runs[name] for name in entered} == entered, "none was lost, although the exporter ended in between"
    assert units == {name: 2 * runs[name] for name in units}
    assert scrape.total("energy_region_runs_lost_total") == 0
    assert scrape.find("energy_region_messages_rejected_total") == []
