"""Write the state file: before a snapshot is published, and without delaying a tick."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from ..accounting.accounts import Account, Owner
from ..accounting.checkpoint import State, StateCorruptError, encode
from ..accounting.devices import Devices
from ..accounting.held_time import HeldSeconds
from ..accounting.ledger import Ledger
from ..accounting.region_accounts import RegionAccounts
from ..accounting.tokens import TokenAccounts
from ..host import Host
from ..impact.values import NOTHING_IN_FORCE, InForce
from .deadline import DeadlineCall, WorkerPool
from .state_file import StateForeign, StateStore

_log = logging.getLogger("state")

_WAIT_SECONDS = 0.1
_LAST_WAIT_SECONDS = 1.0


class Changes(NamedTuple):
    """Accounts that one tick may have changed, and the owners of those that it closed."""

    accounts: Sequence[Account]
    closed: Sequence[Owner]


class Accounts(NamedTuple):
    """Everything that is saved."""

    ledger: Ledger
    devices: Devices
    tokens: TokenAccounts
    regions: RegionAccounts
    in_force: InForce = NOTHING_IN_FORCE
    held: HeldSeconds | None = None


class Checkpointer:
    """Writes a journal line per tick and a checkpoint regularly; a full disk is a warning.

    ``counted_since`` is when the counters started at 0, in Unix seconds, None if the state file does not say.
    """

    def __init__(self, store: StateStore, host: Host, pool: WorkerPool | None = None, *, demo: bool = False) -> None:
        self._store = store
        self._demo = demo
        self._host = host
        self._boot_id = host.boot_id()
        self.counted_since: float | None = host.wall()
        self._pool = pool or WorkerPool("state")
        self._writer = DeadlineCall("state", store.write, host.clock, self._pool)
        self._checkpoint_at = float("-inf")
        self._revision = 0
        self._failing = False

    def load(self) -> tuple[State, bool] | None:
        """State of the last run, and whether it is of this boot; None if there is none or it is damaged.

        Raises `StateForeign` rather than mix joules of a simulated node with measured ones.
        """
        try:
            state = self._store.load()
        except (StateCorruptError, OSError) as error:
            _log.warning("no checkpoint restored, counters start at 0: %s", error)
            return None
        if state is None:
            return None
        if state.demo != self._demo:
            kind = "a simulated node" if state.demo else "a real node"
            raise StateForeign(f"{self._store.path}: the state of {kind}; use another --state.file")
        self.counted_since = state.counted_since
        # Without a boot id it is unknown whether hardware counters restarted at 0.
        same_boot = bool(self._boot_id) and state.boot_id == self._boot_id and state.at <= self._host.clock()
        return state, same_boot

    def write(
        self,
        now: float,
        accounts: Accounts,
        changes: Changes,
        every_seconds: float,
    ) -> None:
        """Write the ``changes`` of this tick, or a whole checkpoint ``every_seconds``.

        A whole checkpoint is also written when a device appeared or was retired, because journal lines have no labels,
        and when the rates of grams and money changed.
        """
        if self._writer.busy:
            late = self._writer.take(0)
            if late is None or late.error is not None:
                # This tick's line or the earlier one is lost: write a checkpoint once the disk responds.
                self._checkpoint_at = float("-inf")
            if late is None:
                return
        ledger, devices, tokens, regions, _, held = accounts
        whole = now - self._checkpoint_at >= every_seconds or devices.revision != self._revision
        if whole:
            line = self._encode_all(now, accounts)
        else:
            state = State(self._boot_id, now, devices.journal(), ledger.totals(), list(changes.closed))
            state.held = held
            state.tokens = tokens.saved(whole=False)
            state.regions = regions.saved(whole=False)
            state.ledger.accounts = [account.saved(whole=False) for account in changes.accounts]
            line = encode(state, whole=False)
        self._writer.request((line, whole))
        done = self._writer.take(_WAIT_SECONDS)
        error = None if done is None else done.error
        if error is not None:
            self._checkpoint_at = float("-inf")
        elif whole:
            self._checkpoint_at = now
            self._revision = devices.revision
        self._log_change(error)

    def close(self, now: float, accounts: Accounts) -> None:
        """Write a last checkpoint and release the file, in at most twice `_LAST_WAIT_SECONDS`.

        A busy disk may take longer to sync a checkpoint than the exporter has to stop: it is appended first.
        """
        if self._writer.busy:
            self._writer.take(_LAST_WAIT_SECONDS)
        line = self._encode_all(now, accounts)
        if not self._writer.busy or self._store.is_syncing:
            with contextlib.suppress(OSError):
                self._store.append_checkpoint(line)
        if not self._writer.busy:
            self._writer.request((line, True))
            done = self._writer.take(_LAST_WAIT_SECONDS)
            if done is None:
                _log.warning("the last checkpoint is not synced: the disk does not respond; it is in the journal")
            elif done.error is not None:
                self._log_change(done.error)
        self._pool.stop()
        self._store.close()

    def _encode_all(self, now: float, accounts: Accounts) -> bytes:
        state = State(
            self._boot_id,
            now,
            accounts.devices.state(),
            accounts.ledger.state(),
            demo=self._demo,
            counted_since=self.counted_since,
            in_force=accounts.in_force,
            held=accounts.held,
            tokens=accounts.tokens.saved(whole=True),
            regions=accounts.regions.saved(whole=True),
        )
        return encode(state, whole=True)

    def _log_change(self, error: Exception | None) -> None:
        failing = error is not None
        if failing != self._failing:
            self._failing = failing
            if failing:
                _log.warning("state file not written, counters would not survive a restart: %s", error)
            else:
                _log.info("state file is writable again")
