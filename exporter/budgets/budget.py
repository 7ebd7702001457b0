"""Energy budgets: an amount of joules for a selection of series in a rolling window, with its burn-rate alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

SEVERITIES = ("critical", "warning", "info")


class Burn(NamedTuple):
    """A burn-rate alert: fires while the power over both spans is above ``factor`` times what the budget allows.

    The ``long`` span, in seconds, shows that the consumption is significant, the ``short`` one that it continues.
    """

    name: str
    long: int
    short: int
    factor: float


@dataclass(frozen=True, slots=True)
class Window:
    """The rolling window of a budget. All times are in seconds.

    ``interval`` is the evaluation interval. The net growth of consumption is taken over ``lookback``; a budget that it
    exhausts within ``horizon`` fires an alert.
    """

    name: str
    seconds: int
    burns: tuple[Burn, Burn, Burn]
    lookback: int
    horizon: int
    interval: int


def _window(name: str, seconds: int, spans: tuple[int, int, int, int, int, int], *times: int) -> Window:
    # Alerts on error budgets use burn rates of 14 and 6. A machine never draws more than its rated power, so a factor f
    # can only be reached by a budget below 1/f of full power: 2 by every budget below half of it, 1.1 by nearly all.
    fast, fast_short, medium, medium_short, slow, slow_short = spans
    burns = (
        Burn("fast", fast, fast_short, 2.0),
        Burn("medium", medium, medium_short, 1.5),
        Burn("slow", slow, slow_short, 1.1),
    )
    lookback, horizon, interval = times
    return Window(name, seconds, burns, lookback, horizon, interval)


WINDOWS: Mapping[str, Window] = {
    window.name: window
    for window in (
        _window(
            "hour",
            HOUR,
            (10 * MINUTE, 5 * MINUTE, 20 * MINUTE, 10 * MINUTE, 40 * MINUTE, 20 * MINUTE),
            10 * MINUTE,
            10 * MINUTE,
            MINUTE,
        ),
        _window("day", DAY, (HOUR, 10 * MINUTE, 2 * HOUR, 30 * MINUTE, 6 * HOUR, 2 * HOUR), HOUR, 3 * HOUR, MINUTE),
        _window("week", 7 * DAY, (3 * HOUR, 30 * MINUTE, 8 * HOUR, 2 * HOUR, DAY, 8 * HOUR), 6 * HOUR, DAY, 2 * MINUTE),
        _window("30d", 30 * DAY, (6 * HOUR, HOUR, DAY, 6 * HOUR, 3 * DAY, DAY), DAY, 3 * DAY, 2 * MINUTE),
    )
}
"""Shorter windows have shorter spans; those of 30 days are the usual ones for error budgets."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget. ``selector`` pairs label names with patterns, ``joules`` is the amount allowed per window."""

    name: str
    selector: tuple[tuple[str, str], ...]
    joules: float
    window: Window
    owner: str
    severity: str

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all series of the budget."""
        return {"budget": self.name, "owner": self.owner, "severity": self.severity, "window": self.window.name}
