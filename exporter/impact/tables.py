"""The shipped tables of carbon intensity: countries, and regions of cloud providers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple


class Intensity(NamedTuple):
    """Grams of CO2e per kWh of a zone, with the source of the number; ``country`` is where it was looked up."""

    grams_per_kwh: float
    zone: str
    country: str
    source: str
    factor_type: str
    year: str


class UnknownZoneError(ValueError):
    """No table has the zone."""


OWID = "Ember, Energy Institute, Our World in Data (CC BY 4.0)"
GOOGLE = "Google region-carbon-info (Apache-2.0)"

PROVIDERS = ("aws", "azure", "gcp")


def look_up(zone: str) -> Intensity:
    """The intensity of a country (``DE``) or of a cloud provider's region (``gcp/europe-west9``, ``aws/eu-west-3``).

    Google publishes its regions' own values; a region of AWS or Azure has that of its country. Raises
    `UnknownZoneError`.
    """
    provider, slash, region = zone.partition("/")
    if not slash:
        return _country(zone.upper(), zone.upper())
    provider, region = provider.lower(), region.lower()
    if provider not in PROVIDERS:
        raise UnknownZoneError(f"'{provider}' is not one of {', '.join(PROVIDERS)}")
    if provider == "gcp":
        found = next((row["grams_per_kwh"] for row in _rows("google_regions.csv") if row["region"] == region), None)
        if found is None:
            raise UnknownZoneError(f"Google's table has no region '{region}'")
        return Intensity(float(found), f"gcp/{region}", "", GOOGLE, "operational", "2024")
    for row in _rows("cloud_regions.csv"):
        if (row["provider"], row["region"]) == (provider, region):
            return _country(row["country"], f"{provider}/{region}")
    raise UnknownZoneError(f"the country of {provider}'s region '{region}' is not known: give the country's code")


def _country(code: str, zone: str) -> Intensity:
    for row in _rows("countries.csv"):
        if row["country"] == code:
            return Intensity(float(row["grams_per_kwh"]), zone, code, OWID, "lifecycle", row["year"])
    raise UnknownZoneError(f"'{code}' is not the two-letter code of a country in the table")


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (files(__package__) / name).open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))
