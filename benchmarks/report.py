"""What ``report`` takes for 30 days of 200 models: time and memory, against a Prometheus filled for it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.support.patience import wait_for
from tests.support.prerequisites import lacking
from tests.support.program import free_port
from tests.support.repository import REPOSITORY
from tests.support.stack import Server

from .native import CannotMeasure
from .table import show, verdict

MODELS, NODES, DAYS, STEP = 200, 25, 30, 600
START = 1_790_812_800
"""2026-10-01 00:00 UTC."""

GOAL_SECONDS, GOAL_MIB = 10.0, 150.0
LEVELS = ("model", "namespace", "workload", "run", "node")
_PROGRAM = """
import re, sys, time
from exporter.cli import main
status = main(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(peak, time.process_time(), file=sys.stderr)
sys.exit(status)
"""
_TIMES = [str(START + second) for second in range(0, DAYS * 86400 + 1, STEP)]


def main() -> None:
    """Fill a Prometheus, and run the command as users do."""
    if reason := lacking("promtool", "prometheus"):
        raise CannotMeasure(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = _write(folder / "data.txt")
        (folder / "prometheus.yml").write_text("", encoding="utf-8")
        command = [
            "promtool",
            "tsdb",
            "create-blocks-from",
            "--max-block-duration=216h",
            "openmetrics",
            "data.txt",
            "data",
        ]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "data.txt").unlink()
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
        command += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=100y"]
        command.append(f"--query.lookback-delta={STEP + 60}s")
        with subprocess.Popen(command, cwd=folder) as process:
            try:
                wait_for(Server(f"http://{address}").is_ready, "Prometheus", 60.0)
                server = psutil.Process(process.pid)
                rows = [_measure(f"http://{address}", by, server) for by in LEVELS]
            finally:
                process.terminate()
    show(
        f"report of {DAYS} days and {MODELS} models on {NODES} nodes: {samples / 1e6:.0f} million samples, one each "
        f"{STEP // 60} minutes; at most {GOAL_SECONDS:.0f} s and {GOAL_MIB:.0f} MiB",
        ["--by", "time", "CPU time, server + command", "memory", "lines", ""],
        rows,
    )


def _measure(url: str, by: str, server: psutil.Process) -> list[str]:
    words = ["report", "--prometheus.url", url, "--by", by, "--format", "csv", "--since", "2026-10-01"]
    before, began = _cpu_seconds(server), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words, "--until", "2026-10-31"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, of_server = time.monotonic() - began, _cpu_seconds(server) - before
    if done.returncode:
        raise CannotMeasure(f"report --by {by}: {done.stderr}")
    kibibytes, own = done.stderr.split()[-2:]
    mebibytes = float(kibibytes) / 1024
    met = verdict(seconds <= GOAL_SECONDS and mebibytes <= GOAL_MIB)
    lines = sum(line.startswith("line,") for line in done.stdout.splitlines())
    return [by, f"{seconds:.1f} s", f"{of_server:.1f} s + {float(own):.1f} s", f"{mebibytes:.0f} MiB", str(lines), met]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _write(path: Path) -> int:
    """Every series in OpenMetrics, family by family. Returns the number of samples."""
    samples = 0
    with path.open("w", encoding="utf-8") as file:
        for name, series in _families().items():
            file.write(f"# TYPE {name.removesuffix('_total')} {'counter' if name.endswith('_total') else 'gauge'}\n")
            for labels, watts in series:
                head, grown = f"{name}{{{labels}}} ", watts * STEP
                file.writelines(f"{head}{1 + grown * n:.6g} {at}\n" for n, at in enumerate(_TIMES))
                samples += len(_TIMES)
        file.write("# EOF\n")
    return samples


def _families() -> dict[str, list[tuple[str, float]]]:
    """Names of families → labels and growth in a second of their series."""
    found: dict[str, list[tuple[str, float]]] = {}

    def add(name: str, labels: str, rate: float) -> None:
        found.setdefault(name, []).append((labels, rate))

    cells = [("gpu", "active", 300.0), ("gpu", "idle", 60.0), ("cpu", "active", 40.0)]
    for number in range(MODELS):
        at = f'instance="node-{number % NODES}:9400",job="energy"'
        namespace, phase = f'namespace="team-{number % 12}"', "training" if number % 5 == 0 else "inference"
        model = f'{at},{namespace},model_name="org/model-{number}",phase="{phase}"'
        container = f'{at},{namespace},pod="model-{number}-0",container="main"'
        for family, labels in (("model", model), ("container", container)):
            for component, mode, watts in cells:
                add(f"energy_{family}_joules_total", f'{labels},component="{component}",mode="{mode}"', watts)
            for mode, watts in (("active", 340.0), ("idle", 60.0)):
                add(f"energy_{family}_carbon_grams_total", f'{labels},mode="{mode}"', watts * 1e-4)
                add(f"energy_{family}_cost_total", f'{labels},mode="{mode}",currency="EUR"', watts * 7e-8)
        for mode, watts in (("active", 300.0), ("idle", 60.0)):
            add("energy_container_gpu_joules_total", f'{container},gpu="0",uuid="GPU-{number}",mode="{mode}"', watts)
        owner = f'owner_kind="Deployment",owner_name="model-{number}",model_name="org/model-{number}"'
        add("energy_container_info", f"{container},{owner}", 0.0)
        add("energy_model_tokens_total", f'{at},{namespace},model_name="org/model-{number}",kind="output"', 50.0)
    for at, watts in _nodes():
        for component, part in (("gpu", 0.9), ("cpu", 0.1)):
            add("energy_node_joules_total", f'{at},component="{component}"', part * watts)
        add("energy_unattributed_joules_total", f'{at},component="cpu",reason="idle"', 0.01 * watts)
        add("energy_node_carbon_grams_total", at, watts * 1e-4)
        add("energy_node_cost_total", f'{at},currency="EUR"', watts * 7e-8)
    return found


def _nodes() -> Iterator[tuple[str, float]]:
    for number in range(NODES):
        yield f'instance="node-{number}:9400",job="energy"', 1.02 * 400.0 * MODELS / NODES


if __name__ == "__main__":
    main()
