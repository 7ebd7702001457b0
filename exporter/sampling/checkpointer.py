"""Keep the books in the state file: written before they are published, never in the way of a tick."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ..accounting.accounts import Account, Owner
from ..accounting.checkpoint import State, StateCorruptError, encode
from ..accounting.devices import Devices
from ..accounting.ledger import Ledger
from ..host import Host
from .deadline import Crew, Guard
from .state_file import StateForeign, StateStore

_log = logging.getLogger("state")

_WAIT_SECONDS = 0.1


class Changes(NamedTuple):
    """What one tick did to the accounts: those that may have changed, and the owners of those that were closed."""

    accounts: Sequence[Account]
    closed: Sequence[Owner]


class Keeper:
    """Writes a journal line per tick and a checkpoint now and then; a full disk is a warning (fault 55)."""

    def __init__(self, store: StateStore, host: Host, crew: Crew | None = None, *, demo: bool = False) -> None:
        self._store = store
        self._demo = demo
        self._host = host
        self._boot_id = host.boot_id()
        self._crew = crew or Crew("state")
        self._writer = Guard("state", store.write, host.clock, self._crew)
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
            _log.warning("starting with empty books: %s", error)
            return None
        if state is None:
            return None
        if state.demo != self._demo:
            whose = "a simulated node" if state.demo else "a real node"
            raise StateForeign(f"{self._store.path}: the books of {whose}; name another --state.file")
        # Without a boot id nobody knows whether the sensors started again at 0 (fault 54).
        same_boot = bool(self._boot_id) and state.boot_id == self._boot_id and state.at <= self._host.clock()
        return state, same_boot

    def write(self, now: float, ledger: Ledger, devices: Devices, changes: Changes, every_seconds: float) -> None:
        """Write the ``changes`` of this tick, or everything if ``every_seconds`` went by since that was done.

        A device that came or went is written with everything, so that its counter and its labels are kept together.
        """
        if self._writer.busy:
            late = self._writer.take(0)
            if late is None or late.error is not None:
                # This tick's line or that one's is lost: write everything once the disk answers again.
                self._checkpoint_at = float("-inf")
            if late is None:
                return
        whole = now - self._checkpoint_at >= every_seconds or devices.revision != self._revision
        if whole:
            line = self._encode_all(now, ledger, devices)
        else:
            books = ledger.totals()
            books.accounts = [account.saved() for account in changes.accounts]
            line = encode(
                State(self._boot_id, now, devices.points(), books=books, closed=list(changes.closed)), whole=False
            )
        self._writer.ask((line, whole))
        done = self._writer.take(_WAIT_SECONDS)
        error = None if done is None else done.error
        if error is not None:
            self._checkpoint_at = float("-inf")
        elif whole:
            self._checkpoint_at = now
            self._revision = devices.revision
        self._say(error)

    def close(self, now: float, ledger: Ledger, devices: Devices) -> None:
        """Write everything once more and release the file."""
        if not self._writer.busy:
            try:
                self._store.write((self._encode_all(now, ledger, devices), True))
            except OSError as error:
                self._say(error)
        self._crew.stop()
        self._store.close()

    def _encode_all(self, now: float, ledger: Ledger, devices: Devices) -> bytes:
        state = State(self._boot_id, now, devices.points(), devices.samples(), ledger.books(), demo=self._demo)
        state.known = devices.saved()
        return encode(state, whole=True)

    def _say(self, error: Exception | None) -> None:
        failing = error is not None
        if failing != self._failing:
            self._failing = failing
            if failing:
                _log.warning("state file not written, counters would not survive a restart: %s", error)
            else:
                _log.info("state file is written again")
