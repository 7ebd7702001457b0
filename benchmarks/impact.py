"""What grams and money add to a tick: the tick and what of it is for them, in turns, of one exporter on one crowd.

Two exporters differ by 5 % here without any difference between them, in one process and in the median of 600 rounds
too: their memory lies elsewhere. So the parts that are for grams and money are measured by themselves, right after
each tick, in the same exporter: taking the factors, and the sums of the node for the snapshot. A change of the factors,
which settles every account, is apart: a feed changes them every 5 minutes to an hour.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.impact.values import InForce, Rates
from exporter.service.assembly import make_host, make_sampler

from .crowd import crowd
from .table import show, verdict

GOAL = 0.03
SIZES = ((200, 50), (2_000, 200))
PAUSE_SECONDS = 0.1
WARM_UP = 60
REPEATS = 20
CHANGE_EVERY_TICKS = 300

TARIFF = """\
intensity: {timezone: Europe/Berlin, periods: [{value: 250, from: "10:00", to: "16:00"}, {value: 400}]}
price: {currency: EUR, timezone: Europe/Berlin, periods: [{value: -0.1, weekdays: [sun]}, {value: 0.28}]}
"""


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main(rounds: int = 200) -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tariff = Path(folder, "tariff.yaml")
        tariff.write_text(TARIFF, encoding="utf-8")
        for processes, groups in SIZES:
            with crowd(processes, groups) as on:
                settings = load(parse([*on.flags, f"--impact.file={tariff}"]).flags, {})
                sampler = make_sampler(settings, make_host(settings))

                def impact(of: object = sampler) -> None:
                    for _ in range(REPEATS):
                        of._price()  # type: ignore[attr-defined]
                        of._impact()  # type: ignore[attr-defined]

                def change(of: object = sampler) -> None:
                    of._factors = None  # type: ignore[attr-defined]
                    of._in_force = InForce(Rates(1e-9, 1e-9, 0.0), "EUR")  # type: ignore[attr-defined]
                    of._price()  # type: ignore[attr-defined]

                ticks, parts, changes = [], [], []
                for number in range(WARM_UP + rounds):
                    time.sleep(PAUSE_SECONDS)
                    tick, part = cpu_seconds(sampler.tick), cpu_seconds(impact) / REPEATS
                    if number >= WARM_UP:
                        ticks.append(tick)
                        parts.append(part)
                    if number % 10 == 0:
                        changes.append(cpu_seconds(change))
                sampler.close()
            tick, part, settling = median(ticks), median(parts), median(changes)
            total = part + settling / CHANGE_EVERY_TICKS
            rows.append(
                (
                    f"{processes:,}",
                    f"{groups:,}",
                    f"{tick * 1e3:.2f}",
                    f"{part * 1e6:.0f}",
                    f"{settling * 1e3:.2f}",
                    f"{total / tick:.2%}",
                    verdict(total / tick <= GOAL),
                )
            )
    show(
        f"Impact: CPU, medians of {rounds} rounds (goal: at most {GOAL:.0%} of a tick)",
        ("processes", "cgroups", "tick, ms", "for impact, µs", "a change, ms", "of a tick", "goal"),
        rows,
    )
