"""Posts what model servers counted: under which container and model, and for how long."""

from __future__ import annotations

from collections.abc import Sequence

from ..accounting.ledger import Ledger
from ..accounting.tokens import Owner, TokenAccounts
from ..records import GroupKey, Model, Process, Reading, Workload
from ..workloads.protocol import Namer

_HOUSEKEEPING_SECONDS = 5.0


class TokenPosting:
    """Owns the accounts of tokens. Called by the tick's thread only, after the ledger has posted the tick."""

    def __init__(self, ledger: Ledger, namer: Namer) -> None:
        self.accounts = TokenAccounts()
        self._ledger = ledger
        self._namer = namer
        self._kept_at = float("-inf")

    def post(self, readings: Sequence[Reading], now: float, sequence: int, scraped: int | None) -> None:
        """Add the tokens of one tick; ``sequence`` and ``scraped`` are as in `Ledger.post`."""
        for reading in readings:
            if reading.tokens is not None:
                self.accounts.post(reading.tokens, self._locate, sequence, born_at_zero=scraped is not None)
        self.accounts.release(scraped)
        if not self.accounts.is_empty and now - self._kept_at >= _HOUSEKEEPING_SECONDS:
            self._kept_at = now
            owners = [row.owner for row in self._ledger.models()]
            models = {owner.place for owner in owners if isinstance(owner, Model)}
            places = [row.owner for row in self._ledger.containers()]
            self.accounts.keep(models, {owner.place for owner in places if isinstance(owner, Workload)})

    def _locate(self, process: Process, group: GroupKey | None) -> Owner | None:
        if group is None:
            return None
        workload = self._ledger.owners((group,))[group]
        if workload.provisional:
            return None
        model = self._namer.model(group, process) or self._only_model(workload)
        return None if model is None else Owner(workload.place, model)

    def _only_model(self, workload: Workload) -> Model | None:
        """The model of a server that is none itself, such as Ray's metrics agent: the only one in its container."""
        if self._namer.is_shared(workload):
            return None
        known = self._ledger.process_models()
        models = {
            model.place: model
            for row in self._ledger.processes()
            if (model := known.get(row.serial)) is not None and tuple(row.owner)[2:5] == workload.place
        }
        return next(iter(models.values())) if len(models) == 1 else None
