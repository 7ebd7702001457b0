"""Two kernels of known and different power in one process on a real card: are their regions' watts those of each alone?

``python -m benchmarks.gpu_regions SECONDS all|few|both`` is that process: matrix products by all multiprocessors of the
card, by a few of them, or both in turns for random times. It prints ``ready``, waits for a line, works, and prints the
seconds in either.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from exporter.regions import region

from .gpu_load import SIZE, TILE, CudaError, Products
from .native import CannotMeasure
from .service import Service
from .table import show

KINDS = {"all": SIZE // TILE, "few": 1}
"""Rows of blocks that a product is made of, by region."""

LENGTHS = {"all": (0.05, 0.25), "few": (0.03, 0.15)}
"""Shortest and longest time in a region, in seconds."""

_SOCKET = "AI_ENERGY_REGIONS_SOCKET"


def compare(uuid: str, joules: Callable[[], float], seconds: float, settle: float) -> None:
    """Print watts of either kernel alone, by the card's counter ``joules``, and of its region in a process of both.

    ``seconds`` are of the process of both, either alone has a sixth. Raises `CannotMeasure`.
    """
    alone = {kind: _alone(uuid, kind, joules, seconds / 6.0, settle) for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "regions.sock"))
        with Service.started("--sample.interval=1s", f"--regions.socket={path}") as exporter:
            time.sleep(settle)
            process = _start(uuid, seconds + 60.0, "both", path)
            time.sleep(seconds)
            found = _regions(exporter.scrape().decode())  # watts are those of a living process
            _end(process)
    rows = []
    for kind, watts in alone.items():
        estimated, low, high, method = found.get(kind, (None, None, None, "-"))
        error = "-" if estimated is None or not watts else f"{100.0 * (estimated / watts - 1.0):+.1f}"
        bounds = "-" if low is None else f"{low:.0f} to {high:.0f}"
        rows.append((kind, f"{watts:.0f}", "-" if estimated is None else f"{estimated:.0f}", bounds, error, method))
    show(
        f"Regions: kernels by all multiprocessors and by a few, alone, and in turns in one process for {seconds:g} s",
        ("region", "W alone, by the counter", "W of the region", "90 % interval", "error, %", "method"),
        rows,
    )


def _alone(uuid: str, kind: str, joules: Callable[[], float], seconds: float, settle: float) -> float:
    process = _start(uuid, seconds + 2 * settle, kind, "")
    time.sleep(settle)
    before, began = joules(), time.monotonic()
    time.sleep(seconds)
    watts = (joules() - before) / (time.monotonic() - began)
    _end(process)
    return watts


def _start(uuid: str, seconds: float, kind: str, path: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_regions", str(seconds), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": uuid, _SOCKET: path or "/nonexistent/regions.sock"},
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    if process.stdout.readline() != "ready\n":
        raise CannotMeasure(f"no load: {process.stderr.read().strip()}")
    process.stdin.write("go\n")
    process.stdin.flush()
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def _regions(scrape: str) -> dict[str, tuple[float | None, float | None, float | None, str]]:
    """Watts, their interval and how they are known, by region."""
    values: dict[tuple[str, str], float] = {}
    methods: dict[str, str] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            if sample.labels.get("component") == "gpu" and "region" in sample.labels:
                values[sample.name, sample.labels["region"]] = sample.value
                if sample.name == "energy_region_info":
                    methods[sample.labels["region"]] = sample.labels["method"]
    return {
        name: (
            values.get(("energy_region_watts", name)),
            values.get(("energy_region_low_watts", name)),
            values.get(("energy_region_high_watts", name)),
            method,
        )
        for name, method in methods.items()
    }


def work(products: Products, seconds: float, kind: str) -> dict[str, float]:
    """Be in the regions of ``kind`` in turns; each product ends before the next begins. Seconds by region."""
    used = dict.fromkeys(KINDS, 0.0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, rows in KINDS.items():
            if kind in (name, "both"):
                began = time.monotonic()
                end = began + random.uniform(*LENGTHS[name])
                with region(name):
                    while time.monotonic() < end:
                        products.make(1, rows)
                used[name] += time.monotonic() - began
    return used


def main() -> int:
    """Returns the exit status: 1 if there is no card to work on."""
    try:
        products = Products()
        print("ready", flush=True)
        sys.stdin.readline()
        print(work(products, float(sys.argv[1]), sys.argv[2]), flush=True)
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
