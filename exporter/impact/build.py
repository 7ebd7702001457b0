"""From settings to the schedule of factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..config.loading import ConfigError
from ..config.settings import Settings
from . import tariff_file
from .schedule import Schedule, Span, Timetable
from .tables import UnknownZoneError, look_up
from .values import Factors
from .zone import detect

OFF = "off"
"""The zone of those who want no grams."""

_DEMO = Factors(
    intensity=0.0,
    price=0.0,
    pue=1.3,
    currency="EUR",
    zone="demo",
    provider="simulated",
    source="simulated",
    basis="location",
    factor_type="lifecycle",
    estimated=True,
)
_DEMO_INTENSITY = Timetable((Span(180.0, start=600, end=960), Span(420.0, start=1080, end=1320), Span(330.0)))
_DEMO_PRICE = Timetable((Span(0.24, start=1320, end=360), Span(0.31)))


def build(settings: Settings, zone_of_machine: Callable[[], str] = detect) -> Schedule | None:
    """The schedule of factors, None if neither intensity nor price is known. Raises `ConfigError`.

    What the operator set comes first, then the file, then the table for the zone. A zone that the machine's
    cloud-init names is used if the tables have it; a zone that the operator named must be in them.
    """
    if settings.demo and not _is_set(settings):
        return Schedule(_DEMO, _DEMO_INTENSITY, _DEMO_PRICE)
    problems: list[str] = []
    tariff = tariff_file.Tariff()
    if settings.impact_file:
        try:
            tariff = tariff_file.read(settings.impact_file)
        except ConfigError as error:
            problems += error.problems
    factors = Factors(pue=settings.impact_pue)
    if settings.impact_price is not None:
        if not tariff_file.CURRENCY.fullmatch(settings.impact_currency):
            problems.append("impact.price needs impact.currency, a code such as EUR")
        factors = replace(factors, price=settings.impact_price, currency=settings.impact_currency)
    elif tariff.price is not None:
        if settings.impact_currency not in ("", tariff.currency):
            problems.append(f"impact.currency is {settings.impact_currency}, and impact.file has {tariff.currency}")
        values = [span.value for span in tariff.price.spans]
        factors = replace(factors, price=values[0], currency=tariff.currency, credits=min(values) < 0)
    factors = _with_intensity(factors, settings, tariff.intensity, zone_of_machine, problems)
    if problems:
        raise ConfigError(problems)
    if factors.intensity is None and factors.price is None:
        return None
    by_operator = settings.impact_intensity is not None
    return Schedule(
        factors,
        None if by_operator or factors.intensity is None else tariff.intensity,
        None if settings.impact_price is not None else tariff.price,
    )


def _is_set(settings: Settings) -> bool:
    price, intensity = settings.impact_price, settings.impact_intensity
    return price is not None or intensity is not None or bool(settings.impact_file or settings.impact_zone)


def _with_intensity(
    factors: Factors,
    settings: Settings,
    timetable: Timetable | None,
    zone_of_machine: Callable[[], str],
    problems: list[str],
) -> Factors:
    named = settings.impact_zone
    if named.lower() == OFF:
        return factors
    zone = named or zone_of_machine()
    own = replace(factors, zone=zone, provider="operator", basis="location")
    if settings.impact_intensity is not None:
        return replace(own, intensity=settings.impact_intensity, source="impact.intensity")
    if timetable is not None:
        return replace(own, intensity=timetable.spans[0].value, source="impact.file")
    if not zone:
        return factors
    try:
        found = look_up(zone)
    except UnknownZoneError as error:
        if named:
            problems.append(f"impact.zone: {error}")
        return factors
    return replace(
        factors,
        intensity=found.grams_per_kwh,
        zone=found.zone,
        provider="table",
        source=found.source,
        basis="location",
        factor_type=found.factor_type,
        year=found.year,
        estimated=True,
    )
