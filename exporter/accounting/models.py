"""Accounts of AI models, and which containers work for which of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..records import Model
from ..snapshot import AccountRow
from .accounts import Account


class ModelAccounts:
    """One account per model name, namespace and phase; it outlives the processes and pods that serve it."""

    def __init__(self, serials: Iterator[int]) -> None:
        self._serials = serials
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._of: dict[Account, Counter[Account]] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def join(self, model: Model, container: Account) -> Account:
        """A process of ``container`` starts to work for ``model``."""
        account = self._accounts.get(model[:3])
        if account is None:
            account = self._accounts[model[:3]] = Account(next(self._serials), model)
        account.members += 1
        account.ended_at = None
        self._of.setdefault(container, Counter())[account] += 1
        return account

    def leave(self, account: Account, container: Account, now: float) -> None:
        """A process that had joined ended."""
        account.members -= 1
        if account.members == 0:
            account.ended_at = now
        models = self._of[container]
        models[account] -= 1
        if not models[account]:
            del models[account]
        if not models:
            del self._of[container]

    def only(self, container: Account) -> Account | None:
        """The model all processes of a container work for, if there is no doubt which."""
        models = self._of.get(container)
        return next(iter(models)) if models is not None and len(models) == 1 else None

    def by_container(self) -> dict[int, Model]:
        """Serial of each container's account that has exactly one model → that model."""
        found = {}
        for container in self._of:
            account = self.only(container)
            if account is not None and isinstance(account.owner, Model):
                found[container.serial] = account.owner
        return found

    def expire(self, deadline: float) -> list[Account]:
        """Drop the accounts whose last process ended before ``deadline``."""
        gone = [account for account in self if account.expired(deadline)]
        for account in gone:
            if isinstance(account.owner, Model):
                del self._accounts[account.owner[:3]]
        return gone

    def restore(self, account: Account) -> None:
        """Take over an account of an earlier run."""
        if isinstance(account.owner, Model):
            self._accounts[account.owner[:3]] = account

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of all of them."""
        return tuple([account.row for account in self if account.row])
