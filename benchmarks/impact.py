"""What grams and money add to a tick: exporters with and without them, in turns in one process, on one crowd.

Two runs of one version differ by 5 to 8 % here, as caches, memory layout and clock rates differ. Within one process
they are shared, each round ticks every exporter once, in another order each time, and what is compared is the
difference within a round.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.sampling.sampler import Sampler
from exporter.service.assembly import make_host, make_sampler

from .crowd import crowd
from .table import show, verdict

GOAL = 0.03
SIZES = ((200, 50), (2_000, 200))
PAUSE_SECONDS = 0.1
WARM_UP = 60
RESAMPLES = 2000

TARIFF = """\
intensity: {timezone: Europe/Berlin, periods: [{value: 250, from: "10:00", to: "16:00"}, {value: 400}]}
price: {currency: EUR, timezone: Europe/Berlin, periods: [{value: -0.1, weekdays: [sun]}, {value: 0.28}]}
"""


def interval(values: Sequence[float], rounds: random.Random) -> tuple[float, float]:
    """The middle 95 % of the medians of resamples."""
    found = sorted(median(rounds.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return found[RESAMPLES // 40], found[-RESAMPLES // 40]


def measure(samplers: Mapping[str, Sampler], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each tick of each sampler, round by round, all threads of the process."""
    found: dict[str, list[float]] = {name: [] for name in samplers}
    order = random.Random(1)
    names = list(samplers)
    for number in range(WARM_UP + rounds):
        time.sleep(PAUSE_SECONDS)
        order.shuffle(names)
        for name in names:
            began = time.process_time()
            samplers[name].tick()
            if number >= WARM_UP:
                found[name].append(time.process_time() - began)
    return found


def main(rounds: int = 600) -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tariff = Path(folder, "tariff.yaml")
        tariff.write_text(TARIFF, encoding="utf-8")
        kinds = {
            "without": ["--impact.zone=off"],
            "without, again": ["--impact.zone=off"],
            "constants": ["--impact.zone=DE", "--impact.price=0.3", "--impact.currency=EUR", "--impact.pue=1.2"],
            "tariff": [f"--impact.file={tariff}"],
        }
        for processes, groups in SIZES:
            with crowd(processes, groups) as on:
                samplers = {}
                for name, flags in kinds.items():
                    settings = load(parse([*on.flags, *flags]).flags, {})
                    samplers[name] = make_sampler(settings, make_host(settings))
                ticks = measure(samplers, rounds)
                for sampler in samplers.values():
                    sampler.close()
            base = median(ticks["without"])
            for name in list(kinds)[1:]:
                more = [one - other for one, other in zip(ticks[name], ticks["without"], strict=True)]
                low, high = interval(more, random.Random(1))
                rows.append(
                    (
                        f"{processes:,}",
                        name,
                        f"{base * 1e3:.3f}",
                        f"{median(more) * 1e6:+.1f}",
                        f"{low * 1e6:+.1f} to {high * 1e6:+.1f}",
                        f"{median(more) / base:+.1%}",
                        "" if name == "without, again" else verdict(high / base <= GOAL),
                    )
                )
    show(
        f"Impact: CPU of a tick, medians of {rounds} rounds in one process (goal: at most {GOAL:.0%} more)",
        ("processes", "compared", "without, ms", "more, µs", "95 %, µs", "more", "goal"),
        rows,
    )
