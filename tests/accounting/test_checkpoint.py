"""What is written is read back, whatever interrupts the writing."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.accounts import LedgerState, SavedAccount, SettledTotals
from exporter.accounting.baseline import Sample
from exporter.accounting.checkpoint import VERSION, State, StateCorruptError, decode, encode
from exporter.accounting.device_inventory import SavedDevice
from exporter.accounting.devices import DeviceState
from exporter.accounting.held_time import HeldSeconds
from exporter.accounting.meters import Point
from exporter.accounting.tokens import SavedTokens
from exporter.impact.values import InForce, Rates, Settled
from exporter.records import Device, Model, ProcessOwner, Workload

WORKLOAD = Workload("team", "pod-1", 'c"\n\\', "kubernetes", "f" * 64, "uid", "image:1")
MODEL = Model("llama", "team", "inference", "flag", "awq")
GPU = Device('GPU-1"', "gpu", "nvml", "measured", "H100\n", 0.0, within="module-0", method="power_integrated")
PROCESS = ProcessOwner(7, "sh) (", "team", "pod-1", "c")


def state(joules: float = 1.0) -> State:
    return State(
        "boot-1",
        12.5,
        DeviceState(
            {"package-0": Point(1000.25, 12.0)},
            {"package-0": joules},
            {"cpu": joules},
            {"gpu": 7.5},
            {GPU.id: SavedDevice(GPU, 1.7e9), "package-0": SavedDevice(replace(GPU, id="package-0", within=None))},
            {"package-0": [Sample(0.1, 50.0)]},
            {GPU.id: "0"},
            {"cpu": Settled(0.5, 0.25, 1e-7, 0.0)},
        ),
        LedgerState(
            {("cpu", "idle"): 0.25},
            {"cpu": 0.0},
            [
                SavedAccount(
                    WORKLOAD,
                    0,
                    {("cpu", "active"): joules, ("gpu", "idle"): 4.0},
                    {("GPU-1/2", "idle"): 3.0, ("", "idle"): 1.0},
                    {("cpu", "active"): Settled(1.0, 0.5), ("gpu", "idle"): Settled(2.0, 0.0, 0.0, 1e-9)},
                ),
                SavedAccount(PROCESS, 99, {("cpu", "active"): joules, ("gpu", "idle"): 3.0}),
                SavedAccount(MODEL, 0, {("gpu", "active"): 0.1}, activities={"throttled": 0.06, "unknown": 0.04}),
            ],
            SettledTotals({("cpu", "idle"): Settled(0.25, 1.0)}, {"cpu": Settled()}),
        ),
        in_force=InForce(Rates(1.2e-4, 8e-8, None), "EUR"),
        held=HeldSeconds(7200.0, {("ns", "p", "c", "kubernetes"): 3600.0}, 12.5),
        counted_since=1.7e9 + 0.25,
    )


def test_round_trip() -> None:
    read = decode(encode(state(), whole=True))
    assert read == state()


@given(st.floats(0, 1e15), st.floats(0, 1e15))
def test_floats_survive_exactly(first: float, second: float) -> None:
    line = State("", 1.0, DeviceState(joules={"d": second}))
    read = decode(encode(state(first), whole=True) + encode(line, whole=False))
    assert read.devices.joules == {"package-0": first, "d": second}


def test_journal_replaces_and_closes() -> None:
    gone = Workload("", "", "gone", "docker")
    start = state()
    start.ledger.accounts.append(SavedAccount(gone, 0, {("cpu", "active"): 5.0}))
    later = State("", 13.5, closed=[gone])
    later.devices = DeviceState({"package-0": Point(1100.0, 13.0)}, {"package-0": 2.0}, {"cpu": 2.0})
    new = SavedAccount(WORKLOAD._replace(container_id="new"), 0, {("cpu", "active"): 2.0})
    later.ledger = LedgerState({("cpu", "gap"): 1.0}, {"cpu": 5.0}, [new])
    read = decode(encode(start, whole=True) + encode(later, whole=False))
    assert read.at == 13.5
    assert read.devices.points == {"package-0": Point(1100.0, 13.0)}
    assert read.ledger.unattributed == {("cpu", "idle"): 0.25, ("cpu", "gap"): 1.0}
    accounts = {account.owner: account.joules for account in read.ledger.accounts}
    assert gone not in accounts
    assert accounts[WORKLOAD._replace(container_id="new")] == {("cpu", "active"): 2.0}
    assert len(accounts) == 3


def test_every_torn_end_is_passed_over() -> None:
    """Fault 53: a kill in the middle of a write loses that line, nothing else."""
    whole = encode(state(1.0), whole=True)
    journal = encode(State("", 13.5, DeviceState(joules={"package-0": 2.0})), whole=False)
    for end in range(len(journal)):
        read = decode(whole + journal[:end])
        # A line that lacks only its newline is complete.
        assert read.devices.joules["package-0"] == (2.0 if end == len(journal) - 1 else 1.0)


def test_what_a_later_version_adds_is_passed_over() -> None:
    """So a downgrade keeps the checkpoint, as long as the version is the same."""
    content = json.loads(encode(state(), whole=True).partition(b" ")[2])
    for fields in content["known"].values():
        fields["colour"] = "green"
    text = json.dumps(content | {"weather": {"sun": 1}}).encode()
    assert decode(b"%08x %b\n" % (zlib.crc32(text), text)) == state()


def test_future_version_is_set_aside() -> None:
    """Fault 56."""
    text = json.dumps({"version": VERSION + 1, "at": 1.0}).encode()
    with pytest.raises(StateCorruptError, match=f"version {VERSION + 1}"):
        decode(b"%08x %b\n" % (zlib.crc32(text), text))


def test_a_file_from_before_variants_is_read() -> None:
    """Models and tokens of that file have no variant."""
    written = state()
    written.tokens = SavedTokens({(("", "", ""), MODEL.place, "output"): 5.0})
    content = json.loads(encode(written, whole=True).partition(b" ")[2])
    for kind, fields, *_ in content["accounts"]:
        if kind == "model":
            del fields[4:]
    content["tokens"] = [row[:7] for row in content["tokens"]]
    text = json.dumps(content).encode()
    read = decode(b"%08x %b\n" % (zlib.crc32(text), text))
    assert Model("llama", "team", "inference", "flag") in [account.owner for account in read.ledger.accounts]
    assert read.tokens == SavedTokens({(("", "", ""), ("llama", "team", ""), "output"): 5.0})
