"""Accounts of AI models, and which containers work for which of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..records import Model, ModelKey
from ..snapshot import AccountRow
from .accounts import Account


class ModelAccounts:
    """One account per model name, namespace and phase; it outlives the processes and pods that serve it."""

    def __init__(self, serials: Iterator[int]) -> None:
        self._serials = serials
        self._accounts: dict[ModelKey, Account] = {}
        self._by_container: dict[Account, Counter[Account]] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def join(self, model: Model, container: Account) -> Account:
        """A process of ``container`` starts to work for ``model``."""
        account = self._accounts.get(model.key)
        if account is None:
            account = self._accounts[model.key] = Account(next(self._serials), model)
        account.join()
        self._by_container.setdefault(container, Counter())[account] += 1
        return account

    def leave(self, account: Account, container: Account, now: float) -> None:
        """A process that had joined ended."""
        account.leave(now)
        models = self._by_container[container]
        models[account] -= 1
        if not models[account]:
            del models[account]
        if not models:
            del self._by_container[container]

    def only(self, container: Account) -> Account | None:
        """The model that all recognised processes of a container work for; None if there are several or none."""
        models = self._by_container.get(container)
        return next(iter(models)) if models is not None and len(models) == 1 else None

    def by_container(self) -> dict[int, Model]:
        """Serial of each container's account that has exactly one model → that model."""
        found = {}
        for container in self._by_container:
            account = self.only(container)
            if account is not None:
                found[container.serial] = _owner(account)
        return found

    def expire(self, deadline: float) -> list[Account]:
        """Remove the accounts whose last process ended before ``deadline``."""
        expired = [account for account in self if account.expired(deadline)]
        for account in expired:
            del self._accounts[_owner(account).key]
        return expired

    def restore(self, account: Account) -> None:
        """Add an account of an earlier run."""
        self._accounts[_owner(account).key] = account

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of all accounts."""
        return tuple([account.row for account in self if account.row])


def _owner(account: Account) -> Model:
    assert isinstance(account.owner, Model)
    return account.owner
