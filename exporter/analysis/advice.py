"""What to change, ranked: every lever judged for every subject, each joule saved by one lever only. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .adoption import Followed, followed
from .bootstrap import Interval
from .facts import Facts, Fleet, Grid, Subject
from .levers.lever import WEIGHTS, Finding, Lever, Pool, silent, too_short
from .levers.registry import LEVERS
from .lines import JOULES_PER_KWH
from .uses import Use, use
from .window import DAY_SECONDS

MONTH_SECONDS = 30 * DAY_SECONDS

By = Literal["model", "namespace", "lever"]


@dataclass(frozen=True, slots=True)
class Advice:
    """What one lever says of one subject; kWh, grams and money are of 30 days like those that were watched."""

    subject: Subject
    lever: Lever
    finding: Finding
    kwh: Interval | None = None
    floor_kwh: float = 0.0
    grams: Interval | None = None
    cost: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, float]:
        """The lower bound of kWh times the weight of the level, and then of grams."""
        weight = WEIGHTS[self.finding.level]
        return self.floor_kwh * weight, (self.grams.low if self.grams else 0.0) * weight

    def floor_cost(self, currency: str) -> float:
        """Money for ``floor_kwh``."""
        if self.kwh is None or self.kwh.high <= 0 or currency not in self.cost:
            return 0.0
        return self.floor_kwh * self.cost[currency].high / self.kwh.high

    @property
    def is_recommended(self) -> bool:
        """Whether there is a number, or at least a hint."""
        return self.finding.level != "silent"


@dataclass(frozen=True, slots=True)
class Advised:
    """``recommended`` by falling rank, ``checked`` what does not apply, ``followed`` what was changed already."""

    grid: Grid
    recommended: Sequence[Advice]
    checked: Sequence[Advice]
    followed: Sequence[Followed]
    uses: Sequence[Use]
    """What each subject used, and for what."""
    missing: Mapping[str, str]
    containers: Mapping[Subject, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Pod and name of the containers of each workload."""
    asked_seconds: float = 0.0
    """Length of the window that was asked for; the grid begins with the first sample."""

    @property
    def joules(self) -> float:
        """Of all subjects."""
        return sum(used.joules for used in self.uses)

    @property
    def floor_kwh(self) -> float:
        """Lower bounds of the savings of a month, in sum."""
        return sum(advice.floor_kwh for advice in self.recommended)

    @property
    def seen_kwh(self) -> float:
        """Lower bounds of a month's savings that were measured or observed here."""
        return sum(one.floor_kwh for one in self.recommended if one.finding.level != "bound")

    @property
    def bound_kwh(self) -> float:
        """What a month's bounds are at most, in sum."""
        return sum(one.kwh.high for one in self.recommended if one.kwh and one.finding.level == "bound")

    def floor_cost(self, currency: str) -> float:
        """``floor_kwh`` in money."""
        return sum(advice.floor_cost(currency) for advice in self.recommended)


def advise(fleet: Fleet, wanted: Callable[[Subject], bool] = lambda _: True) -> Advised:
    """Everything that can be said of a fleet; only of subjects that are ``wanted``, judged beside all others."""
    recommended: list[Advice] = []
    checked: list[Advice] = []
    done: list[Followed] = []
    subjects = [facts for facts in fleet.subjects if wanted(facts.subject)]
    for facts in subjects:
        for advice in _judge(facts, fleet):
            (recommended if advice.is_recommended else checked).append(advice)
        done += followed(facts, fleet)
    recommended.sort(key=lambda advice: ([-part for part in advice.rank], advice.subject))
    done.sort(key=lambda each: -each.realised.low)
    containers = {facts.subject: facts.containers for facts in subjects if facts.containers}
    return Advised(fleet.grid, recommended, checked, done, list(map(use, subjects)), fleet.missing, containers)


def group(advised: Advised, by: By) -> Advised:
    """The same with what belongs together side by side: the group with the largest sum of ranks first."""
    key: dict[By, Callable[[Advice], object]] = {
        "model": lambda advice: advice.subject,
        "namespace": lambda advice: (advice.subject.cluster, advice.subject.namespace),
        "lever": lambda advice: advice.lever.name,
    }
    sums: dict[object, float] = {}
    for advice in advised.recommended:
        sums[key[by](advice)] = sums.get(key[by](advice), 0.0) + advice.rank[0]
    order = {name: place for place, name in enumerate(sorted(sums, key=lambda name: -sums[name]))}
    return replace(advised, recommended=sorted(advised.recommended, key=lambda advice: order[key[by](advice)]))


def _judge(facts: Facts, fleet: Fleet) -> list[Advice]:
    levers = [lever for lever in LEVERS if facts.subject.kind in lever.about]
    if facts.has_ended:
        reason = silent("it used nothing in the last quarter of the window: it has ended")
        return [Advice(facts.subject, lever, reason) for lever in levers]
    found = [_advice(facts, lever, lever.judge(facts, fleet)) for lever in levers]
    found.sort(key=lambda advice: [-part for part in advice.rank])
    return _exclude(found)


def _advice(facts: Facts, lever: Lever, finding: Finding) -> Advice:
    if finding.level == "hint" and (short := too_short(facts)):
        finding = short
    if finding.joules is None and finding.grams is None:
        return Advice(facts.subject, lever, finding)
    monthly = MONTH_SECONDS / facts.watched_seconds
    if finding.joules is None:
        return Advice(facts.subject, lever, finding, grams=_scaled(finding.grams, monthly))
    most = _available(facts, lever.pools)
    joules = Interval(*(min(end, most) for end in finding.joules))
    kwh = joules.times(monthly / JOULES_PER_KWH)
    per_kwh = facts.grams_per_joule and facts.grams_per_joule * JOULES_PER_KWH
    return Advice(
        facts.subject,
        lever,
        replace(finding, joules=joules),
        kwh,
        min(finding.floor, most) * monthly / JOULES_PER_KWH,
        _scaled(kwh, per_kwh),
        {name: kwh.times(price * JOULES_PER_KWH) for name, price in sorted(facts.price_per_joule.items())},
    )


def _scaled(interval: Interval | None, factor: float | None) -> Interval | None:
    return interval.times(factor) if interval is not None and factor is not None else None


def _available(facts: Facts, pools: Sequence[Pool]) -> float:
    """Joules that there are to save."""
    sums: dict[Pool, float] = {
        "idle": sum(facts.idle),
        "active": sum(facts.active),
        "cpu": sum(facts.cpu),
        "grams": 0.0,
    }
    return sum(sums[pool] for pool in pools)


def _exclude(found: Sequence[Advice]) -> list[Advice]:
    """Each kind of joules is saved by the first lever in rank; others for the same ones become silent."""
    taken: dict[Pool, str] = {}
    kept = []
    for advice in found:
        numbered = advice.kwh is not None or advice.grams is not None
        other = next((taken[pool] for pool in advice.lever.pools if pool in taken), "")
        if not numbered or not other:
            if numbered:
                taken |= dict.fromkeys(advice.lever.pools, advice.lever.name)
            kept.append(advice)
            continue
        reason = (
            f"it would save the same joules as {other}, which saves more: savings do not add. {advice.finding.because}"
        )
        kept.append(Advice(advice.subject, advice.lever, silent(reason)))
    return kept
