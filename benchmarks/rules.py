"""What the shipped rules cost a real Prometheus that watches a thousand nodes, with a month of history."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.support.program import free_port

from .native import CannotMeasure
from .remote_write import send, series
from .table import quantile, show, verdict

NODES = 1000
CONTAINERS = 30
GPUS = 8
NAMESPACES = 40
MODELS = 200
RUNS = 50
SCRAPE_SECONDS = 15
GOAL = 0.10
MEASURE_SECONDS = 360
RULES = Path(__file__).resolve().parent.parent / "prometheus"

Series = tuple[bytes, float, float]
"""Labels, value at the beginning, growth in a second."""


def main() -> None:
    """Fill Prometheus, wait until every group was evaluated, print one table. Takes about eight minutes."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            raise CannotMeasure(f"no {program}: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = int(time.time())
        _write_history(folder, began - 600)
        url = f"127.0.0.1:{free_port()}"
        server = _start(folder, url)
        try:
            fleet = list(_fleet())
            seconds, recorded, cpu = _measure(f"http://{url}", fleet)
        finally:
            server.terminate()
            server.wait(60)
    _report(len(fleet), seconds, recorded, cpu)


def _fleet() -> Iterator[Series]:
    for number in range(NODES):
        yield from _node(number)
    for number in range(MODELS):
        own = {"namespace": f"ns-{number % NAMESPACES}", "pod": f"model-{number}", "instance": f"10.0.0.{number}:8000"}
        for name, growth in (("generation_tokens", 400.0), ("prompt_tokens", 900.0), ("request_success", 2.0)):
            labels = {"__name__": f"vllm:{name}_total", "job": "model-servers", "model_name": f"org/m-{number}", **own}
            yield series(labels), 0.0, growth


def _node(number: int) -> Iterator[Series]:
    node = {"job": "energy", "instance": f"node-{number}"}

    def one(name: str, value: float, growth: float = 0.0, /, **labels: str) -> Series:
        return series({"__name__": f"energy_{name}", **node, **labels}), value, growth

    for component, watts in (("cpu", 200.0), ("dram", 20.0), ("gpu", 2800.0), ("other", 150.0)):
        yield one("node_joules_total", 0, watts, component=component)
        for reason in ("idle", "kernel", "exited", "unknown", "gap"):
            yield one("unattributed_joules_total", 0, watts / 50, component=component, reason=reason)
    for gauge in ("sample_timestamp_seconds", "sample_interval_seconds", "config_last_reload_successful"):
        yield one(gauge, 1e12 if "timestamp" in gauge else 1)
    yield one("conservation_error_ratio", 1e-12)
    for source in ("rapl", "nvml", "procfs", "cgroups", "podresources"):
        yield one("source_up", 1, source=source)
        for reason in ("not_found", "permission", "driver", "timeout", "implausible", "error"):
            yield one("source_failures_total", 0, source=source, reason=reason)
    for gpu in range(GPUS):
        card = {"gpu": str(gpu), "uuid": f"GPU-{number}-{gpu}", "gpu_instance": ""}
        device = {"component": "gpu", "device": card["uuid"], "source": "nvml"}
        yield one("device_joules_total", 0, 350.0, **device)
        yield one("device_up", 1, **device)
        yield one("device_last_reading_timestamp_seconds", 1e12, **device)
        yield one("device_stuck", 0, **device)
        yield one("power_source_info", 1, **device, quality="measured", method="energy_counter")
        yield one("gpu_utilization_ratio", 0.5, **card)
        yield one("gpu_power_limit_watts", 700, **card)
        for reason in ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake"):
            yield one("gpu_throttle_seconds_total", 0, 0.01 * (reason == "sw_power_cap"), **card, reason=reason)
    for place in range(CONTAINERS):
        yield from _container(number, place, one)


def _container(number: int, place: int, one: Any) -> Iterator[Series]:
    model = (number * GPUS + place) % MODELS if place < GPUS else None
    training = model is not None and model < RUNS
    own = {
        "namespace": f"ns-{(number + place if model is None else model) % NAMESPACES}",
        "pod": f"pod-{number}-{place}",
        "container": "main",
    }
    named = {"model_name": f"org/m-{model}", "owner_name": f"run-{model}"} if model is not None else {}
    identity = {"runtime": "kubernetes", "container_id": f"{number:032x}{place:032x}", "owner_kind": "Job", **named}
    yield one("container_info", 1, 0, **own, **identity)
    for component, mode, watts in (("cpu", "active", 5.0), ("dram", "active", 0.5)):
        yield one("container_joules_total", 0, watts, **own, runtime="kubernetes", component=component, mode=mode)
    if model is None:
        return
    card = {"gpu": str(place), "uuid": f"GPU-{number}-{place}", "gpu_instance": ""}
    yield one("gpu_allocated_ratio", 1, 0, **card, **own)
    whose = {"namespace": own["namespace"], "model_name": f"org/m-{model}"}
    whose["phase"] = "training" if training else "inference"
    for mode, watts in (("active", 250.0), ("idle", 90.0)):
        yield one("container_joules_total", 0, watts, **own, runtime="kubernetes", component="gpu", mode=mode)
        yield one("model_joules_total", 0, watts, **whose, component="gpu", mode=mode)


