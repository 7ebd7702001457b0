"""A window of which there are no samples for days."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.analysis.advice import MONTH_SECONDS, advise
from exporter.analysis.facts import Fleet
from exporter.analysis.levers.stop_idle import judge
from exporter.analysis.lines import JOULES_PER_KWH
from tests.analysis.test_levers import GRID, HOURS, flat, model

LOST = range(4 * 24, 9 * 24)
"""Hours of which no node has samples: five days of fourteen."""

WATTS = 100.0


def held(seen: bool) -> dict[str, Any]:
    """A model that is held without being used."""
    kept = [0.0 if hour in LOST else 1.0 for hour in HOURS]
    facts = {
        "active": flat(0.0),
        "idle": [WATTS * 3600 * there for there in kept],
        "cpu": flat(0.0),
        "quiet": [WATTS * 3600 * there for there in kept],
        "quiet_seconds": [3600 * there for there in kept],
    }
    return facts | ({"seen": kept} if seen else {})


def test_a_month_is_like_the_time_that_was_seen() -> None:
    facts = model(**held(seen=True))
    assert facts.watched_seconds == (GRID.length - len(LOST)) * 3600
    assert len(facts.parts()) == 9
    assert "100% of the time" in judge(facts, Fleet(GRID, [facts])).because
    (stop,) = [one for one in advise(Fleet(GRID, [facts])).recommended if one.lever.name == "stop_idle"]
    assert stop.kwh is not None
    assert stop.kwh.high == pytest.approx(WATTS * MONTH_SECONDS / JOULES_PER_KWH)


def test_a_model_that_was_away_while_nodes_were_seen_is_not_there_then() -> None:
    facts = model(**(held(seen=False) | {"seen": flat(1.0)}))
    assert facts.watched_seconds == GRID.seconds
    assert len(facts.parts()) == 14


def test_joules_are_seen_wherever_they_are() -> None:
    """A step at whose end no node was scraped."""
    facts = model(seen=[0.0, *flat(1.0)[1:]])
    assert facts.watched_seconds == GRID.seconds


def test_days_without_samples_are_no_advice_that_was_followed() -> None:
    fleet = Fleet(GRID, [model(**held(seen=True))])
    assert not advise(fleet).followed
