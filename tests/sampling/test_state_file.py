"""The state file on disk: locked, replaced whole, appended to, set aside when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.accounting.checkpoint import State, StateCorruptError, encode
from exporter.accounting.devices import DeviceState
from exporter.sampling.state_file import StateLocked, StateStore
from tests.accounting.test_checkpoint import state


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0" * 4096,
        b"{}",
        encode(state(), whole=True)[:-40],
        encode(state(), whole=True).replace(b"boot-1", b"boot-2"),
        encode(state(), whole=False),
    ],
)
def test_damaged_checkpoint_is_set_aside(data: bytes, tmp_path: Path) -> None:
    """Fault 56."""
    path = tmp_path / "state"
    path.write_bytes(data)
    store = StateStore(str(path))
    with pytest.raises(StateCorruptError, match="set aside as"):
        store.load()
    assert store.load() is None
    assert [p.name for p in tmp_path.glob("state.corrupt-*")] == ["state.corrupt-1"]
    store.write((encode(state(), whole=True), True))
    assert store.load() == state()
    store.close()


def test_every_successful_write_is_told_and_no_other(tmp_path: Path) -> None:
    written: list[None] = []
    store = StateStore(str(tmp_path / "state"), lambda: written.append(None))
    with pytest.raises(OSError, match="no checkpoint"):
        store.write((encode(state(), whole=False), False))
    assert written == []
    store.write((encode(state(), whole=True), True))
    store.write((encode(state(), whole=False), False))
    assert len(written) == 2
    store.close()


def test_second_instance_is_refused(tmp_path: Path) -> None:
    """Fault 57."""
    first = StateStore(str(tmp_path / "state"))
    with pytest.raises(StateLocked, match="in use by another exporter"):
        StateStore(str(tmp_path / "state"))
    first.close()
    StateStore(str(tmp_path / "state")).close()


def test_append_needs_a_checkpoint(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path / "state"))
    with pytest.raises(OSError, match="no checkpoint"):
        store.write((encode(state(), whole=False), False))
    store.close()


def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """Fault 55: /dev/full stands for the disk."""
    path = tmp_path / "state"
    store = StateStore(str(path))
    store.write((encode(state(1.0), whole=True), True))
    os.symlink("/dev/full", f"{path}.new")
    with pytest.raises(OSError, match="No space left"):
        store.write((encode(state(2.0), whole=True), True))
    os.unlink(f"{path}.new")
    store.close()
    store = StateStore(str(path))
    read = store.load()
    assert read is not None
    assert (read.devices.joules, read.lagging) == ({"package-0": 1.0}, True), "the next run knows that it is behind"
    store.write((encode(state(3.0), whole=True), True))
    store.write((encode(State("", 14.0, DeviceState(joules={"package-0": 4.0})), whole=False), False))
    read = store.load()
    assert read is not None
    assert (read.devices.joules, read.lagging) == ({"package-0": 4.0}, False)
    store.close()
