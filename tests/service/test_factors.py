"""The page of factors, and another exporter that takes them from it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from exporter.exposition.web.server import ServerOptions
from exporter.impact.other_exporter import OtherExporter
from exporter.impact.values import Factors
from exporter.records import Unavailable
from exporter.snapshot import ImpactView, Snapshot
from tests.support.served import LOCAL, Exporter

FACTORS = Factors(302.0, 0.12, 1.3, "EUR", "DE", "electricity-maps", "Electricity Maps", intensity_at=1.8e9)


def snapshot(factors: Factors | None) -> Snapshot:
    return Snapshot(1, 1.8e9, 1000.0, 1.0, impact=None if factors is None else ImpactView(factors))


def test_one_exporter_takes_what_the_other_knows() -> None:
    exporter = Exporter(ServerOptions(LOCAL))
    try:
        exporter.snapshot = snapshot(FACTORS)
        answer, body = exporter.get("/-/factors")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert json.loads(body) == dataclasses.asdict(FACTORS)
        taken = OtherExporter(f"http://127.0.0.1:{exporter.port}").read(1.8e9 + 7)
        assert (taken.factors, taken.at) == (FACTORS, 1.8e9 + 7)
    finally:
        exporter.server.stop()


@pytest.mark.parametrize(
    ("shares", "factors", "words"),
    [
        (True, None, b"neither carbon intensity nor price is known here"),
        (False, FACTORS, b"this exporter takes its factors from another"),
    ],
)
def test_factors_that_are_unknown_or_of_another_are_not_given(
    shares: bool, factors: Factors | None, words: bytes
) -> None:
    """Two exporters that took them from each other would never notice that they age."""
    exporter = Exporter(ServerOptions(LOCAL), shares_factors=shares)
    try:
        exporter.snapshot = snapshot(factors)
        answer, body = exporter.get("/-/factors")
        assert answer.status == 404
        assert words in body
        with pytest.raises(Unavailable) as error:
            OtherExporter(f"http://127.0.0.1:{exporter.port}").read(0.0)
        assert "knows an intensity or a price itself" in error.value.fix
    finally:
        exporter.server.stop()
