"""A setting that had several values in the window: which one used least energy for the same tokens."""

from __future__ import annotations

from ..facts import Facts, Steps
from .curves import difference, settings
from .lever import Finding, percent, saves

LEAST_PAIRED = 0.8
"""Share of the tokens that must have been made at loads that both settings had."""


def best(facts: Facts, values: Steps, what: str, unit: str, scale: float, lower: bool) -> Finding | None:
    """The saving of the other value that is surest to save, None where none was seen to.

    Only values below the present one with ``lower``. ``scale`` turns ``values`` into ``unit``.
    """
    found: list[Finding] = []
    for pair in settings(facts, values):
        if lower and pair.other > pair.current:
            continue
        seen = difference(facts, pair.current_steps, pair.other_steps)
        if seen is None or seen.paired < LEAST_PAIRED or seen.joules.low <= 0:
            continue
        seconds = (
            facts.watched_seconds * len(pair.current_steps) / sum(1 for tokens in facts.output_tokens if tokens > 0)
        )
        now = sum(facts.gpu[step] for step in pair.current_steps)
        joules = seen.joules.times(facts.watched_seconds / seconds)
        evidence = (
            f"with {what} of {pair.other * scale:,.0f} {unit} instead of {pair.current * scale:,.0f} {unit} it used "
            f"{percent(seen.joules.low / now)} to {percent(seen.joules.high / now)} less for the same tokens at the "
            f"same load ({percent(seen.paired)} of its tokens had a load that both were seen at)"
        )
        found.append(saves("measured", joules, evidence))
    return max(found, key=lambda finding: finding.floor, default=None)
