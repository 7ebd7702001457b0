"""Accounts of tokens and requests: what the model servers counted, under the labels of the joules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..records import CountKind, GroupKey, Model, ModelPlace, Place, Process, ProcessKey, TokenUse
from ..snapshot import TokenRow, TokenSourceRow, TokenView

Cell = tuple[Place, ModelPlace, CountKind]
"""What one counter counts; the place is empty for a model as a whole."""

_WHOLE: Place = ("", "", "")


class Owner(NamedTuple):
    """The container and model that a server's tokens belong to."""

    place: Place
    model: Model


Locate = Callable[[Process, GroupKey | None], Owner | None]
"""Finds the owner of a server; None while the name of its container or model is not known."""


@dataclass(slots=True)
class _Count:
    """A counter, which is published at 0 until every regular scraper has seen snapshot ``born``."""

    total: float = 0.0
    born: int | None = None

    @property
    def published(self) -> float:
        return self.total if self.born is None else 0.0


@dataclass(slots=True)
class SavedTokens:
    """The counters as the checkpoint keeps them."""

    cells: dict[Cell, float] = field(default_factory=dict)


class TokenAccounts:
    """Counters of models and containers. They only grow, and end with the accounts of joules of the same labels.

    What a server counts while its container or model has no name is kept, and counts once both have one: as the joules
    of a process from before its model was recognised. Without a name it is never published.
    """

    def __init__(self) -> None:
        self._counts: dict[Cell, _Count] = {}
        self._unborn: set[Cell] = set()
        self._owners: dict[ProcessKey, Owner] = {}
        self._pending: dict[ProcessKey, dict[CountKind, float]] = {}
        self._sources: tuple[TokenSourceRow, ...] = ()
        self._steps: dict[ModelPlace, float] = {}
        self._view = TokenView()
        self._changed = False
        self._saved = True

    def release(self, scraped: int | None) -> None:
        """Publish what was at 0 in ``scraped``, the newest snapshot that every regular scraper has received.

        None without regular scrapers.
        """
        for cell in list(self._unborn):
            count = self._counts[cell]
            if scraped is None or (count.born is not None and scraped >= count.born):
                count.born = None
                self._unborn.discard(cell)
                self._changed = True

    def post(self, uses: Sequence[TokenUse], locate: Locate, sequence: int, *, born_at_zero: bool) -> None:
        """Add what all servers counted in one tick, of which snapshot ``sequence`` is published."""
        for use in uses:
            self._post(use, locate, sequence, born_at_zero=born_at_zero)
        self._describe(uses)

    def keep(self, models: Collection[ModelPlace], places: Collection[Place]) -> None:
        """Drop the counters of models and containers that have no account of joules any more."""
        ended = [
            cell for cell in self._counts if (cell[1] not in models if cell[0] == _WHOLE else cell[0] not in places)
        ]
        for cell in ended:
            del self._counts[cell]
            self._unborn.discard(cell)
        if ended:
            self._changed, self._saved = True, False

    @property
    def is_empty(self) -> bool:
        """Whether there is no counter."""
        return not self._counts

    def view(self) -> TokenView:
        """What is published; the same object until something changes."""
        if self._changed:
            self._changed = False
            rows = [TokenRow(*cell, count.published) for cell, count in self._counts.items()]
            self._view = TokenView(
                tuple([row for row in rows if row.place == _WHOLE]),
                tuple([row for row in rows if row.place != _WHOLE]),
                self._sources,
                self._steps,
            )
        return self._view

    def saved(self, *, whole: bool) -> SavedTokens | None:
        """All counters for the checkpoint; for a line of the journal (not ``whole``) None if none changed."""
        if self._saved and not whole:
            return None
        self._saved = True
        return SavedTokens({cell: count.total for cell, count in self._counts.items()})

    def restore(self, saved: SavedTokens) -> None:
        """Continue the counters of an earlier run."""
        self._counts = {cell: _Count(total) for cell, total in saved.cells.items()}
        self._changed = True

    def _post(self, use: TokenUse, locate: Locate, sequence: int, *, born_at_zero: bool) -> None:
        key = use.process.key
        if not use.counts and key in self._owners:
            return
        pending = self._pending.setdefault(key, {})
        for kind, count in use.counts.items():
            pending[kind] = pending.get(kind, 0.0) + count
        owner = locate(use.process, use.group) or self._owners.get(key)
        if owner is None:
            return
        self._owners[key] = owner
        model = owner.model.place
        for kind, count in self._pending.pop(key).items():
            for place in (_WHOLE, owner.place) if kind != "requests" else (_WHOLE,):
                cell = (place, model, kind)
                account = self._counts.get(cell)
                if account is None:
                    account = self._counts[cell] = _Count(born=sequence if born_at_zero else None)
                    self._changed, self._saved = True, False
                    if born_at_zero:
                        self._unborn.add(cell)
                if count:
                    account.total += count
                    self._changed, self._saved = True, False

    def _describe(self, uses: Sequence[TokenUse]) -> None:
        running = {use.process.key for use in uses}
        for known in (self._owners, self._pending):
            for key in [key for key in known if key not in running]:
                del known[key]
        rows = []
        steps: dict[ModelPlace, float] = {}
        for use in uses:
            owner = self._owners.get(use.process.key)
            place, (name, _, variant) = (owner.place, owner.model.place) if owner is not None else (_WHOLE, _WHOLE)
            if owner is not None:
                model = owner.model.place
                steps[model] = max(steps.get(model, 1.0), use.step)
            rows.append(TokenSourceRow(place, name, use.server, use.served_models, use.method, use.read, variant))
        if tuple(rows) != self._sources or steps != self._steps:
            self._sources, self._steps = tuple(rows), steps
            self._changed = True
