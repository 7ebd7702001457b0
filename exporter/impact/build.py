"""From settings to the schedule of factors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..config.loading import ConfigError
from ..config.settings import Settings
from ..config.value_types import keeps_secrets
from . import tariff_file
from .schedule import Schedule, Span, Timetable
from .tables import UnknownZoneError, look_up
from .values import Factors
from .zone import detect

if TYPE_CHECKING:
    from .live import Live

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


def build(
    settings: Settings, zone_of_machine: Callable[[], str] | None = None, wall: Callable[[], float] = time.time
) -> Schedule | None:
    """The schedule of factors, None if neither intensity nor price is or will be known. Raises `ConfigError`.

    What the operator set comes first, then the file, then the table for the zone. The zone that the machine itself
    names is used if the tables have it; a zone that the operator named must be in them. Feeds, and another exporter,
    come before all of that as long as they are fresh. Nothing is asked before the schedule is.
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
    elif tariff.currency:
        if settings.impact_currency not in ("", tariff.currency):
            problems.append(f"impact.currency is {settings.impact_currency}, and impact.file has {tariff.currency}")
        values = [span.value for span in tariff.price.spans] if tariff.price else []
        live = any(feed.quantity == "price" for feed in tariff.feeds)
        factors = replace(
            factors,
            price=values[0] if values else None,
            currency=tariff.currency,
            credits=live or any(value < 0 for value in values),
        )
    detected = zone_of_machine or partial(detect, settings.path_sysfs)
    factors = _with_intensity(factors, settings, tariff.intensity, detected, problems)
    if settings.impact_from and tariff.feeds:
        problems.append("impact.from and a feed in impact.file exclude each other: the other exporter has the feed")
    if settings.impact_from_credentials and not keeps_secrets(settings.impact_from):
        problems.append("impact.from-credentials needs impact.from with https")
    if problems:
        raise ConfigError(problems)
    lives = _lives(settings, tariff, factors.currency, wall)
    if factors.intensity is None and factors.price is None and not lives:
        return None
    by_operator = settings.impact_intensity is not None
    return Schedule(
        factors,
        None if by_operator or factors.intensity is None else tariff.intensity,
        None if settings.impact_price is not None else tariff.price,
        lives,
    )


def _lives(settings: Settings, tariff: tariff_file.Tariff, currency: str, wall: Callable[[], float]) -> list[Live]:
    """What is live; constants that the operator set are not replaced by a feed."""
    constant = {"intensity": settings.impact_intensity is not None, "price": settings.impact_price is not None}
    feeds = [feed for feed in tariff.feeds if not constant.get(feed.quantity)]
    if not feeds and not settings.impact_from:
        return []
    # Load HTTP and TLS only where they are used.
    from .feeds.poller import Poller  # noqa: PLC0415
    from .feeds.registry import make  # noqa: PLC0415
    from .live import LiveExporter, LiveSeries  # noqa: PLC0415
    from .other_exporter import RETRY_SECONDS as OTHER_RETRY_SECONDS  # noqa: PLC0415
    from .other_exporter import OtherExporter  # noqa: PLC0415

    age = settings.impact_max_age
    lives: list[Live] = [
        LiveSeries(Poller(make(feed), wall), feed, age, tariff.adder if feed.quantity == "price" else 0.0)
        for feed in feeds
    ]
    if settings.impact_from:
        other = OtherExporter(
            settings.impact_from, settings.impact_from_credentials, currency or settings.impact_currency
        )
        lives.append(LiveExporter(Poller(other, wall, OTHER_RETRY_SECONDS), age))
    return lives


def _is_set(settings: Settings) -> bool:
    price, intensity = settings.impact_price, settings.impact_intensity
    named = settings.impact_file or settings.impact_zone or settings.impact_from
    return price is not None or intensity is not None or bool(named)


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
