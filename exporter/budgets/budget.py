"""Budgets: an amount of energy, carbon or money for a selection of series in a window, with burn-rate alerts."""

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


class Unit(NamedTuple):
    """What a budget is an amount of: ``key`` in the file, and ``scale``, how much of the counters one of it is.

    ``counter`` is the end of the names of the counters, ``quantity`` what the names of recorded series have of it.
    """

    key: str
    scale: float
    counter: str
    quantity: str

    @property
    def amount(self) -> str:
        """The recorded series of the budget itself."""
        return f"energy_budget_{self.quantity}"

    @property
    def rate(self) -> str:
        """The recorded consumption per second."""
        return f"budget:energy_{self.quantity}:rate5m"

    @property
    def rate_of_month(self) -> str:
        """The same with the label ``month``, the number of the month in which it was recorded."""
        return f"budget:energy_{self.quantity}_of_month:rate5m"

    @property
    def used(self) -> str:
        """The recorded consumption in the window."""
        return f"budget:energy_used_{self.quantity}:sum"


UNITS: Mapping[str, Unit] = {
    unit.key: unit
    for unit in (
        Unit("kwh", 3.6e6, "joules_total", "joules"),
        Unit("grams", 1.0, "carbon_grams_total", "carbon_grams"),
        Unit("cost", 1.0, "cost_total", "cost"),
    )
}


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a budget: rolling, or the calendar month in UTC. All times are in seconds.

    ``interval`` is the evaluation interval. The net growth of consumption is taken over ``lookback``; a budget that it
    exhausts within ``horizon`` fires an alert.
    """

    name: str
    seconds: int
    burns: tuple[Burn, Burn, Burn]
    lookback: int
    horizon: int
    interval: int
    calendar: bool = False

    @property
    def length(self) -> str:
        """PromQL of its length in seconds; that of a month is a scalar that depends on the time."""
        return f"scalar(days_in_month() * {DAY})" if self.calendar else str(self.seconds)


def _window(
    name: str, seconds: int, spans: tuple[int, int, int, int, int, int], *times: int, calendar: bool = False
) -> Window:
    # Alerts on error budgets use burn rates of 14 and 6. A machine never draws more than its rated power, so a factor f
    # can only be reached by a budget below 1/f of full power: 2 by every budget below half of it, 1.1 by nearly all.
    fast, fast_short, medium, medium_short, slow, slow_short = spans
    burns = (
        Burn("fast", fast, fast_short, 2.0),
        Burn("medium", medium, medium_short, 1.5),
        Burn("slow", slow, slow_short, 1.1),
    )
    lookback, horizon, interval = times
    return Window(name, seconds, burns, lookback, horizon, interval, calendar)


_MONTHLY = (6 * HOUR, HOUR, DAY, 6 * HOUR, 3 * DAY, DAY)

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
        _window("30d", 30 * DAY, _MONTHLY, DAY, 3 * DAY, 2 * MINUTE),
        _window("month", 31 * DAY, _MONTHLY, DAY, 3 * DAY, 2 * MINUTE, calendar=True),
    )
}
"""Shorter windows have shorter spans; those of 30 days are the usual ones for error budgets."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget. ``selector`` pairs label names with patterns, ``amount`` is what is allowed per window.

    The amount is in joules, grams of CO2e or units of ``currency``, which only a budget of money has.
    """

    name: str
    selector: tuple[tuple[str, str], ...]
    amount: float
    window: Window
    owner: str
    severity: str
    unit: Unit = UNITS["kwh"]
    currency: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all series of the budget."""
        return {"budget": self.name, "owner": self.owner, "severity": self.severity, "window": self.window.name}
