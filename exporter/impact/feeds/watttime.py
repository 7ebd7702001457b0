"""WattTime, API v3: average (co2_aoer) and marginal (co2_moer) CO2 of a grid region."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ...network.http_client import HttpStatusError
from ..units import grams_per_kwh
from ..values import MOST_GRAMS_PER_KWH
from .http_feed import HttpFeed
from .protocol import FeedKind, FeedOptions, Fixes, Series, Slot
from .slots import ordered, plausible, unix_seconds

_UNIT = "lbs_co2_per_mwh"
_LOGIN_SECONDS = 25 * 60.0
"""The service's token is valid for 30 minutes."""

_DAY = 86_400.0
_PERIOD_SECONDS = 300.0
_FIXES: Fixes = {
    401: "name and password were rejected: write USER:PASSWORD of your account into the token file",
    403: "the plan of this account has not this region and signal: new accounts see co2_moer of CAISO_NORTH only",
    400: "the region is not one of WattTime: its endpoint /v3/my-access lists those of an account",
}


class WattTime(HttpFeed):
    """The average signal is published afterwards, for accounting; the marginal one as a forecast from now on."""

    def __init__(self, options: FeedOptions) -> None:
        super().__init__(options, _FIXES)
        self._bearer = ""
        self._login_at = 0.0

    def read(self, now: float) -> Series:
        """The values around ``now``. Raises `Unavailable`."""
        region = self._options.zone
        if self._options.quantity == "marginal":
            path, query = "/v3/forecast", {"signal_type": "co2_moer", "horizon_hours": "2"}
        else:
            since, until = (datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for at in (now - _DAY, now))
            path, query = "/v3/historical", {"signal_type": "co2_aoer", "start": since, "end": until}
        answer = self._get(path, {"region": region, **query}, now)
        meta = answer.get("meta") if isinstance(answer, dict) else None
        if not isinstance(meta, dict) or meta.get("units") != _UNIT:
            raise self._implausible(f"the answer is not in {_UNIT}")
        slots = ordered(self._slots(answer.get("data"), plausible(meta.get("data_point_period_seconds"), 60.0, _DAY)))
        if not slots:
            raise self._implausible("the answer has no plausible value")
        return Series(slots, region, "WattTime", "direct")

    def _get(self, path: str, query: dict[str, str], now: float) -> Any:
        if not self._bearer or not 0 <= now - self._login_at < _LOGIN_SECONDS:
            self._login(now)
        try:
            return self._client.json(path, query, {"Authorization": f"Bearer {self._bearer}"})
        except HttpStatusError as error:
            if error.status == 401:  # the next request starts with a login
                self._bearer = ""
            raise

    def _login(self, now: float) -> None:
        word = base64.b64encode(self._secret().encode("ascii")).decode("ascii")
        answer = self._client.json("/login", headers={"Authorization": f"Basic {word}"})
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._implausible("the answer to the login has no token")
        self._bearer, self._login_at = token, now

    def _slots(self, rows: Any, period_seconds: float | None) -> Iterator[Slot]:
        for row in rows if isinstance(rows, list) else ():
            start = unix_seconds(row.get("point_time")) if isinstance(row, dict) else None
            pounds = plausible(row.get("value"), 0.0, MOST_GRAMS_PER_KWH) if start is not None else None
            if start is not None and pounds is not None:
                end = start + (period_seconds or _PERIOD_SECONDS)
                yield Slot(start, end, grams_per_kwh(pounds, "lbs/MWh"), estimated=True)


KIND = FeedKind(
    "watttime",
    "https://api.watttime.org",
    ("intensity", "marginal"),
    re.compile(r"[A-Z0-9][A-Z0-9_]{1,40}"),
    "CAISO_NORTH",
    WattTime,
    token="USER:PASSWORD",
)
