"""Carbon Intensity API of NESO, CC BY 4.0: direct CO2 of Great Britain or of one of its regions, by half hours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..values import MOST_GRAMS_PER_KWH
from .http_feed import HttpFeed
from .protocol import FeedKind, FeedOptions, Series, Slot
from .slots import ordered, plausible, unix_seconds

_HALF_HOUR = 1800.0
_GREAT_BRITAIN = "GB"


class UkCarbonIntensity(HttpFeed):
    """A day of half hours. Of regions there is only a forecast; of Great Britain also what it was, some hours later."""

    poll_seconds = 900.0

    def __init__(self, options: FeedOptions) -> None:
        super().__init__(options, {400: "check the zone: GB, a region from 1 to 17, or a postcode such as RG10"})

    def read(self, now: float) -> Series:
        """The half hours from the one before ``now`` on. Raises `Unavailable`."""
        since = datetime.fromtimestamp(now - _HALF_HOUR, UTC).strftime("%Y-%m-%dT%H:%MZ")
        slots = ordered(self._slots(self._client.json(self._path(since))))
        if not slots:
            raise self._implausible("the answer has no half hour with a plausible intensity")
        zone = self._options.zone
        zone = zone if zone == _GREAT_BRITAIN else f"{_GREAT_BRITAIN}/{zone}"
        return Series(slots, zone, "NESO Carbon Intensity API (CC BY 4.0)", "direct")

    def _path(self, since: str) -> str:
        zone = self._options.zone
        if zone == _GREAT_BRITAIN:
            return f"/intensity/{since}/fw24h"
        return f"/regional/intensity/{since}/fw24h/{'regionid' if zone.isdigit() else 'postcode'}/{zone}"

    def _slots(self, answer: Any) -> Iterator[Slot]:
        rows = answer.get("data") if isinstance(answer, dict) else None
        if isinstance(rows, dict):  # one region, which has the half hours below it
            rows = rows.get("data")
        for row in rows if isinstance(rows, list) else ():
            intensity = row.get("intensity") if isinstance(row, dict) else None
            if not isinstance(intensity, dict):
                continue
            start, end = unix_seconds(row.get("from")), unix_seconds(row.get("to"))
            actual, forecast = (
                plausible(intensity.get(key), 0.0, MOST_GRAMS_PER_KWH) for key in ("actual", "forecast")
            )
            value = forecast if actual is None else actual
            if start is not None and end is not None and start < end and value is not None:
                yield Slot(start, end, value, estimated=actual is None)


KIND = FeedKind(
    "uk-carbon-intensity",
    "https://api.carbonintensity.org.uk",
    ("intensity",),
    re.compile(r"GB|[1-9]|1[0-7]|[A-Z]{1,2}[0-9][0-9A-Z]?"),
    "GB, a region from 1 to 17, or the first part of a postcode such as RG10",
    UkCarbonIntensity,
)
