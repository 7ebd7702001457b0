"""Energi Data Service of Energinet: CO2 of the electricity used in a Danish price area, and day-ahead prices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ..units import price_per_kwh
from ..values import MOST_GRAMS_PER_KWH
from .http_feed import HttpFeed
from .protocol import FeedKind, FeedOptions, Series, Slot
from .slots import ordered, plausible, unix_seconds

_QUARTER = 900.0
_LATE = 1800.0
"""Five-minute values are published some minutes late, so that the newest one holds for half an hour."""

_MOST_PER_MWH = 100_000.0
_SOURCE = "Energinet, Energi Data Service"


class EnergiDataService(HttpFeed):
    """Records of a dataset, newest first. Times are UTC, without saying so."""

    def __init__(self, options: FeedOptions) -> None:
        super().__init__(options, {404: "the dataset is gone: this exporter is too old for the service"})
        self._of_price = options.quantity == "price"
        self.poll_seconds = 3600.0 if self._of_price else 300.0

    def read(self, now: float) -> Series:  # noqa: ARG002 - the signature of `Feed`
        """The newest records, prices up to the end of tomorrow. Raises `Unavailable`."""
        dataset, time, most = ("DayAheadPrices", "TimeUTC", 192) if self._of_price else ("CO2Emis", "Minutes5UTC", 24)
        query = {
            "limit": str(most),
            "sort": f"{time} DESC",
            "filter": json.dumps({"PriceArea": [self._options.zone]}, separators=(",", ":")),
        }
        answer = self._client.json(f"/dataset/{dataset}", query)
        records = answer.get("records") if isinstance(answer, dict) else None
        rows = [row for row in records if isinstance(row, dict)] if isinstance(records, list) else []
        rows = [row for row in rows if row.get("PriceArea") == self._options.zone]
        slots = self._prices(rows) if self._of_price else ordered(self._intensities(rows))
        if not slots:
            raise self._implausible(f"the answer has no plausible record of {self._options.zone}")
        return Series(slots, self._options.zone, _SOURCE, "" if self._of_price else "direct")

    def _intensities(self, rows: list[dict[str, Any]]) -> Iterator[Slot]:
        for row in rows:
            start = unix_seconds(row.get("Minutes5UTC"))
            value = plausible(row.get("CO2Emission"), 0.0, MOST_GRAMS_PER_KWH)
            if start is not None and value is not None:
                yield Slot(start, start + _LATE, value)

    def _prices(self, rows: list[dict[str, Any]]) -> tuple[Slot, ...]:
        """Prices hold for a quarter of an hour, or for an hour where the records are hours."""
        key = f"DayAheadPrice{self._options.currency}"
        found = []
        for row in rows:
            start, value = unix_seconds(row.get("TimeUTC")), plausible(row.get(key), -_MOST_PER_MWH, _MOST_PER_MWH)
            if start is not None and value is not None:
                found.append((start, value))
        starts = sorted({start for start, _ in found})
        length = min((after - before for before, after in pairwise(starts)), default=_QUARTER)
        return ordered(Slot(start, start + length, price_per_kwh(value, "MWh")) for start, value in found)


KIND = FeedKind(
    "energi-data-service",
    "https://api.energidataservice.dk",
    ("intensity", "price"),
    re.compile(r"DK[12]"),
    "DK1 or DK2",
    EnergiDataService,
    currencies=("EUR", "DKK"),
)
