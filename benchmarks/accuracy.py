"""How truly joules are divided: charged against true joules of real workers, beside the ratio model on the same traces.

``python -m benchmarks.accuracy [--seconds 5] [--repeats 3] [--interval 0.5] [--learning 90]``; needs root, a writable
cgroup2 and cc.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from . import settings
from .native import CannotMeasure
from .rig import CONTAINERS, CPUS, IDLE_WATTS, PACE, WATTS_PER_CORE, WORKERS, Outcome, Rig, Work, rig
from .table import show, verdict

LOADS = (0.05, 0.10, 0.25, 0.50, 0.75, 1.00)
ROUND_MS = 40.0
VARYING_MS = (50.0, 1500.0)
"""Shortest and longest time that a worker of varying load is busy, and at rest."""

CONSERVATION_GOAL = 1e-9
SLEEPER_GOAL = 0.001


@dataclass(frozen=True, slots=True)
class Scenario:
    """``works`` are who runs; ``goal`` is the largest relative error of a container, ``mean`` says whether of their
    mean (MAPE) or of each; None is no goal. ``sleeper`` is the container that must be charged nothing. ``learned`` is
    charged by learned watts per busy CPU, after a time of the same load.
    """

    name: str
    works: tuple[Work, ...]
    goal: float | None = None
    mean: bool = True
    sleeper: int | None = None
    learned: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one scenario over its repeats, relative to the truth; ``false_charge`` to that of the neighbours."""

    errors: list[float]
    ratio_errors: list[float]
    residual: float
    load: float
    false_charge: float | None

    @property
    def mape(self) -> float:
        """Mean absolute relative error of containers."""
        return fmean(self.errors)

    @property
    def ratio_mape(self) -> float:
        """The same of the ratio model."""
        return fmean(self.ratio_errors)


def equal(load: float) -> Scenario:
    """Containers that all do the same, and together use ``load`` of the node."""
    duty = min(1.0, load * CPUS / (CONTAINERS * WORKERS)) if load < 1.0 else 1.0
    works = tuple(Work(c, "duty", duty, ROUND_MS) for c in range(CONTAINERS) for _ in range(WORKERS))
    return Scenario(f"equal workers, {load:.0%} load", works, 0.02)


SLEEPING = Scenario("one sleeps, one is busy", (Work(0, "duty", 0.8, ROUND_MS), Work(1, "sleep")), 0.02, sleeper=1)
BURSTS = Scenario(
    "bursts of 5-100 ms", tuple(Work(c, "burst", 5.0, 100.0) for c in range(CONTAINERS)), 0.05, mean=False
)
STORM = Scenario(
    "storms of 1-50 ms processes",
    (
        Work(0, "storm", 1.0, 50.0),
        Work(1, "storm", 1.0, 50.0),
        Work(2, "storm", 1.0, 5.0),
        Work(3, "duty", 0.3, ROUND_MS),
    ),
    0.05,
    mean=False,
)
UNEQUAL_WATTS = Scenario(
    "watts per core 1 : 2 : 3",
    tuple(Work(pace, "duty", 0.3, ROUND_MS, pace=pace) for pace in range(len(PACE))),
)
UNLIKE = tuple(Work(pace, "burst", *VARYING_MS, pace=pace) for pace in range(len(PACE)))
ALIKE = tuple(Work(c, "burst", *VARYING_MS) for c in range(len(PACE)))
SCENARIOS = (
    *map(equal, LOADS),
    Scenario("unequal duty, 5-40 %", tuple(Work(c, "duty", 0.05 * 2**c, ROUND_MS) for c in range(4)), 0.02),
    BURSTS,
    STORM,
    Scenario(
        "nested cgroups",
        (
            Work(0, "duty", 0.2, ROUND_MS, "init.scope"),
            Work(0, "duty", 0.3, ROUND_MS, "system.slice/app.service"),
            Work(1, "duty", 0.3, ROUND_MS, "a/b/c/d"),
            Work(2, "storm", 1.0, 50.0, "job"),
        ),
        0.05,
        mean=False,
    ),
    SLEEPING,
    UNEQUAL_WATTS,
    Scenario("1 : 2 : 3, load varies", UNLIKE),
    Scenario("1 : 2 : 3, load varies, learned", UNLIKE, 0.05, learned=True),
    Scenario("equal, load varies, learned", ALIKE, 0.025, learned=True),
)


def score(scenario: Scenario, outcomes: Sequence[Outcome]) -> Score:
    """Compare what was charged with the truth, container by container."""
    errors, ratio_errors, false_charges = [], [], []
    for outcome in outcomes:
        busy = [number for number in outcome.truth if number != scenario.sleeper]
        errors += [abs(outcome.charged[n] / outcome.truth[n] - 1) for n in busy]
        ratio_errors += [abs(outcome.ratio[n] / outcome.truth[n] - 1) for n in busy]
        if scenario.sleeper is not None:
            false_charges.append(outcome.charged[scenario.sleeper] / fmean(outcome.truth[n] for n in busy))
    return Score(
        errors,
        ratio_errors,
        max(outcome.residual for outcome in outcomes),
        fmean(outcome.load for outcome in outcomes),
        max(false_charges) if false_charges else None,
    )


