"""The embedded history of a real exporter, killed and started again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from exporter.accounting.checkpoint import decode
from tests.history.conftest import CONTAINER, NODE, Kept
from tests.support.program import Running


def test_the_history_has_what_the_counters_have(tmp_path: Path) -> None:
    """Twice killed with its counters saved, once stopped: the last line of the state file is the truth."""
    flags = ("--demo", "--state.file", f"{tmp_path}/state", "--history.file", f"{tmp_path}/history.db")
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        exporter = Running(flags)
        exporter.wait_for("energy_history_last_write_timestamp_seconds", lambda at: at > 1e9)
        samples = exporter.samples()["energy_samples_total"]
        exporter.wait_for("energy_samples_total", lambda now, least=samples + 3: now > least)  # type: ignore[misc]
        exporter.stop(number)
    state = decode((tmp_path / "state").read_bytes())
    kept = Kept(tmp_path / "history.db")
    assert kept.sound
    assert kept.total(NODE) == pytest.approx(sum(state.devices.node_joules.values()), rel=1e-9)
    accounts = sum(sum(a.joules.values()) for a in state.ledger.accounts if a.owner.__class__.__name__ == "Workload")
    assert kept.total(CONTAINER) == pytest.approx(accounts, rel=1e-9)
    assert kept.facts["kind"] == "simulated"


def test_without_a_place_to_write_it_serves_and_says_so(tmp_path: Path) -> None:
    exporter = Running(("--demo", "--history.file", f"{tmp_path}/none/history.db"))
    exporter.logged(f"no history is written: {tmp_path}/none/history.db: No such file or directory")
    exporter.wait_for("energy_node_joules_total", lambda joules: joules > 0)
    assert exporter.samples()["energy_history_last_write_timestamp_seconds"] == 0
    assert exporter.stop()[0] == 0
