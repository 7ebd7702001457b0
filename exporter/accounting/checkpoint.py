"""The state file's format: a checkpoint line followed by a journal line per tick.

The journal holds absolute values of what changed, written before they are published. So after a kill the
counters go on at or after the last value anybody saw: had they fallen back to a periodic checkpoint,
Prometheus would take that for a reset and count the whole value again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Device, Model, ProcessOwner, Workload
from .accounts import Books, Owner, SavedAccount
from .baseline import Sample
from .device_inventory import SavedDevice
from .meters import Point

VERSION = 1
"""Of the file format. A file of another version is set aside, not guessed at (fault 56).

What is only added keeps the version: it may be missing when read, and an older exporter passes over it.
"""

_OF_A_DEVICE = ("component", "source", "quality", "name", "within", "method")
"""What is kept of a device, so that it is shown under its labels before it is read again."""

_KINDS: Mapping[str, type[Workload] | type[ProcessOwner] | type[Model]] = {
    "container": Workload,
    "process": ProcessOwner,
    "model": Model,
}


class StateCorruptError(ValueError):
    """A state file that is no checkpoint: damaged, or of another version (fault 56)."""


@dataclass(slots=True)
class State:
    """What is kept. ``points`` are raw sensor values and only mean something in the boot ``boot_id``.

    ``known`` are the devices on show; only a checkpoint has them, no journal line. ``lags`` is not in the file: it says
    that more was shown afterwards than could be written.
    """

    boot_id: str
    at: float
    points: dict[str, Point] = field(default_factory=dict)
    baselines: dict[str, list[Sample]] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    closed: list[Owner] = field(default_factory=list)
    demo: bool = False
    known: dict[str, SavedDevice] = field(default_factory=dict)
    lags: bool = False


def encode(state: State, *, whole: bool) -> bytes:
    """One line: checksum, space, JSON. A journal line (not ``whole``) has only what changed."""
    books = state.books
    content: dict[str, Any] = {
        "at": state.at,
        "points": state.points,
        "devices": books.devices,
        "nodes": books.nodes,
        "unattributed": {f"{component}/{loss}": joules for (component, loss), joules in books.unattributed.items()},
        "retired": books.retired,
        "accounts": [_encode_account(account) for account in books.accounts],
    }
    if whole:
        content |= {"version": VERSION, "boot_id": state.boot_id, "baselines": state.baselines}
        content |= {"known": {key: _encode_device(entry) for key, entry in state.known.items()}}
        content |= {"retired_devices": books.retired_devices}
        content |= {"demo": True} if state.demo else {}
    elif state.closed:
        content["closed"] = [_encode_owner(owner) for owner in state.closed]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode(data: bytes) -> State:
    """Read a checkpoint and its journal; a torn last line is what a kill leaves and is passed over.

    Raises `StateCorruptError` if the checkpoint itself is damaged or of another version.
    """
    lines = data.split(b"\n")
    first = _content(lines[0])
    if first is None:
        raise StateCorruptError("checksum does not match")
    if first.get("version") != VERSION:
        raise StateCorruptError(f"version {first.get('version')!r}, this exporter writes {VERSION}")
    try:
        state = State(str(first["boot_id"]), 0.0, demo=bool(first.get("demo", False)))
        state.baselines = {key: [Sample(*sample) for sample in samples] for key, samples in first["baselines"].items()}
        state.known = {key: _decode_device(key, fields) for key, fields in first.get("known", {}).items()}
        state.books.retired_devices = dict(first.get("retired_devices", {}))
        accounts: dict[tuple[Any, ...], SavedAccount] = {}
        for line in lines:
            content = _content(line)
            if content is None:
                break
            _apply(content, state, accounts)
        state.books.accounts = list(accounts.values())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateCorruptError(f"unexpected content: {error!r}") from None
    return state


def _apply(content: dict[str, Any], state: State, accounts: dict[tuple[Any, ...], SavedAccount]) -> None:
    books = state.books
    state.at = float(content["at"])
    state.points.update({key: Point(*point) for key, point in content["points"].items()})
    books.devices.update(content["devices"])
    books.nodes.update(content["nodes"])
    books.retired.update(content["retired"])
    for name, joules in content["unattributed"].items():
        component, _, loss = name.partition("/")
        books.unattributed[component, loss] = joules
    for kind, fields in content.get("closed", ()):
        accounts.pop(_identity(_decode_owner(kind, fields), 0), None)
    for kind, fields, start_ticks, cells in content["accounts"]:
        owner = _decode_owner(kind, fields)
        joules = {tuple(cell.split("/")): float(value) for cell, value in cells.items()}
        accounts[_identity(owner, start_ticks)] = SavedAccount(owner, int(start_ticks), joules)


def _encode_device(entry: SavedDevice) -> dict[str, Any]:
    return {name: getattr(entry.device, name) for name in _OF_A_DEVICE} | {"missed_since": entry.missed_since}


def _decode_device(id_: str, fields: Mapping[str, Any]) -> SavedDevice:
    device = Device(id=id_, capacity=0.0, **{name: fields[name] for name in _OF_A_DEVICE})
    return SavedDevice(device, fields["missed_since"])


def _identity(owner: Owner, start_ticks: int) -> tuple[Any, ...]:
    if isinstance(owner, Workload):
        return ("container", *owner[:4])
    if isinstance(owner, Model):
        return ("model", *owner[:3])
    return ("process", owner.pid, start_ticks)


def _encode_owner(owner: Owner) -> tuple[str, Sequence[Any]]:
    kind = next(kind for kind, cls in _KINDS.items() if type(owner) is cls)
    return kind, owner


def _decode_owner(kind: str, fields: Sequence[Any]) -> Owner:
    # JSON has no tuples: a list among the fields is the labels of a workload.
    values: list[Any] = [tuple(map(tuple, field)) if isinstance(field, list) else field for field in fields]
    return _KINDS[kind](*values)


def _encode_account(account: SavedAccount) -> tuple[Any, ...]:
    cells = {f"{component}/{mode}": joules for (component, mode), joules in account.joules.items()}
    return (*_encode_owner(account.owner), account.start_ticks, cells)


def _content(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
