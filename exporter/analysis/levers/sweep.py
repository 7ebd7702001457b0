"""A setting that had several values in the window: which one used least energy for the same tokens."""

from __future__ import annotations

from ..bootstrap import LEAST_BLOCKS
from ..facts import Facts, Steps
from .curves import days_of, difference, settings
from .lever import Finding, percent, saves

LEAST_PAIRED = 0.8
"""Share of the tokens that must have been made at loads that both settings had."""


def best(facts: Facts, values: Steps, what: str, unit: str, scale: float) -> Finding | None:
    """The saving of the value below the present one that is surest to save, None where none was seen to.

    ``scale`` turns ``values`` into ``unit``.
    """
    found: list[Finding] = []
    for pair in settings(facts, values):
        if pair.other > pair.current:
            continue
        seen = difference(facts, pair.current_steps, pair.other_steps)
        if seen is None or seen.paired < LEAST_PAIRED or seen.joules.low <= 0:
            continue
        seconds = (
            facts.watched_seconds * len(pair.current_steps) / sum(1 for tokens in facts.output_tokens if tokens > 0)
        )
        gpu = facts.gpu
        now = sum(gpu[step] for step in pair.current_steps)
        joules = seen.joules.times(facts.watched_seconds / seconds)
        evidence = (
            f"with {what} of {pair.other * scale:,.0f} {unit} instead of {pair.current * scale:,.0f} {unit} it used "
            f"{percent(seen.joules.low / now)} to {percent(seen.joules.high / now)} less for the same tokens at the "
            f"same load ({percent(seen.paired)} of its tokens had a load that both were seen at)"
        )
        found.append(saves("measured", joules, evidence))
    return max(found, key=lambda finding: finding.floor, default=None)


def tried(facts: Facts, values: Steps, what: str, unit: str, scale: float) -> str:
    """What is missing to judge the values that a setting had, as the end of a sentence; "" if it had only one."""
    for pair in settings(facts, values):
        days = days_of(facts, pair.other_steps)
        if pair.other < pair.current and days < LEAST_BLOCKS:
            return (
                f"; {what} of {pair.other * scale:,.0f} {unit} was tried for {days} blocks of "
                f"{facts.grid.block * facts.grid.step / 3600:.3g} h, {LEAST_BLOCKS - days} more are needed to judge it"
            )
    return ""
