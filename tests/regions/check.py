"""``make regions-check``: a real PyTorch training on the CPU whose steps and layers are regions. Outside the suite.

Joules of its regions must add up to those of its process, and its profiler's trace must be priced by ``trace`` with the
counters of the same exporter. ``--python`` is one with PyTorch, else one is installed into ``--folder``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.launchers.environments import prepare
from tests.launchers.trials import ENVIRONMENTS
from tests.support.live import Exporter, Meter
from tests.support.patience import wait_for
from tests.support.program import free_port
from tests.support.repository import REPOSITORY

PROGRAM = REPOSITORY / "tests/regions/programs/training.py"
TOLERANCE = 0.05
EXPECTED = {"data", "forward", "backward", "optimizer", "step", "wide", "narrow", "head"}


class Training:
    """The program, which is answered line by line."""

    def __init__(self, python: Path, socket: Path, seconds: float, trace: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "AI_ENERGY_REGIONS_SOCKET": str(socket)}
        command = [str(python), str(PROGRAM), f"{seconds:g}", str(trace)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout
        words: dict[str, Any] = json.loads(self.process.stdout.readline())
        return words

    def go_on(self) -> None:
        """Answer."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def prometheus(folder: Path, exporter: Exporter) -> Iterator[str]:
    """A Prometheus that scrapes the exporter each 0.2 s."""
    port, target = free_port(), exporter.url.removeprefix("http://").removesuffix("/metrics")
    scrape = {"job_name": "energy", "static_configs": [{"targets": [target]}]}
    settings = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
    flags = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(["prometheus", *flags], cwd=folder, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def regions_of(exporter: Exporter) -> Mapping[str, float]:
    """Joules of CPU by region."""
    return {
        labels["region"]: joules
        for labels, joules in exporter.scrape().find("energy_region_joules_total", component="cpu")
    }


def process_of(exporter: Exporter, pid: int) -> float:
    """Joules of CPU of the program."""
    return exporter.scrape().total("energy_process_joules_total", pid=str(pid), component="cpu")


def check(python: Path, seconds: float, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What was found, and what is wrong."""
    meter = Meter(folder / "sys")
    paths = ("--path.sysfs", str(folder / "sys"), "--path.cgroupfs", "/sys/fs/cgroup")
    socket, trace = folder / "regions.sock", folder / "trace.json.gz"
    settings = ("--attribution.cpu-scope", "machine", "--idle.watts", "package-0=0")  # the meter has one power
    exporter = Exporter(*paths, "--regions.socket", str(socket), *settings)
    try:
        with prometheus(folder, exporter) as url:
            training = Training(python, socket, seconds, trace)
            pid = training.process.pid
            found = training.hear()
            time.sleep(2.0)
            before = process_of(exporter, pid)
            training.go_on()
            found |= training.hear()
            time.sleep(2.0)
            process = process_of(exporter, pid) - before
            training.go_on()
            training.hear()
            time.sleep(2.0)
            priced = _trace(trace, url)
            training.go_on()
            training.process.wait()
            wait_for(lambda: exporter.scrape().total("energy_region_programs") == 0)
            time.sleep(2.0)  # new counters are at 0 until Prometheus has seen them
            regions = regions_of(exporter)
    finally:
        exporter.end()
        meter.stop()
    return _judge(found, priced, regions, process)


def _judge(
    found: dict[str, Any], priced: dict[str, Any], regions: Mapping[str, float], process: float
) -> tuple[dict[str, Any], list[str]]:
    whole = sum(regions.values())
    lines = {line["name"]: round(line["joules"], 2) for line in priced["lines"]}
    found |= {
        "process_joules": round(process, 2),
        "region_joules": round(whole, 2),
        "regions": {name: round(joules, 2) for name, joules in regions.items()},
        "trace_joules": round(priced["total_joules"], 2),
        "trace_seconds": round(priced["seconds"], 2),
        "trace_layers": lines,
    }
    wrong = []
    if set(regions) != EXPECTED:
        wrong.append(f"regions: {sorted(regions)}")
    if abs(whole / process - 1.0) > TOLERANCE:
        wrong.append(f"regions have {whole:.1f} J, their process {process:.1f} J")
    if abs(sum(lines.values()) / priced["total_joules"] - 1.0) > 0.01 or not any("Linear" in name for name in lines):
        wrong.append("the layers of the trace are not its joules")
    return found, wrong


def _trace(trace: Path, url: str) -> dict[str, Any]:
    """What ``trace`` prints of the profiler's trace."""
    command = [sys.executable, "-m", "exporter", "trace", str(trace), "--by", "layer", "--prometheus.url", url]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SystemExit(f"trace: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="one that has PyTorch")
    parser.add_argument("--folder", type=Path, help="where PyTorch is installed, and found again")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--record", type=Path, help="write what was found")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = given.folder or Path(folder)
        python = given.python or prepare("torch", ENVIRONMENTS["torch"], home) / "python"
        found, wrong = check(python, given.seconds, Path(folder))
    print(json.dumps(found, indent=2))
    for each in wrong:
        print(f"WRONG: {each}")
    if given.record and not wrong:
        given.record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
