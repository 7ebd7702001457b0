"""How long a scrape takes with eight scrapers at once, and how much they delay the sampler's tick."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from statistics import median
from typing import NamedTuple

from .crowd import crowd
from .table import quantile, show, verdict

PROCESSES, GROUPS, SHOWN = 10_000, 1_000, 800
SCRAPERS = 8
PERIOD = 0.23
WARM_UP = 5
"""Rounds until bodies are rendered ahead: a bit over one sample. The last one is left out too: scrapers end in it."""
GOAL_SCRAPE = 0.010
GOAL_DELAY = 0.020

Ticks = list[tuple[float, float]]


class Scrapes(NamedTuple):
    """Seconds of the scrapers' answers: the slowest at each instant, all, and the slowest of the very first, for which
    nothing was rendered ahead. Bytes on the wire of the last.
    """

    slowest: list[float]
    every: list[float]
    first: float
    size: int


def main(seconds: float = 30.0) -> None:
    """Print a table where a tenth of the cgroups is active, and one where every cgroup is."""
    for packed in (True, False):
        _table(seconds, packed=packed)


def _table(seconds: float, *, packed: bool) -> None:
    with crowd(PROCESSES, GROUPS, packed=packed) as on:
        command = [sys.executable, "-m", "benchmarks.stopwatch", *on.flags]
        command += ["--web.listen-address=127.0.0.1:0", f"--process.top={SHOWN}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as exporter:
            assert exporter.stdout
            port = int(exporter.stdout.readline())
            time.sleep(60.0)  # until it found who is active
            # The very first scrape makes the labels of every series; all later ones find them made.
            series(port)
            quiet_from = _boot()
            time.sleep(seconds)
            loaded_from = _boot()
            gzip, plain = scrape(port, "gzip", seconds), scrape(port, "identity", seconds)
            loaded_to = _boot()
            count = series(port)
            output, _ = exporter.communicate()
        floor = _floor(gzip.size, seconds)
    ticks = [(float(began), float(ended)) for began, ended in map(str.split, output.splitlines())]
    quiet = [tick for tick in ticks if quiet_from <= tick[0] < loaded_from]
    loaded = [tick for tick in ticks if loaded_from <= tick[0] < loaded_to]
    p99, delay = quantile(gzip.every, 0.99), max(_delays(loaded))
    spread = "packed" if packed else "spread"
    show(
        f"Serving, active ones {spread}: {count:,} series, {SCRAPERS} scrapers at once, each {PERIOD:g} s",
        ("milliseconds", "median", "p99", "worst"),
        [
            (f"scrape, gzip, {gzip.size:,} bytes", *_milliseconds(gzip.every)),
            ("scrape, gzip, the slowest of each eight", *_milliseconds(gzip.slowest)),
            ("scrape, gzip, the first of all, nothing rendered ahead", "", "", f"{gzip.first * 1e3:.1f}"),
            ("the same bytes from a server that does nothing else", *_milliseconds(floor.every)),
            (f"scrape, not compressed, {plain.size:,} bytes", *_milliseconds(plain.every)),
            ("tick starts late, no scrapers", *_milliseconds(_delays(quiet))),
            ("tick starts late, scraped", *_milliseconds(_delays(loaded))),
            ("tick takes, no scrapers", *_milliseconds([ended - began for began, ended in quiet])),
            ("tick takes, scraped", *_milliseconds([ended - began for began, ended in loaded])),
        ],
    )
    print(
        f"goals: scrape p99 at most {GOAL_SCRAPE * 1e3:g} ms: {verdict(p99 <= GOAL_SCRAPE)}; "
        f"no tick starts more than {GOAL_DELAY * 1e3:g} ms late: {verdict(delay <= GOAL_DELAY)}"
    )


def series(port: int) -> int:
    """How many samples the exporter on this port shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return sum(not line.startswith(b"#") for line in answer)


def _floor(size: int, seconds: float) -> Scrapes:
    """What the scrapers measure of themselves and of the machine beside the same crowd."""
    command = [sys.executable, "-m", "benchmarks.static", str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        scrapes = scrape(int(server.stdout.readline()), "gzip", seconds)
        server.communicate()
    return scrapes


def scrape(port: int, encoding: str, seconds: float) -> Scrapes:
    """Scrape it from eight processes at once for so long."""
    first, count = time.monotonic() + 1.0, WARM_UP + int(seconds / PERIOD) + 1
    command = [sys.executable, "-m", "benchmarks.scraper", str(port), encoding, str(first), str(PERIOD), str(count)]
    scrapers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(SCRAPERS)]
    answers = [[line.split() for line in scraper.communicate()[0].splitlines()] for scraper in scrapers]
    assert all(len(lines) == count for lines in answers), "a scraper failed"
    took = [[float(seconds) for seconds, _ in lines] for lines in answers]
    slowest = [max(together) for together in zip(*took, strict=True)]
    every = [one for lines in took for one in lines[WARM_UP:-1]]
    return Scrapes(slowest[WARM_UP:-1], every, slowest[0], int(answers[0][-1][1]))


def _delays(ticks: Ticks, interval: float = 1.0) -> list[float]:
    """How late each tick began, against a steady schedule through the earliest of them."""
    phase = min(began - number * interval for number, (began, _) in enumerate(ticks))
    return [began - phase - number * interval for number, (began, _) in enumerate(ticks)]


def _milliseconds(values: list[float]) -> tuple[str, str, str]:
    return tuple(f"{value * 1e3:.1f}" for value in (median(values), quantile(values, 0.99), max(values)))  # type: ignore[return-value]


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
