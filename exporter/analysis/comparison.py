"""The outcome of a comparison: the verdict, what it is worth in a year, what both arms were, and what to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .arms import Arm, Boundary, Unit, blocks_of, unit_of
from .bootstrap import Interval
from .lines import JOULES_PER_KWH, YEAR_SECONDS
from .paired import LEVEL, Block, Comparison, compare

_WEEK_SECONDS = 7 * 86400.0
_UNLIKE_RATIO = 1.1
_BOUNDARIES: Mapping[Boundary, str] = {
    "gpu": "GPUs only",
    "gpu+cpu+dram": "GPU, CPU and memory that its processes used",
    "node": "the whole nodes on which it ran, with whatever else ran there",
}


@dataclass(frozen=True, slots=True)
class Side:
    """What one arm was: its blocks, their ``work``, ``seconds`` that they cover, and quantities, None where unknown."""

    arm: Arm
    blocks: Sequence[Block]
    work: float
    joules: float
    seconds: float
    idle_ratio: float | None
    load: float
    highest_load: float
    mix: float | None
    cached_ratio: float | None
    length: float | None
    servers: float | None
    clock_hertz: float | None

    @property
    def joules_per_work(self) -> float | None:
        """At its own loads."""
        return self.joules / self.work if self.work else None


@dataclass(frozen=True, slots=True)
class Options:
    """``active`` counts no idle joules; ``by_server`` pairs by the load of a server instead of that of all of them."""

    block_seconds: float = 300.0
    boundary: Boundary = "gpu+cpu+dram"
    active: bool = False
    by_server: bool = True
    level: float = LEVEL


@dataclass(frozen=True, slots=True)
class Outcome:
    """``kwh_per_year`` and ``money_per_year`` (by currency): what B saves at the current traffic, negative if more."""

    found: Comparison
    sides: tuple[Side, Side]
    unit: Unit
    options: Options
    kwh_per_year: Interval | None
    money_per_year: Mapping[str, Interval]
    notes: Sequence[str]


def outcome(a: Arm, b: Arm, options: Options) -> Outcome:
    """Compare two arms that were read."""
    unit = unit_of((a, b))
    first, second = (_side(arm, unit, options) for arm in (a, b))
    found = compare(first.blocks, second.blocks, options.block_seconds, options.level)
    kwh, money = _worth(found, first, second)
    notes = [*_boundary(options), *_differences(first, second, unit), *_left_out(first, second, found), *_design(a, b)]
    return Outcome(found, (first, second), unit, options, kwh, money, notes)


def _side(arm: Arm, unit: Unit, options: Options) -> Side:
    blocks = blocks_of(
        arm, unit, options.block_seconds, options.boundary, active=options.active, by_server=options.by_server
    )
    kept = [arm.blocks[block.start] for block in blocks]
    joules = sum(sum(sums.joules.values()) for sums in kept)
    idle = sum(value for sums in kept for (_, mode), value in sums.joules.items() if mode == "idle")
    tokens = {kind: sum(sums.tokens.get(kind, 0.0) for sums in kept) for kind in ("output", "prompt", "cached_prompt")}
    requests = sum(sums.requests or 0.0 for sums in kept)
    servers = [sums.servers for sums in kept if sums.servers]
    clocks = [sums.clock_hertz for sums in kept if sums.clock_hertz]
    prompts = tokens["prompt"] + tokens["cached_prompt"]
    work = sum(block.work for block in blocks)
    loads = [block.load for block in blocks]
    return Side(
        arm,
        blocks,
        work,
        sum(block.joules for block in blocks),
        len(blocks) * options.block_seconds,
        idle / joules if joules else None,
        sum(loads) / len(loads) if loads else 0.0,
        max(loads, default=0.0),
        tokens["prompt"] / tokens["output"] if prompts and tokens["output"] else None,
        tokens["cached_prompt"] / prompts if prompts else None,
        tokens["output"] / requests if requests and tokens["output"] else None,
        sum(servers) / len(servers) if servers else None,
        sum(clocks) / len(clocks) if clocks else None,
    )


def _worth(found: Comparison, first: Side, second: Side) -> tuple[Interval | None, Mapping[str, Interval]]:
    """A year of the saving at the current traffic: of both arms if they ran at the same time, else of B."""
    if found.saving is None or found.joules_per_work is None:
        return None, {}
    at_once = _overlap(first.arm, second.arm)
    sides = (first, second) if at_once else (second,)
    seconds = max(side.seconds for side in sides)
    joules = found.joules_per_work[0] * sum(side.work for side in sides) / seconds * YEAR_SECONDS
    paid, used = first.arm.cost, first.arm.cost_joules
    money = {currency: found.saving.times(joules * cost / used) for currency, cost in paid.items()} if used else {}
    return found.saving.times(joules / JOULES_PER_KWH), money


def _overlap(a: Arm, b: Arm) -> bool:
    return min(a.window.end, b.window.end) > max(a.window.start, b.window.start)


def _boundary(options: Options) -> list[str]:
    idle = "idle power of held cards left out" if options.active else "idle power of held cards included"
    if options.boundary == "node":
        idle = "idle power included"
    return [f"Boundary: {options.boundary}: {_BOUNDARIES[options.boundary]}; {idle}; PUE not included."]


def _differences(first: Side, second: Side, unit: Unit) -> list[str]:
    said = []
    if unit == "hour":
        said.append(
            "Neither tokens nor requests are known of both arms: this is energy per hour at whatever load they had, "
            "and says nothing about efficiency."
        )
    elif unit == "request":
        said.append("Tokens are not known of both arms: per request, whatever its length.")
    ran = [sorted(side.arm.ran_on - other.arm.ran_on) for side, other in ((first, second), (second, first))]
    if any(ran):
        words = [", ".join(one) or "none of that" for one in ran]
        said.append(
            f"A and B differ in more than the traffic: A has {words[0]}, B {words[1]}; that is part of the figure."
        )
    for name, of in (("Output tokens of a request", "length"), ("Prompt tokens by output token", "mix")):
        one, other = getattr(first, of), getattr(second, of)
        if one and other and max(one / other, other / one) > _UNLIKE_RATIO:
            said.append(f"{name}: {one:.3g} in A, {other:.3g} in B. Blocks are paired by what they have in common.")
    one, other = first.cached_ratio, second.cached_ratio
    if one is not None and other is not None and abs(one - other) > 0.05:
        said.append(f"Prompt tokens from a cache: {one:.0%} in A, {other:.0%} in B; they are in no mix of the pairing.")
    one, other = first.clock_hertz, second.clock_hertz
    if one and other and max(one / other, other / one) > _UNLIKE_RATIO:
        said.append(f"The SM clock was {one / 1e9:.2f} GHz in A and {other / 1e9:.2f} GHz in B.")
    return said


def _left_out(first: Side, second: Side, found: Comparison) -> list[str]:
    said = []
    for name, side in (("A", first), ("B", second)):
        parts = [f"{count} {reason}" for reason, count in sorted(side.arm.dropped.items())]
        if parts:
            said.append(f"Blocks of {name} that are left out: {'; '.join(parts)}.")
        if missing := len(side.arm.blocks) - len(side.blocks):
            said.append(f"Blocks of {name} without work, or without energy inside the boundary: {missing}.")
        if side.arm.idle_joules > 0:
            said.append(f"{name} used {side.arm.idle_joules / JOULES_PER_KWH:.3g} kWh in blocks without a token.")
    if min(found.paired_ratio) < 1 and found.bins:
        a, b = found.paired_ratio
        said.append(
            "Traffic without a partner at the same load and mix, which is not compared: "
            f"A {max(0.0, 1 - a):.0%}, B {max(0.0, 1 - b):.0%}."
        )
    return said


def _design(a: Arm, b: Arm) -> list[str]:
    said = []
    if not _overlap(a, b):
        said.append(
            "One arm after the other: a drift that both windows show is allowed for; whatever else changed between "
            "them is part of the figure. Both at the same time, on equal hardware, is better evidence."
        )
        if (b.window.start - a.window.start) % _WEEK_SECONDS > 1 or a.window.seconds % _WEEK_SECONDS > 1:
            said.append("The windows are not whole weeks apart: weekdays may differ.")
    said.append("Quality of the answers is not measured here.")
    said.append("The interval is for one look: looking again until it excludes zero is wrong more often than it says.")
    return said