def _write_history(folder: Path, end: int) -> None:
    """What a month of evaluations would have recorded, as blocks: sums over 30 days read all of it."""
    text = folder / "history.om"
    budgets = yaml.safe_load((RULES / "demo/budgets.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    rows: list[tuple[str, str, int, int, float]] = [
        ("budget:energy_joules:rate5m", _labels(rule["labels"]), 30 * 86_400, 60, 500.0)
        for rule in budgets
        if rule["record"] == "budget:energy_joules:rate5m"
    ]
    for number in range(MODELS):
        own = {"namespace": f"ns-{number % NAMESPACES}", "model_name": f"org/m-{number}"}
        phase = {"phase": "training" if number < RUNS else "inference"}
        rows.append(("model:energy_model_watts:zero_filled", _labels({**own, **phase}), 30 * 86_400, 300, 900.0))
        serving = ("output_tokens", "requests", "energy_serving_joules")
        rows += [(f"model:{name}:rate5m", _labels(own), 86_400, 60, 400.0) for name in serving]
        if number < RUNS:
            run = _labels({**own, "run": f"run-{number}"})
            rows.append(("run:energy_container_joules:rate5m", run, 3 * 86_400, 120, 900.0))
    with text.open("w", encoding="utf-8") as file:
        for name, group in itertools.groupby(sorted(rows), key=lambda row: row[0]):
            file.write(f"# TYPE {name} gauge\n")
            for _, labels, window, step, value in group:
                file.writelines(f"{name}{{{labels}}} {value} {at}\n" for at in range(end - window, end, step))
        file.write("# EOF\n")
    command = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        "--max-block-duration=486h",
        "openmetrics",
        str(text),
        str(folder / "data"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    text.unlink()


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))


def _start(folder: Path, address: str) -> subprocess.Popen[bytes]:
    config = {"global": {"evaluation_interval": "1m"}, "rule_files": [f"{RULES}/rules/*.yml", f"{RULES}/demo/*.yml"]}
    (folder / "prometheus.json").write_text(json.dumps(config))
    return subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder}/prometheus.json",
            f"--storage.tsdb.path={folder}/data",
            "--storage.tsdb.retention.time=45d",
            f"--web.listen-address={address}",
            "--web.enable-remote-write-receiver",
        ],
        stderr=subprocess.DEVNULL,
    )


def _measure(url: str, fleet: list[Series]) -> tuple[dict[tuple[str, float], list[float]], int, float]:
    """Seconds of every evaluation by group and interval, once all samples are there; series recorded; CPUs in use."""
    deadline = time.monotonic() + 60
    while not _answers(url):
        if time.monotonic() > deadline:
            raise CannotMeasure("Prometheus does not start")
        time.sleep(0.5)
    now = time.time()
    backlog = [(age, int((now - age) * 1000)) for age in range(20 * SCRAPE_SECONDS, -1, -SCRAPE_SECONDS)]
    send(url, ((own, [(start + (300 - age) * growth, at) for age, at in backlog]) for own, start, growth in fleet))
    filled, used = time.time(), _cpu_seconds(url)
    seconds: dict[tuple[str, float], list[float]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    newest = now
    while time.time() < filled + MEASURE_SECONDS:
        # four samples at a time: as many as from scraping, for a quarter of the work of making them
        time.sleep(max(0.0, newest + 4 * SCRAPE_SECONDS - time.time()))
        fresh = [newest + step * SCRAPE_SECONDS for step in range(1, 5)]
        samples = [(at - now + 300, int(at * 1000)) for at in fresh]
        send(url, ((own, [(start + age * growth, at) for age, at in samples]) for own, start, growth in fleet))
        newest = fresh[-1]
        for group in _get(f"{url}/api/v1/rules")["groups"]:
            key = (group["name"], group["lastEvaluation"])
            if key not in seen and _unix(group["lastEvaluation"]) > filled:
                seen.add(key)
                seconds[group["name"], group["interval"]].append(group["evaluationTime"])
    cpu = (_cpu_seconds(url) - used) / (time.time() - filled)
    recorded = _get(f"{url}/api/v1/query?query=count(%7B__name__=~%22.%2B:.%2B:.%2B%22%7D)")["result"]
    return seconds, int(recorded[0]["value"][1]), cpu


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _answers(url: str) -> bool:
    try:
        _get(f"{url}/api/v1/query?query=1")
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)["data"]


def _cpu_seconds(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("process_cpu_seconds_total ")).split()[1])


def _report(count: int, seconds: dict[tuple[str, float], list[float]], recorded: int, cpu: float) -> None:
    rows, share = [], 0.0
    for (name, interval), found in sorted(seconds.items()):
        median = quantile(found, 0.5)
        if "alerts" not in name:
            share += median / interval
        times = (f"{min(found):.2f}", f"{median:.2f}", f"{max(found):.2f}")
        rows.append((name, f"{interval:g}", str(len(found)), *times, f"{median / interval:.2%}"))
    head = ("group", "every, s", "evaluations", "least, s", "median, s", "most, s", "of interval")
    fleet = f"{NODES:,} nodes, {CONTAINERS} containers, {GPUS} GPUs each"
    show(f"{fleet}: {count:,} series, {recorded:,} recorded", head, rows)
    print(f"all of Prometheus, receiving too: {cpu:.2f} CPUs; load of this machine: {os.getloadavg()[1]:.1f}")
    print(f"goal: recording rules together below {GOAL:.0%} of their intervals: {share:.2%}, {verdict(share < GOAL)}")