def warm_up(node: Rig) -> None:
    """Let the exporter see the node idle and at work, so that it learns the idle watts."""
    node.quiet(8)
    for load in (0.25, 0.75):
        node.play(equal(load).works, 6 * node.interval, seed=0)
    node.quiet(4)


def interval_of(values: Sequence[float], draws: int = 1000) -> tuple[float, float]:
    """Bootstrap 95 % confidence interval of the mean."""
    dice = random.Random(0)
    means = sorted(fmean(dice.choices(values, k=len(values))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


def main(argv: Sequence[str] | None = None, progress: Callable[[str], None] = lambda _: None) -> int:
    """Print the table. Returns the exit status: 0, or 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each scenario runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--learning", type=float, default=90.0, help="seconds of varying load before learned rows")
    parser.add_argument("--interval", type=float, default=0.5, help="the exporter's sample interval, in seconds")
    wanted = parser.parse_args(argv)
    outcomes: dict[str, list[Outcome]] = {scenario.name: [] for scenario in SCENARIOS}
    outcomes |= {setting.name: [] for setting in settings.SETTINGS}
    try:
        for learned in (True, False):
            with rig(wanted.interval, f"--attribution.cpu={'learned' if learned else 'time'}") as node:
                warm_up(node)
                for repeat in range(wanted.repeats):
                    for scenario in [scenario for scenario in SCENARIOS if scenario.learned == learned]:
                        progress(f"{repeat + 1}/{wanted.repeats} {scenario.name}")
                        learning = wanted.learning if learned else 0.0
                        outcome = node.play(scenario.works, wanted.seconds, repeat + 1, learning)
                        outcomes[scenario.name].append(outcome)
                    for setting in () if learned else settings.SETTINGS:
                        progress(f"{repeat + 1}/{wanted.repeats} {setting.name}")
                        outcomes[setting.name].append(node.play(setting.works, wanted.seconds, repeat + 1))
                last = node.quiet()
    except CannotMeasure as reason:
        print(f"accuracy not measured: {reason}", file=sys.stderr)
        return 1
    scores = {scenario: score(scenario, outcomes[scenario.name]) for scenario in SCENARIOS if outcomes[scenario.name]}
    show(
        f"Active joules charged per container against the truth, {wanted.repeats} runs of {wanted.seconds:g} s each, "
        f"a sample every {wanted.interval:g} s, {CPUS} CPUs, {IDLE_WATTS:g} W idle + {WATTS_PER_CORE:g} W per core; "
        f"learned rows after {wanted.learning:g} s of the same load",
        ("scenario", "load", "MAPE", "95 % CI", "worst", "ratio model: MAPE", "worst", "goal", ""),
        [_row(scenario, found) for scenario, found in scores.items()],
    )
    show(
        "Active joules of one model against those of its own processes, in joules",
        settings.HEADER,
        [settings.row(setting, outcomes[setting.name]) for setting in settings.SETTINGS],
    )
    residual = max(outcome.residual for played in outcomes.values() for outcome in played)
    false_charge = max(found.false_charge or 0.0 for found in scores.values())
    print(
        f"conservation: {residual:.1e} relative (goal {CONSERVATION_GOAL:g}: {verdict(residual <= CONSERVATION_GOAL)})"
    )
    print(
        f"a sleeping container's charge over its busy neighbour's: {false_charge:.4%} "
        f"(goal below {SLEEPER_GOAL:.1%}: {verdict(false_charge < SLEEPER_GOAL)})"
    )
    print(f"idle: {last.idle_watts:.2f} W learned, {IDLE_WATTS:g} W true; counter wrapped {last.wraps:.0f} times")
    return 0


def _row(scenario: Scenario, found: Score) -> tuple[str, ...]:
    low, high = interval_of(found.errors)
    judged = found.mape if scenario.mean else max(found.errors)
    goal = (
        "the model's limit"
        if scenario.goal is None
        else f"{'MAPE' if scenario.mean else 'each'} <= {scenario.goal * 100:g}%"
    )
    return (
        scenario.name,
        f"{found.load:.0%}",
        f"{found.mape:.2%}",
        f"{low:.2%}-{high:.2%}",
        f"{max(found.errors):.2%}",
        f"{found.ratio_mape:.1%}",
        f"{max(found.ratio_errors):.1%}",
        goal,
        "" if scenario.goal is None else verdict(judged <= scenario.goal),
    )


if __name__ == "__main__":
    sys.exit(main(progress=lambda text: print(text, file=sys.stderr, flush=True)))
