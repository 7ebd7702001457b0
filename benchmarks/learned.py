"""How far learned watts per busy CPU are off, on random machines: `python -m benchmarks.learned [--machines 200]`.

Each machine runs for fifteen minutes; joules are judged in the last five. Everything is simulated, from a seed: the
estimator sees busy seconds and a noisy meter, as a tick does.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, quantiles
from typing import NamedTuple

from exporter.accounting.joint_estimation import JointEstimator

from .table import show

SECONDS = 900
JUDGED_FROM = 600
CPUS = 32
_WORSE = 0.001
"""A machine counts as worse than with equal shares from this much more mean error on."""


class Tick(NamedTuple):
    """One second of a machine: busy seconds and true joules by container, busy seconds of nobody, and the meter."""

    busy: Mapping[int, float]
    truth: Mapping[int, float]
    other_seconds: float
    joules: float


@dataclass(frozen=True, slots=True)
class Machine:
    """``watts`` per busy CPU by container.

    ``noise`` is the meter's standard deviation, relative; ``together`` the part (0 to 1) of every load that all
    containers have in common; ``drift`` by how much watts swing, relative; ``offset_watts`` the error of the idle
    power; ``bend`` by how much a busy second costs more on a full machine than on an empty one, relative.
    """

    watts: Sequence[float]
    seed: int = 0
    noise: float = 0.01
    together: float = 0.0
    drift: float = 0.0
    offset_watts: float = 0.0
    bend: float = 0.0

    def ticks(self, seconds: int) -> Iterator[Tick]:
        """Run it."""
        dice = random.Random(self.seed)
        most = CPUS / len(self.watts)
        levels = [dice.uniform(0.0, most) for _ in self.watts]
        common = dice.random()
        for second in range(seconds):
            if dice.random() < 0.2:
                common = dice.random()
            levels = [dice.uniform(0.0, most) if dice.random() < 0.1 else level for level in levels]
            busy = [(1 - self.together) * level + self.together * common * most for level in levels]
            other = 0.02 * sum(busy) * dice.random()
            bend = 1 + self.bend * (sum(busy) / CPUS - 0.5)
            truth = [
                use * watts * bend * (1 + self.drift * math.sin(second / 300 + number))
                for number, (use, watts) in enumerate(zip(busy, self.watts, strict=True))
            ]
            used = sum(truth) + other * bend * fmean(self.watts) + self.offset_watts
            joules = max(0.0, used * dice.gauss(1.0, self.noise))
            yield Tick(dict(enumerate(busy)), dict(enumerate(truth)), other, joules)


class Errors(NamedTuple):
    """Mean relative errors of the containers' joules by either method, and the part of them that is identifiable."""

    learned: float
    equal: float
    identifiable: float


def judge(machine: Machine, seconds: int = SECONDS, judged_from: int = JUDGED_FROM) -> Errors:
    """Divide a machine's joules by learned weights and by equal ones; an error is relative to the true share."""
    estimator = JointEstimator[int]()
    learned, equal, truth = ([0.0] * len(machine.watts) for _ in range(3))
    for second, tick in enumerate(machine.ticks(seconds)):
        if second >= judged_from:
            _divide(tick, estimator.weights, learned)
            _divide(tick, {}, equal)
            whole = sum(tick.truth.values())
            for number, joules in tick.truth.items():
                truth[number] += joules / whole
        estimator.observe(tick.busy, tick.joules, 1.0, tick.other_seconds)
    identifiable = fmean([number in estimator.prices for number in range(len(truth))])
    return Errors(_mean_error(learned, truth), _mean_error(equal, truth), identifiable)


def _divide(tick: Tick, weights: Mapping[int, float], shares: list[float]) -> None:
    weighted = {number: busy * weights.get(number, 1.0) for number, busy in tick.busy.items()}
    whole = sum(weighted.values())
    for number, busy in weighted.items():
        shares[number] += busy / whole


def _mean_error(shares: Sequence[float], truth: Sequence[float]) -> float:
    return fmean([abs(share / true - 1.0) for share, true in zip(shares, truth, strict=True)])


def machines(kind: str, count: int) -> list[Machine]:
    """Random machines of one of `KINDS`: 2 to 40 containers of 10 to 30 W per busy CPU, meters off by 0.2 to 2 %."""
    dice = random.Random(kind)
    made = []
    for seed in range(count):
        size = round(2 * 20 ** dice.random())
        watts = [10 * 3 ** dice.random() for _ in range(size)]
        machine = Machine(watts, seed, noise=dice.uniform(0.002, 0.02))
        match kind:
            case "equal watts":
                machine = replace(machine, watts=[20.0] * size)
            case "loads partly move together":
                machine = replace(machine, together=dice.uniform(0.3, 0.9))
            case "proportional loads":
                machine = replace(machine, together=1.0)
            case "drift, bend, wrong idle power":
                drift, bend, offset = dice.uniform(0, 0.2), dice.uniform(-0.2, 0.2), dice.uniform(-20, 20)
                machine = replace(machine, drift=drift, bend=bend, offset_watts=offset)
        made.append(machine)
    return made


KINDS = (
    "loads vary",
    "loads partly move together",
    "drift, bend, wrong idle power",
    "proportional loads",
    "equal watts",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned", description=__doc__)
    parser.add_argument("--machines", type=int, default=200, help="how many, in equal parts of each kind")
    count = max(1, parser.parse_args(argv).machines // len(KINDS))
    found = {kind: [judge(machine) for machine in machines(kind, count)] for kind in KINDS}
    rows = [_row(kind, errors) for kind, errors in found.items()]
    rows.append(_row("all", [each for errors in found.values() for each in errors]))
    show(
        f"Learned watts per busy CPU, {count * len(KINDS)} random machines of 2 to 40 containers, after ten minutes: "
        "mean error of a container's joules",
        ("machines", "", "median", "p90", "worst", "equal shares: median", "p90", "worse than those", "identifiable"),
        rows,
    )


def _row(kind: str, errors: Sequence[Errors]) -> tuple[str, ...]:
    learned, equal = sorted(each.learned for each in errors), sorted(each.equal for each in errors)
    return (
        kind,
        str(len(errors)),
        f"{median(learned):.2%}",
        f"{_p90(learned):.2%}",
        f"{learned[-1]:.2%}",
        f"{median(equal):.1%}",
        f"{_p90(equal):.1%}",
        f"{fmean(each.learned > each.equal + _WORSE for each in errors):.0%}",
        f"{fmean(each.identifiable for each in errors):.0%}",
    )


def _p90(values: Sequence[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


if __name__ == "__main__":
    main()
