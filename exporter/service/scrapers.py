"""The regular scrapers, and which snapshots all of them have received."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_SECONDS = 300.0
"""How long a scraper counts as regular before its interval is known; Prometheus' own limit for stale series."""

_SHORTEST_SECONDS = 5.0
"""A client that does not declare itself and scrapes more often is polling, not scraping."""

_MISSED_SCRAPES = 3
_SCRAPERS_KEPT = 64


@dataclass(slots=True)
class _Scraper:
    sequence: int
    at: float
    declared: bool
    interval_seconds: float | None = None

    def is_regular(self, now: float) -> bool:
        if not self.declared and (self.interval_seconds is None or self.interval_seconds < _SHORTEST_SECONDS):
            return False
        limit = _FIRST_SECONDS if self.interval_seconds is None else _MISSED_SCRAPES * max(self.interval_seconds, 1.0)
        return now - self.at <= min(limit, _FIRST_SECONDS)


class ScrapeLog:
    """Remembers, for each client, the newest snapshot it received.

    A client is a regular scraper if it declares itself (Prometheus, vmagent and the agents built on Prometheus send
    `X-Prometheus-Scrape-Timeout-Seconds`), or if it scrapes repeatedly, every five seconds to five minutes. It stops
    being one when it misses three scrapes. Used by the server's thread and the sampler's: each entry is replaced by one
    assignment.
    """

    def __init__(self) -> None:
        self._scrapers: dict[str, _Scraper] = {}

    def scraped(self, client: str, sequence: int, now: float, *, declared: bool) -> None:
        """Record that ``client`` was sent snapshot ``sequence`` or a newer one, at ``now`` in seconds."""
        known = self._scrapers.get(client)
        entry = _Scraper(sequence, now, declared)
        if known is not None and now - known.at <= _FIRST_SECONDS:
            entry.interval_seconds = now - known.at
            entry.declared |= known.declared
        elif known is None and len(self._scrapers) >= _SCRAPERS_KEPT:
            del self._scrapers[min(self._scrapers, key=lambda key: self._scrapers[key].at)]
        self._scrapers[client] = entry

    def received_by_all(self, now: float) -> int | None:
        """The newest snapshot that every regular scraper has received; None if there are no regular scrapers."""
        regular = [scraper.sequence for scraper in tuple(self._scrapers.values()) if scraper.is_regular(now)]
        return min(regular, default=None)
