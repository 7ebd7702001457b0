"""What a budget is: so many joules for whom, in which rolling window, and how its burning is watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

SEVERITIES = ("critical", "warning", "info")


class Burn(NamedTuple):
    """An alert is due while the power of both spans, in seconds, is above ``factor`` times what the budget allows.

    The long span says that it matters, the short one that it has not stopped.
    """

    name: str
    long: int
    short: int
    factor: float


@dataclass(frozen=True, slots=True)
class Window:
    """A rolling time in which a budget holds; all times are seconds.

    ``interval`` is between two evaluations. The net growth of what was used is taken over ``lookback``, and a budget
    that it exhausts within ``horizon`` is told of.
    """

    name: str
    seconds: int
    burns: tuple[Burn, Burn, Burn]
    lookback: int
    horizon: int
    interval: int


def _window(name: str, seconds: int, spans: tuple[int, int, int, int, int, int], *times: int) -> Window:
    # Error budgets are burnt at 14 or 6 times their rate before somebody is called. A machine cannot do that: it never
    # draws more than its nameplate says, so a factor f is only ever reached by budgets below 1/f of full power.
    # 2 is reached by every budget below half of it, 1.1 by nearly all.
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
"""The shorter the window, the shorter the spans: those of 30 days are the ones in use for error budgets."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget. ``selector`` maps names of labels to patterns, ``joules`` is what the window may hold."""

    name: str
    selector: tuple[tuple[str, str], ...]
    joules: float
    window: Window
    owner: str
    severity: str

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all its series."""
        return {"budget": self.name, "owner": self.owner, "severity": self.severity, "window": self.window.name}
