"""The shipped tables: where each number is from, and that no zone has a number by accident."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest

from exporter.impact.tables import GOOGLE, OWID, Intensity, UnknownZoneError, look_up


def lines(name: str) -> Iterator[list[str]]:
    text = (files("exporter.impact") / name).read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    yield from rows[1:]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("FR", Intensity(44.18, "FR", "FR", OWID, "lifecycle", "2024")),
        ("de", look_up("DE")),
        ("gcp/europe-west9", Intensity(16.3, "gcp/europe-west9", "", GOOGLE, "operational", "2024")),
        ("AWS/eu-west-3", Intensity(44.18, "aws/eu-west-3", "FR", OWID, "lifecycle", "2024")),
        ("azure/francecentral", Intensity(44.18, "azure/francecentral", "FR", OWID, "lifecycle", "2024")),
    ],
)
def test_a_zone_has_the_number_of_its_table(zone: str, expected: Intensity) -> None:
    assert look_up(zone) == expected


@pytest.mark.parametrize("zone", ["XX", "world", "", "aws/mars-north-1", "gcp/mars", "ovh/gra", "DEU", "/", "aws/"])
def test_an_unknown_zone_has_no_number(zone: str) -> None:
    """Never a world average unasked."""
    with pytest.raises(UnknownZoneError):
        look_up(zone)


def test_every_region_of_aws_and_azure_is_in_a_country_of_the_table() -> None:
    for provider, region, country in lines("cloud_regions.csv"):
        assert look_up(f"{provider}/{region}").country == country


@pytest.mark.parametrize(("name", "column"), [("countries.csv", 2), ("google_regions.csv", 1)])
def test_numbers_are_plausible_and_unique(name: str, column: int) -> None:
    rows = list(lines(name))
    assert len({row[0] for row in rows}) == len(rows) > 40
    assert all(0 < float(row[column]) < 1500 for row in rows)


@pytest.mark.parametrize("name", ["countries.csv", "google_regions.csv", "cloud_regions.csv"])
def test_a_table_names_its_source(name: str) -> None:
    head = (files("exporter.impact") / name).read_text(encoding="utf-8")
    assert head.startswith("# ")
    assert name == "cloud_regions.csv" or "CC BY 4.0" in head or "Apache License 2.0" in head
