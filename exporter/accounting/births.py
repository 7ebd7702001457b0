"""Counters that are new: published at 0 until every regular scraper has seen them once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..impact.values import Impact, Rates
from ..records import Component, Workload
from .accounts import Account
from .impacts import total


class Births:
    """Accounts with newborn cells, and the sequence number of the first snapshot that had them."""

    def __init__(self) -> None:
        self._accounts: dict[Account, tuple[int, int]] = {}  # sequence, number of newborn cells

    def observe(self, account: Account, sequence: int) -> None:
        """Take note of the newborn cells of an account that snapshot ``sequence`` publishes."""
        count = len(account.newborn)
        if account.held_until is None and self._accounts.get(account, (0, 0))[1] != count:
            self._accounts[account] = (sequence, count)

    def release(self, scraped: int | None) -> list[Account]:
        """Publish what accounts hold that every regular scraper has seen at 0; returns those accounts.

        ``scraped`` is the newest snapshot that all regular scrapers have received, None if there are none.
        """
        released = [
            account for account, (sequence, _) in self._accounts.items() if scraped is None or scraped >= sequence
        ]
        for account in released:
            account.newborn = frozenset()
            del self._accounts[account]
        return released

    def forget(self, accounts: Iterable[Account]) -> None:
        """Drop accounts that were closed."""
        for account in accounts:
            self._accounts.pop(account, None)

    def unpublished(self) -> dict[Component, float]:
        """Joules of containers' newborn cells, by component."""
        joules: defaultdict[Component, float] = defaultdict(float)
        for account in self._accounts:
            if isinstance(account.owner, Workload) and account.held_until is None:
                for (component, _), amount in account.newborn_joules().items():
                    joules[component] += amount
        return joules

    def impacts_of_unpublished(self, rates: Rates) -> list[Impact]:
        """Grams and money of containers' newborn cells."""
        return [
            total(account.newborn_joules(), account.settled, rates)
            for account in self._accounts
            if isinstance(account.owner, Workload) and account.held_until is None
        ]
