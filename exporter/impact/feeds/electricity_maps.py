"""Electricity Maps, API v3: consumption-based average carbon intensity of a zone, lifecycle factors."""

from __future__ import annotations

import re

from ..values import MOST_GRAMS_PER_KWH
from .http_feed import HttpFeed
from .protocol import FeedKind, FeedOptions, Fixes, Series, Slot
from .slots import plausible, unix_seconds

_PATH = "/v3/carbon-intensity/latest"
_FACTORS = "lifecycle"
_GRANULARITY_SECONDS = {"5_minutes": 300.0, "15_minutes": 900.0, "hourly": 3600.0}
_FIXES: Fixes = {
    401: "the token was rejected: write the token of your account into the token file",
    403: "the plan of the token does not include this zone",
    404: "the zone is not one of Electricity Maps: https://app.electricitymaps.com shows their keys",
}


class ElectricityMaps(HttpFeed):
    """The newest value of a zone, requested with the header ``auth-token``."""

    def __init__(self, options: FeedOptions) -> None:
        super().__init__(options, _FIXES)

    def read(self, now: float) -> Series:  # noqa: ARG002 - the signature of `Feed`
        """The value of this hour. Raises `Unavailable`."""
        query = {"zone": self._options.zone, "emissionFactorType": _FACTORS}
        answer = self._client.json(_PATH, query, {"auth-token": self._secret()})
        if not isinstance(answer, dict):
            raise self._implausible("the answer is not an object")
        value = plausible(answer.get("carbonIntensity"), 0.0, MOST_GRAMS_PER_KWH)
        start = unix_seconds(answer.get("datetime"))
        if value is None or start is None:
            raise self._implausible("the answer has no plausible carbonIntensity and datetime")
        if (kind := answer.get("emissionFactorType", _FACTORS)) != _FACTORS:
            raise self._implausible(f"the answer has {kind!r} factors instead of {_FACTORS}")
        length = _GRANULARITY_SECONDS.get(str(answer.get("temporalGranularity")), 3600.0)
        slot = Slot(start, start + length, value, estimated=answer.get("isEstimated") is True)
        return Series((slot,), self._options.zone, "Electricity Maps", _FACTORS)


KIND = FeedKind(
    "electricity-maps",
    "https://api.electricitymaps.com",
    ("intensity",),
    re.compile(r"[A-Z]{2}(-[A-Z0-9]{2,12}){0,2}"),
    "DE or US-CAL-CISO",
    ElectricityMaps,
    token="the API token",
)
