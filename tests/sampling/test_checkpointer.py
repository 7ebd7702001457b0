"""The state file on a disk that is slow, or full, or both."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from exporter.accounting.checkpoint import State, decode, encode
from exporter.accounting.devices import Devices
from exporter.accounting.ledger import Ledger
from exporter.accounting.region_accounts import RegionAccounts
from exporter.accounting.tokens import TokenAccounts
from exporter.host import Host
from exporter.records import GroupKey, Process, Workload
from exporter.sampling.checkpointer import Accounts, Changes, Checkpointer
from exporter.sampling.state_file import StateStore
from exporter.workloads.protocol import Namer
from tests.support.patience import patience, wait_for


class Names(Namer):
    def workload(self, group: GroupKey) -> Workload:
        return Workload(container=group.path)

    def model(self, group: GroupKey | None, process: Process) -> None:
        pass


class Disk(StateStore):
    """Takes its time over a line, and writes half of it, while it is ``full``."""

    full = False

    def write(self, job: tuple[bytes, bool]) -> None:
        line, whole = job
        if not self.full:
            super().write(job)
            return
        time.sleep(0.3)  # longer than a tick waits for it
        super().write((line[: len(line) // 2], whole))
        self.full = False
        raise OSError(28, "No space left on device")


def test_a_line_that_fails_after_its_tick_is_followed_by_a_checkpoint(tmp_path: Path) -> None:
    """Fault 55: after half a line nothing that is appended can be read."""
    disk = Disk(str(tmp_path / "state"))
    checkpointer, ledger, devices = Checkpointer(disk, Host(procfs=str(tmp_path))), Ledger(Names()), Devices()

    def tick(now: float) -> None:
        devices.joules["package-0"] = now
        checkpointer.write(now, Accounts(ledger, devices, TokenAccounts(), RegionAccounts()), Changes((), ()), 60.0)

    tick(1.0)
    disk.full = True
    tick(2.0)
    wait_for(lambda: not disk.full)
    time.sleep(0.1)
    tick(3.0)
    tick(4.0)
    disk.close()
    assert decode((tmp_path / "state").read_bytes()).devices.joules == {"package-0": 4.0}


def test_what_changed_since_the_last_tick_is_written_before_the_disk_syncs_the_last_checkpoint(tmp_path: Path) -> None:
    """An exporter that is killed because it takes too long to stop has lost nothing."""
    seen: list[float] = []

    class Syncing(StateStore):
        def write(self, job: tuple[bytes, bool]) -> None:
            if job[1] and accounts.devices.joules["package-0"] > 1.0:
                seen.append(decode((tmp_path / "state").read_bytes()).devices.joules["package-0"])
            super().write(job)

    accounts = Accounts(Ledger(Names()), Devices(), TokenAccounts(), RegionAccounts())
    accounts.devices.joules["package-0"] = 1.0
    checkpointer = Checkpointer(Syncing(str(tmp_path / "state")), Host(procfs=str(tmp_path)))
    checkpointer.write(1.0, accounts, Changes((), ()), 60.0)
    accounts.devices.joules["package-0"] = 2.0
    checkpointer.close(2.0, accounts)
    assert seen == [2.0]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("ends", [True, False])
def test_nothing_is_lost_while_a_checkpoint_is_being_synced(tmp_path: Path, first: bool, ends: bool) -> None:
    """Whether the process has ended before the sync does, or not."""
    goes_on = threading.Event()

    class Syncing(StateStore):
        hangs = False

        def _sync(self, file: int) -> None:
            if self.hangs:
                goes_on.wait(patience())

    store = Syncing(str(tmp_path / "state"))
    accounts = Accounts(Ledger(Names()), Devices(), TokenAccounts(), RegionAccounts())
    checkpointer = Checkpointer(store, Host(procfs=str(tmp_path)))
    for now in (1.0, 2.0, 3.0, 4.0):
        store.hangs = first or now > 2.0
        accounts.devices.joules["package-0"] = now
        checkpointer.write(now, accounts, Changes((), ()), 1.0 if now == 3.0 else 60.0)
    checkpointer.close(5.0, accounts)
    if ends:
        goes_on.set()
        wait_for(lambda: not (tmp_path / "state.new").exists())
    state = decode((tmp_path / "state").read_bytes())
    assert (state.at, state.devices.joules) == (5.0, {"package-0": 4.0})
    goes_on.set()


def test_the_start_of_the_counters_survives_restarts(tmp_path: Path) -> None:
    def run(store: StateStore) -> Checkpointer:
        checkpointer = Checkpointer(store, Host(procfs=str(tmp_path)))
        checkpointer.load()
        return checkpointer

    path, before = str(tmp_path / "state"), time.time()
    first = run(StateStore(path))
    since = first.counted_since
    assert since is not None
    assert before <= since <= time.time()
    first.close(1.0, Accounts(Ledger(Names()), Devices(), TokenAccounts(), RegionAccounts()))
    second = run(StateStore(path))
    assert second.counted_since == since
    second.close(2.0, Accounts(Ledger(Names()), Devices(), TokenAccounts(), RegionAccounts()))


def test_a_state_file_that_does_not_say_since_when_stays_so(tmp_path: Path) -> None:
    """One of an earlier version: the time of this start would be a false answer."""
    store = StateStore(str(tmp_path / "state"))
    store.write((encode(State("boot", 1.0), whole=True), True))
    checkpointer = Checkpointer(store, Host(procfs=str(tmp_path)))
    assert checkpointer.load() is not None
    assert checkpointer.counted_since is None
    store.close()
