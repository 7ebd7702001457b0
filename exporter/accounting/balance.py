"""What the machine's meter measured beyond its parts and is not counted yet."""

from __future__ import annotations

SMOOTHING_SECONDS = 60.0
"""What a meter with a period shows beyond the parts is counted over at most this time, because its values and those of
the parts are of different moments, and may differ by more than what is between them."""

DUE_PERIODS = 3.5
"""A meter with a period of which two values in a row are missing has no power now."""

_LEAST_PERIODS = 2.0
_LEAST_VALUES = 6
"""Nothing is expected after fewer."""

_COMPARED_VALUES = 20
_MOST_WEIGHT = 0.5


class Balance:
    """Joules beyond the parts that are not counted yet, below 0 what was counted too much.

    A meter with a period shows what was used until its last value. From then on it is expected to go on as lately, and
    what the next value shows more or less is counted over `smoothing_seconds`: the less one value differs from the
    next, the sooner. What is expected, for a minute at most, is in the balance as a debt until a value shows it.
    """

    def __init__(self) -> None:
        self._joules = 0.0
        self._watts = self._spread = 0.0
        self._values = 0
        self._used_seconds = 0.0

    def observe(self, gained: float, seconds: float, period: float, step: float) -> None:
        """``gained`` joules beyond the parts in the ``seconds`` until a value; a counter may be ``step`` joules off."""
        watts = gained / seconds
        self._values += 1
        spread = max(abs(watts - self._watts), step / seconds)
        self._spread += (spread - self._spread) / min(self._values, _COMPARED_VALUES)
        weight = max(1.0 / self._values, min(_MOST_WEIGHT, period / self.smoothing_seconds(period)))
        self._watts += (watts - self._watts) * weight

    def forget(self) -> None:
        """Values are compared in another way from now on: what they were expected to be is unknown."""
        self._values = 0

    def smoothing_seconds(self, period: float) -> float:
        """Over how long the balance is counted."""
        if self._values < _LEAST_VALUES or self._watts <= self._spread:
            return SMOOTHING_SECONDS
        return min(SMOOTHING_SECONDS, max(_LEAST_PERIODS * period, SMOOTHING_SECONDS * self._spread / self._watts))

    def begin(self, lag_seconds: float) -> None:
        """Until the last value, which was ``lag_seconds`` old when it was read, all has been counted."""
        self._joules = min(self._joules, -self._expected(lag_seconds))

    def add(self, gained: float, debt_limit: float) -> None:
        """``gained`` joules beyond the parts; where these exceed the meter, they leave a debt of ``debt_limit``."""
        self._joules = max(self._joules + gained, min(self._joules, -debt_limit))

    def take(self, seconds: float, period: float, unread_seconds: float, lag_seconds: float) -> float:
        """What is to be counted in a tick of ``seconds``, ``unread_seconds`` after the last value was read."""
        self._used_seconds += seconds
        smoothing = min(self.smoothing_seconds(period), max(period, self._used_seconds))  # at first over less
        share = min(1.0, seconds / smoothing) if period else 1.0
        due = min(DUE_PERIODS * period, SMOOTHING_SECONDS)
        expected = self._expected(lag_seconds + min(unread_seconds, due))
        now = self._expected(seconds) if unread_seconds < due else 0.0
        taken = max(0.0, now + (self._joules + expected) * share)
        self._joules -= taken
        return taken

    def _expected(self, seconds: float) -> float:
        """Joules beyond the parts in so many seconds; 0 where one value says little of the next."""
        known = self._values >= _LEAST_VALUES and self._watts > self._spread
        return self._watts * seconds if known else 0.0
