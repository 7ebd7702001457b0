"""From settings and the file of tariffs to factors; a mistake is a message with key and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.loading import ConfigError
from exporter.config.settings import Settings
from exporter.impact.build import build
from exporter.impact.values import Factors

NOON = 1_796_000_000.0
TARIFF = """\
intensity:
  timezone: Europe/Berlin
  periods:
    - {value: 250, from: "10:00", to: "16:00"}
    - {value: 400}
price:
  currency: EUR
  timezone: Europe/Berlin
  adders: {grid: 0.08, tax: 0.02}
  periods:
    - {value: -0.15, weekdays: [sat, sun], from: "12:00", to: "14:00"}
    - {value: 0.2}
"""


def nowhere() -> str:
    return ""


def factors(settings: Settings, zone: str = "") -> Factors | None:
    schedule = build(settings, lambda: zone)
    return None if schedule is None else schedule.at(NOON)


def tariff(folder: Path, text: str) -> str:
    file = folder / "tariff.yaml"
    file.write_text(text)
    return str(file)


def test_nothing_known_is_nothing_shown() -> None:
    assert build(Settings(), nowhere) is None
    assert build(Settings(impact_pue=1.5), nowhere) is None
    assert build(Settings(impact_zone="off"), lambda: "aws/eu-west-3") is None


def test_the_zone_of_the_machine_is_used_if_the_table_has_it() -> None:
    found = factors(Settings(impact_pue=1.1), "aws/eu-west-3")
    assert found is not None
    assert (found.intensity, found.zone, found.provider, found.year, found.estimated) == (
        44.18, "aws/eu-west-3", "table", "2024", True,
    )  # fmt: skip
    assert (found.price, found.pue) == (None, 1.1)
    assert factors(Settings(), "aws/mars-north-1") is None


def test_what_the_operator_set_comes_first(tmp_path: Path) -> None:
    file = tariff(tmp_path, TARIFF)
    found = factors(Settings(impact_intensity=12.0, impact_zone="DE", impact_file=file))
    assert found is not None
    assert (found.intensity, found.source, found.zone) == (12.0, "impact.intensity", "DE")
    assert found.price in (0.3, -0.05)
    found = factors(Settings(impact_price=0.5, impact_currency="USD", impact_file=file))
    assert found is not None
    assert (found.price, found.currency, found.source) == (0.5, "USD", "impact.file")


def test_prices_of_the_file_include_the_adders_and_may_be_negative(tmp_path: Path) -> None:
    found = factors(Settings(impact_file=tariff(tmp_path, TARIFF)))
    assert found is not None
    assert found.credits
    assert found.currency == "EUR"
    assert found.price == pytest.approx(0.3) or found.price == pytest.approx(-0.05)


def test_the_demonstration_has_both() -> None:
    found = factors(Settings(demo=True))
    assert found is not None
    assert found.intensity
    assert found.price
    assert found.provider == "simulated"
    assert factors(Settings(demo=True, impact_zone="FR")) != found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(impact_zone="Germany"), "impact.zone: 'GERMANY' is not the two-letter code of a country"),
        (Settings(impact_zone="gcp/mars"), "impact.zone: Google's table has no region 'mars'"),
        (Settings(impact_zone="ovh/gra"), "impact.zone: 'ovh' is not one of aws, azure, gcp"),
        (Settings(impact_price=0.3), "impact.price needs impact.currency, a code such as EUR"),
        (Settings(impact_price=0.3, impact_currency="€"), "impact.price needs impact.currency, a code such as EUR"),
        (Settings(impact_file="/nonexistent/tariff.yaml"), "/nonexistent/tariff.yaml: No such file or directory"),
    ],
)
def test_a_mistake_is_named(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(settings, nowhere)
    assert len(error.value.problems) == 1
    assert message in error.value.problems[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: 250", "value: many", "4: intensity: value: 'many' is not a number from 0 to 5000"),
        ("value: 250", "value: -1", "4: intensity: value: '-1' is not a number from 0 to 5000"),
        ("value: 250, ", "", "4: intensity: the key value is missing"),
        ('from: "10:00"', "from: 10:00", None),
        ('from: "10:00"', "from: 25:00", "4: intensity: from: '25:00' is not a time such as 06:30"),
        (', to: "16:00"', "", "4: intensity: from and to must be given together"),
        ("    - {value: 400}\n", "", "4: intensity: no period covers mon 00:00"),
        ("  timezone: Europe/Berlin\n  periods", "  periods", "2: intensity: the key timezone is missing"),
        ("timezone: Europe/Berlin", "timezone: Europe/Bonn", "2: intensity: timezone: 'Europe/Bonn' is not known here"),
        ("currency: EUR", "currency: euro", "7: price: currency: 'euro' is not a code, such as EUR"),
        ("  currency: EUR\n", "", "7: price: the key currency is missing, such as EUR"),
        ("adders: {grid: 0.08, tax: 0.02}", "adders: 0.1", "9: price: adders must be a mapping"),
        ("tax: 0.02", "tax: much", "9: price: adders: tax: 'much' is not a number"),
        ("[sat, sun]", "[sat, sunny]", None),
        ("[sat, sun]", "[sat, zon]", "11: price: weekdays: 'zon' is not one of mon, tue, wed, thu, fri, sat, sun"),
        ("[sat, sun]", "sat", "11: price: weekdays must be a list such as [mon, tue]"),
        ("price:", "prices:", "6: no such key: 'prices'; did you mean price?"),
        ("  adders:", "  currency: EUR\n  adders:", "9: price: currency is given twice"),
        ("intensity:", "intensity: 3\nother:", "1: intensity: must be a mapping of feed, unit, timezone, periods"),
    ],
)
def test_a_mistake_in_the_file_names_its_line(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    file = tariff(tmp_path, TARIFF.replace(old, new, 1))
    if message is None:
        build(Settings(impact_file=file), nowhere)
        return
    with pytest.raises(ConfigError) as error:
        build(Settings(impact_file=file), nowhere)
    assert any(f"{file}:{message}" in problem for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "a: [", "\x00"])
def test_a_file_that_is_no_tariff(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        build(Settings(impact_file=tariff(tmp_path, text)), nowhere)


def test_two_currencies_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"impact.currency is USD, and impact.file has EUR"):
        build(Settings(impact_currency="USD", impact_file=tariff(tmp_path, TARIFF)), nowhere)
