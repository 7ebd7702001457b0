"""The state file's format: a checkpoint line followed by a journal line per tick.

The journal holds absolute values of what changed, and is written before they are published. So after a kill, counters
continue at or after the last published value: if they fell back to a periodic checkpoint, Prometheus would take that
for a reset and count the whole value again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..impact.values import NOTHING_IN_FORCE, InForce, Rates, Settled
from ..records import Device, Model, ProcessOwner, Workload, WorkloadKey
from ..snapshot import ACTIVITIES, Activity
from .accounts import CardJoules, LedgerState, Owner, SavedAccount, SettledCells, SettledTotals
from .baseline import Sample
from .device_inventory import SavedDevice
from .devices import DeviceState
from .held_time import HeldSeconds
from .meters import Point
from .region_accounts import SavedRegions
from .tokens import SavedTokens

VERSION = 1
"""Version of the file format. A file of another version is set aside, not interpreted.

New fields do not change the version: they may be missing when read, and an older exporter ignores them.
"""

_DEVICE_FIELDS = ("component", "source", "quality", "name", "within", "method")
_RARE_DEVICE_FIELDS = ("period_seconds", "fallback")
"""Fields of a device that are saved, so that it is published under its labels before it is read again; rare ones only
where they are set."""

_KINDS: Mapping[str, type[Workload] | type[ProcessOwner] | type[Model]] = {
    "container": Workload,
    "process": ProcessOwner,
    "model": Model,
}
_KIND_OF = {cls: kind for kind, cls in _KINDS.items()}


class StateCorruptError(ValueError):
    """A state file that cannot be read: damaged, or of another version."""


@dataclass(slots=True)
class State:
    """What survives a restart, as of boot time ``at`` in the boot ``boot_id``.

    ``closed`` are the owners of accounts that a journal line removes. ``counted_since`` is when the counters started at
    0, in Unix seconds; None in a file of a version that did not save it. ``lagging`` is not in the file's text: more
    was published afterwards than could be written. ``in_force`` is what grams and money are counted at. ``held`` None:
    the time for which GPUs are held is not counted. ``tokens`` and ``regions`` None: unchanged since the last
    checkpoint or line.
    """

    boot_id: str
    at: float
    devices: DeviceState = field(default_factory=DeviceState)
    ledger: LedgerState = field(default_factory=LedgerState)
    closed: list[Owner] = field(default_factory=list)
    demo: bool = False
    counted_since: float | None = None
    lagging: bool = False
    in_force: InForce = NOTHING_IN_FORCE
    held: HeldSeconds | None = None
    tokens: SavedTokens | None = None
    regions: SavedRegions | None = None


def encode(state: State, *, whole: bool) -> bytes:
    """One line: checksum, space, JSON. A journal line (not ``whole``) has only what changed."""
    devices, ledger = state.devices, state.ledger
    content: dict[str, Any] = {
        "at": state.at,
        "points": devices.points,
        "devices": devices.joules,
        "nodes": devices.node_joules,
        "unattributed": {f"{component}/{why}": joules for (component, why), joules in ledger.unattributed.items()},
        "retired": ledger.retired,
        "accounts": [_encode_account(account) for account in ledger.accounts],
        "account_cards": {
            str(at): {f"{mode}/{device}": joules for (device, mode), joules in account.cards.items()}
            for at, account in enumerate(ledger.accounts)
            if account.cards
        },
    }
    if any(account.activities for account in ledger.accounts):
        content["account_activities"] = {
            str(at): dict(account.activities) for at, account in enumerate(ledger.accounts) if account.activities
        }
    if any(account.settled for account in ledger.accounts):
        content["account_impacts"] = {
            str(at): {f"{component}/{mode}": settled for (component, mode), settled in account.settled.items()}
            for at, account in enumerate(ledger.accounts)
            if account.settled
        }
    if ledger.settled is not None:
        content["impacts"] = {
            "unattributed": {f"{name}/{why}": settled for (name, why), settled in ledger.settled.unattributed.items()},
            "retired": ledger.settled.retired,
        }
    if (held := state.held) is not None:
        content["held"] = [held.node, held.ended, [[*key, seconds] for key, seconds in held.containers.items()]]
    if state.tokens is not None:
        content["tokens"] = [
            (*place, name, namespace, kind, count, *filter(None, (variant,)))
            for (place, (name, namespace, variant), kind), count in state.tokens.cells.items()
        ]
    if state.regions is not None and state.regions.cells:
        content["regions"] = [(*owner, region, kind, n) for (region, owner, kind), n in state.regions.cells.items()]
    if whole:
        content |= {"rates": state.in_force.rates, "node_impacts": devices.settled}
        content |= {"currency": state.in_force.currency} if state.in_force.currency else {}
        content |= {"version": VERSION, "boot_id": state.boot_id, "baselines": devices.baselines}
        content |= {"known": {key: _encode_device(saved) for key, saved in devices.known.items()}}
        content |= {"retired_devices": devices.retired_joules, "gpu_indexes": dict(devices.gpu_indexes)}
        content |= {"demo": True} if state.demo else {}
        content |= {} if state.counted_since is None else {"counted_since": state.counted_since}
    elif state.closed:
        content["closed"] = [_encode_owner(owner) for owner in state.closed]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode(data: bytes) -> State:
    """Read the last checkpoint and its journal; a torn line, which a kill leaves behind, ends the journal.

    Another checkpoint follows where a disk may not have synced one at the exporter's end.
    Raises `StateCorruptError` if the checkpoint itself is damaged or of another version.
    """
    lines = data.split(b"\n")
    first = _content(lines[0])
    if first is None:
        raise StateCorruptError("checksum does not match")
    if first.get("version") != VERSION:
        raise StateCorruptError(f"version {first.get('version')!r}, this exporter writes {VERSION}")
    contents: list[dict[str, Any]] = []
    torn = False
    for line in lines:
        content = _content(line)
        if content is not None and "version" in content:
            contents, torn = [content], False
        elif content is None or torn:
            torn = True
        else:
            contents.append(content)
    first = contents[0]
    try:
        state = State(str(first["boot_id"]), 0.0, demo=bool(first.get("demo", False)))
        devices = state.devices
        devices.baselines = {key: [Sample(*pair) for pair in samples] for key, samples in first["baselines"].items()}
        devices.known = {key: _decode_device(key, fields) for key, fields in first.get("known", {}).items()}
        devices.retired_joules = dict(first.get("retired_devices", {}))
        devices.gpu_indexes = dict(first.get("gpu_indexes", {}))
        devices.settled = _decode_settled(first.get("node_impacts", {}))
        state.in_force = InForce(Rates(*first.get("rates", ())), str(first.get("currency", "")))
        since = first.get("counted_since")
        state.counted_since = None if since is None else float(since)
        accounts: dict[tuple[Any, ...], SavedAccount] = {}
        for content in contents:
            _apply(content, state, accounts)
        state.ledger.accounts = list(accounts.values())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateCorruptError(f"unexpected content: {error!r}") from None
    return state


def _apply(content: dict[str, Any], state: State, accounts: dict[tuple[Any, ...], SavedAccount]) -> None:
    devices, ledger = state.devices, state.ledger
    state.at = float(content["at"])
    devices.points.update({key: Point(*point) for key, point in content["points"].items()})
    devices.joules.update(content["devices"])
    devices.node_joules.update(content["nodes"])
    ledger.retired.update(content["retired"])
    for name, joules in content["unattributed"].items():
        component, _, reason = name.partition("/")
        ledger.unattributed[component, reason] = joules
    for kind, fields in content.get("closed", ()):
        accounts.pop(_identity(_decode_owner(kind, fields), 0), None)
    if "held" in content:
        node, ended, rows = content["held"]
        containers: dict[WorkloadKey, float] = {(a, b, c, d): float(seconds) for a, b, c, d, seconds in rows}
        state.held = HeldSeconds(float(node), containers, float(ended))
    if "impacts" in content:
        unattributed = _decode_settled(content["impacts"]["unattributed"])
        ledger.settled = SettledTotals(
            {_cell(name): settled for name, settled in unattributed.items()},
            _decode_settled(content["impacts"]["retired"]),
        )
    if "tokens" in content:
        state.tokens = SavedTokens(
            {
                ((a, b, c), (name, namespace, "".join(variant)), kind): float(n)
                for a, b, c, name, namespace, kind, n, *variant in content["tokens"]
            }
        )
    if "regions" in content:
        rows = content["regions"]
        state.regions = SavedRegions(
            {(region, (name, namespace), kind): float(n) for name, namespace, region, kind, n in rows}
        )
    cards, impacts = content.get("account_cards", {}), content.get("account_impacts", {})
    activities = content.get("account_activities", {})
    for at, (kind, fields, start_ticks, cells) in enumerate(content["accounts"]):
        owner = _decode_owner(kind, fields)
        joules = {tuple(cell.split("/")): float(value) for cell, value in cells.items()}
        identity = _identity(owner, start_ticks)
        settled: SettledCells | None
        if str(at) in impacts:
            settled = {_cell(name): value for name, value in _decode_settled(impacts[str(at)]).items()}
        else:
            settled = accounts[identity].settled if identity in accounts else {}
        accounts[identity] = SavedAccount(
            owner,
            int(start_ticks),
            joules,
            _decode_cards(cards.get(str(at), {})),
            settled,
            _decode_activities(activities.get(str(at), {})),
        )


def _cell(name: str) -> Any:
    """A component with its mode or reason; which of both is known to the caller."""
    component, _, kind = name.partition("/")
    return component, kind


def _decode_settled(cells: Mapping[Any, Sequence[float]]) -> dict[Any, Settled]:
    return {name: Settled(*map(float, values)) for name, values in cells.items()}


def _decode_cards(cells: Mapping[str, float]) -> CardJoules:
    parts = ((cell.partition("/"), float(joules)) for cell, joules in cells.items())
    return {(device, "idle" if mode == "idle" else "active"): joules for (mode, _, device), joules in parts}


def _decode_activities(cells: Mapping[str, float]) -> dict[Activity, float]:
    """Those that this version has; joules of others are missing in the sum, as those of an older file."""
    return {activity: float(cells[activity]) for activity in ACTIVITIES if activity in cells}


def _encode_device(saved: SavedDevice) -> dict[str, Any]:
    device = saved.device
    fields = {name: getattr(device, name) for name in _DEVICE_FIELDS} | {"missed_since": saved.missed_since}
    rare = {name: getattr(device, name) for name in _RARE_DEVICE_FIELDS}
    return fields | {name: value for name, value in rare.items() if value}


def _decode_device(id_: str, fields: Mapping[str, Any]) -> SavedDevice:
    known = {name: fields[name] for name in _DEVICE_FIELDS}
    rare = {name: fields[name] for name in _RARE_DEVICE_FIELDS if name in fields}
    device = Device(id=id_, capacity=0.0, **known, **rare)
    return SavedDevice(device, fields["missed_since"])


def _identity(owner: Owner, start_ticks: int) -> tuple[Any, ...]:
    if isinstance(owner, Workload):
        return ("container", *owner.key)
    if isinstance(owner, Model):
        return ("model", *owner.key)
    return ("process", owner.pid, start_ticks)


def _encode_owner(owner: Owner) -> tuple[str, Sequence[Any]]:
    # Without a variant a model is written as before there were any, so that an earlier version can read it.
    fields = owner[:-1] if isinstance(owner, Model) and not owner.variant else owner
    return _KIND_OF[type(owner)], fields


def _decode_owner(kind: str, fields: Sequence[Any]) -> Owner:
    # JSON has no tuples: a list among the fields is a workload's labels.
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
