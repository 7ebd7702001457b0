"""How often `compare` is wrong on synthetic servers, of which the effect is known: ``python -m benchmarks compare``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from exporter.analysis.paired import Block, Comparison, compare

BLOCK_SECONDS = 300.0
DAY_BLOCKS = 288

SEEDS = 200


@dataclass(frozen=True)
class Traffic:
    """Of one arm: mean output tokens a second of a server, by hour a factor, prompt tokens by output token, drifts.

    ``correlation`` is that of the load, and of what energy scatters by (``scatter``), from one block to the next.
    """

    load: float = 300.0
    by_day: float = 3.0
    mix: float = 2.0
    mix_scatter: float = 0.2
    length: float = 250.0
    scatter: float = 0.03
    correlation: float = 0.6
    drift_a_day: float = 0.0


def blocks(random: Random, first: int, count: int, traffic: Traffic, saving: float = 0.0) -> list[Block]:
    """Consecutive blocks from number ``first`` on; midnight is block 0. ``saving`` is of the active energy by token.

    A server of 120 W, 0.35 J by output token at low load and a third less at high load, 0.02 J by prompt token.
    """
    found = []
    rest = math.sqrt(1 - traffic.correlation**2)
    jitter, noise = random.gauss(0, 1), random.gauss(0, 1)
    for number in range(first, first + count):
        jitter = traffic.correlation * jitter + rest * random.gauss(0, 1)
        noise = traffic.correlation * noise + rest * random.gauss(0, 1)
        hour = 0.5 - 0.5 * math.cos(2 * math.pi * number / DAY_BLOCKS)
        load = traffic.load * traffic.by_day ** (hour - 0.5) * math.exp(0.25 * jitter)
        mix = traffic.mix * math.exp(traffic.mix_scatter * random.gauss(0, 1))
        work = load * BLOCK_SECONDS
        token = 0.35 / (1 + load / 900)
        joules = 120 * BLOCK_SECONDS + work * (token + 0.02 * mix) * (40 / traffic.length + 0.84)
        joules *= (1 - saving) * (1 + traffic.scatter * noise) * math.exp(traffic.drift_a_day * number / DAY_BLOCKS)
        found.append(Block(number * BLOCK_SECONDS, joules, work, load, mix, traffic.length))
    return found


Arms = tuple[list[Block], list[Block]]
Scene = Callable[[Random, float], Arms]


def _canary(traffic: Traffic, other: Traffic | None = None, count: int = DAY_BLOCKS) -> Scene:
    """Both arms at the same time."""

    def make(random: Random, saving: float) -> Arms:
        start = random.randrange(DAY_BLOCKS)
        return blocks(random, start, count, traffic), blocks(random, start, count, other or traffic, saving)

    return make


def _change(traffic: Traffic, other: Traffic | None = None, count: int = 2 * DAY_BLOCKS) -> Scene:
    """First one arm, then the other."""

    def make(random: Random, saving: float) -> Arms:
        return blocks(random, 0, count, traffic), blocks(random, count, count, other or traffic, saving)

    return make


def _nights(random: Random, saving: float) -> Arms:
    """Simpson's trap: A serves by night, at low load, mostly, and B by day."""
    a, b = blocks(random, 0, 2 * DAY_BLOCKS, Traffic()), blocks(random, 0, 2 * DAY_BLOCKS, Traffic(), saving)
    middle = sorted(block.load for block in a)[DAY_BLOCKS]
    return (
        [block for block in a if block.load < middle or random.random() < 0.25],
        [block for block in b if block.load >= middle or random.random() < 0.25],
    )


def _mixes(random: Random, saving: float) -> Arms:
    """A has short prompts three times of four, B long ones."""
    short, long = Traffic(mix=1.0), Traffic(mix=4.0)
    arms: Arms = ([], [])
    for arm, effect in ((0, 0.0), (1, saving)):
        for part in range(16):
            rare = part % 4 == 0
            traffic = (long if rare else short) if arm == 0 else (short if rare else long)
            arms[arm].extend(blocks(random, part * 36, 36, traffic, effect))
    return arms


SCENES: dict[str, Scene] = {
    "canary, a day": _canary(Traffic()),
    "canary, six hours": _canary(Traffic(), count=72),
    "canary, six hours, independent blocks": _canary(Traffic(correlation=0.0), count=72),
    "canary, two hours, independent blocks": _canary(Traffic(by_day=1.5, correlation=0.0), count=24),
    "canary, load and noise correlated 0.9": _canary(Traffic(correlation=0.9)),
    "before and after, two days each": _change(Traffic()),
    "before and after, correlated 0.9": _change(Traffic(correlation=0.9)),
    "before and after, B at twice the load": _change(Traffic(load=250), Traffic(load=500)),
    "before and after, drift of -3 % a day": _change(Traffic(drift_a_day=-0.03)),
    "canary, drift of -10 % a day": _canary(Traffic(drift_a_day=-0.10)),
    "Simpson: A by night, B by day": _nights,
    "Simpson: A short prompts, B long ones": _mixes,
    "B with prompts 30 % shorter": _canary(Traffic(mix=2.4), Traffic(mix=1.7)),
    "three blocks of each arm": _canary(Traffic(), count=3),
}
SAVINGS = (0.0, 0.05, 0.10, 0.20)


def outcomes(scene: Scene, saving: float, seeds: Sequence[int]) -> list[Comparison]:
    """One comparison for each seed."""
    return [compare(*scene(Random(f"{seed} {saving}"), saving), BLOCK_SECONDS) for seed in seeds]


def main(seeds: Sequence[int] = range(SEEDS)) -> None:
    """Print the shares of verdicts, and of intervals that cover the planted saving."""
    print(f"{len(seeds)} seeds; % of saves, costs more, not enough data; % of the intervals given that cover the truth")
    print(f"{'':40}" + "".join(f"{f'planted {saving:.0%}':>22}" for saving in SAVINGS))
    for name, scene in SCENES.items():
        cells = []
        for saving in SAVINGS:
            found = outcomes(scene, saving, seeds)
            verdicts = Counter(one.verdict for one in found)
            known = [one.saving for one in found if one.saving is not None]
            shares = [verdicts[verdict] / len(found) for verdict in ("saves", "costs more", "not enough data")]
            covered = f"{sum(one.covers(saving) for one in known) / len(known):.0%}" if known else "-"
            cells.append(" ".join([*(f"{100 * share:4.0f}" for share in shares), f"{covered.strip('%'):>4}"]))
        print(f"{name:40}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
