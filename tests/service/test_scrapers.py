"""Which clients are regular scrapers, and what all of them have received."""

from __future__ import annotations

import pytest

from exporter.service.scrapers import ScrapeLog


def test_without_scrapers_nothing_is_awaited() -> None:
    assert ScrapeLog().received_by_all(0.0) is None


def test_one_request_by_hand_is_no_regular_scraper() -> None:
    log = ScrapeLog()
    log.scraped("127.0.0.1 curl", 7, 100.0, declared=False)
    assert log.received_by_all(100.0) is None


def test_a_declared_scraper_is_regular_from_its_first_scrape() -> None:
    log = ScrapeLog()
    log.scraped("10.0.0.1 Prometheus", 7, 100.0, declared=True)
    assert log.received_by_all(100.0) == log.received_by_all(399.0) == 7
    assert log.received_by_all(401.0) is None, "one scrape, five minutes ago"


@pytest.mark.parametrize(("interval", "regular"), [(1.0, False), (5.0, True), (60.0, True), (301.0, False)])
def test_a_client_that_repeats_is_regular_unless_it_polls(interval: float, regular: bool) -> None:
    log = ScrapeLog()
    log.scraped("10.0.0.1 telegraf", 1, 0.0, declared=False)
    log.scraped("10.0.0.1 telegraf", 2, interval, declared=False)
    assert log.received_by_all(interval) == (2 if regular else None)


def test_the_slowest_of_several_counts_until_it_misses_three_scrapes() -> None:
    log = ScrapeLog()
    for number in range(20):
        log.scraped("10.0.0.1 Prometheus", number, 15.0 * number, declared=True)
    for number in range(5):
        log.scraped("10.0.0.2 Prometheus", 4 * number, 60.0 * number, declared=True)
    assert log.received_by_all(290.0) == 16
    log.scraped("10.0.0.1 Prometheus", 28, 419.0, declared=True)
    assert log.received_by_all(420.0) == 16
    assert log.received_by_all(421.0) == 28


def test_only_so_many_clients_are_kept() -> None:
    log = ScrapeLog()
    for number in range(1000):
        log.scraped(f"10.0.{number >> 8}.{number & 255} Prometheus", number, float(number), declared=True)
    assert log.received_by_all(1000.0) == 1000 - 64
