"""The tables of GPUs, of other devices, and of sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...records import Allocation, GpuState, Model, SourceHealth, Workload, WorkloadKey
from ...snapshot import DeviceRow, Snapshot
from .accounts import workload_title
from .history import Holder
from .markup import UNKNOWN, Head, card, column, details, meter, name, note, number, percent, table, tag, term, text
from .overview import LONG, clock, energy_unit


def gpus(snapshot: Snapshot, holders: Mapping[str, Sequence[Holder]]) -> str:
    """Return one table of all GPUs, with a row for each MIG instance below its card."""
    devices = {row.device.id: row for row in snapshot.energy.devices if row.device.component == "gpu"}
    states = {(state.uuid, state.gpu_instance): state for state in snapshot.gpu.states}
    if not devices and not states:
        return ""
    cards = dict.fromkeys([*[uuid for uuid, instance in states if not instance], *devices])
    index = {**{uuid: state.index for (uuid, _), state in states.items()}, **snapshot.gpu.indexes}
    keys = [(uuid, "") for uuid in cards] + [key for key in states if key[1]]
    keys.sort(key=lambda key: (_order(index.get(key[0], "")), key[0], key[1] != "", _order(key[1])))
    shown = [(key[0], states.get(key), None if key[1] else devices.get(key[0])) for key in keys]
    unit, owned = energy_unit(snapshot), _models_by_owner(snapshot)
    kinds = {_kind(state, row) for (_, instance), (_, state, row) in zip(keys, shown, strict=True) if not instance}
    same = len(kinds) == 1
    power = column([row.watts if row else None for _, _, row in shown])
    limit = column([state.power_limit_watts if state else None for _, state, _ in shown])
    idle = column([row.idle_watts if row else None for _, _, row in shown])
    energy = unit.column([row.joules if row else None for _, _, row in shown])
    cells = [
        (
            _gpu_name(number_, uuid, index.get(uuid, ""), state, "" if same else _kind(state, row), row),
            _allocated_to(snapshot.gpu.allocations, state) if row is None else _held_by(holders.get(uuid, ()), owned),
            power[number_],
            idle[number_] + (note(text(row.idle_method)) if row and row.idle_method else ""),
            limit[number_],
            energy[number_],
            *_activity(state),
        )
        for number_, (uuid, state, row) in enumerate(shown)
    ]
    heads = (
        Head("GPU"),
        Head(term("holder", "Held by"), "t name"),
        Head("Power<small>W</small>", "power"),
        Head(f"{term('idle-power', 'Idle power')}<small>W</small>", "idle-power"),
        Head("Limit<small>W</small>", "limit"),
        Head(f"Energy<small>{unit.symbol}</small>", f"energy-{unit.symbol}"),
        Head("Busy", "busy"),
        Head(term("sm", "SM"), "sm"),
        Head(term("sm", "Tensor"), "tensor"),
        Head(term("sm", "DRAM"), "dram"),
        Head("Memory", "memory"),
        Head("Temp.<small>°C</small>", "heat"),
    )
    hint = f"{len(cards)} × {kinds.pop()}" if same else f"{len(cards)}"
    return card("GPUs", table(heads, cells, "stack wide"), hint)


def _order(index: str) -> tuple[int, str]:
    return (int(index), "") if index.isdecimal() else (1 << 30, index)


def _kind(state: GpuState | None, row: DeviceRow | None) -> str:
    """Product of a card, and how its joules are known."""
    product = (state.gpu_model if state else "") or (row.device.name if row else "")
    return name(product) + (f", {text(row.device.quality)} ({text(row.device.source)})" if row else "")


def _gpu_name(number_: int, uuid: str, index: str, state: GpuState | None, kind: str, row: DeviceRow | None) -> str:
    if state and state.gpu_instance:
        return f'<div class="mig">MIG {name(index)}/{name(state.gpu_instance)}{note(name(state.gpu_model))}</div>'
    title = f"GPU {name(index)}" if index else "GPU"
    fault = "" if row is None else _fault(row)
    where = f"<p>{name(uuid)}</p>" + (f"<p>PCI {name(state.pci_bus_id)}</p>" if state and state.pci_bus_id else "")
    return f"{details(f'gpu-{number_}', title, where)}{fault}{note(kind)}"


def _held_by(holders: Sequence[Holder], models: Mapping[WorkloadKey, Model]) -> str:
    lines = []
    for holder in holders:
        model = models.get(holder.owner.key)
        active, idle = holder.active_watts, holder.idle_watts
        # Watts are to the last point: a part below 0.5 W is rounding.
        only_idle = active is not None and active < 0.5 and (idle is None or idle > 0)
        mark = " " + tag("idle", "warn") if only_idle else ""
        watts = "" if active is None or idle is None else f"{number(active + idle)} W"
        title = name(workload_title(holder.owner))
        lines.append(f"<div>{title}{mark}{note(watts, name(model.model_name) if model else '')}</div>")
    return "".join(lines) or UNKNOWN


def _allocated_to(allocations: Sequence[Allocation], state: GpuState | None) -> str:
    """The containers that a MIG instance is allocated to; joules are known by card only."""
    if state is None:
        return UNKNOWN
    place = (state.index, state.gpu_instance)
    pods = [name(each.pod) + note("allocated") for each in allocations if (each.gpu, each.gpu_instance) == place]
    return "".join([f"<div>{pod}</div>" for pod in pods]) or UNKNOWN


def _models_by_owner(snapshot: Snapshot) -> dict[WorkloadKey, Model]:
    models = snapshot.energy.container_models
    owners = {row.serial: row.owner for row in snapshot.energy.containers if row.serial in models}
    return {owner.key: models[serial] for serial, owner in owners.items() if isinstance(owner, Workload)}


def _activity(state: GpuState | None) -> tuple[str, ...]:
    if state is None:
        return (UNKNOWN,) * 6
    used, total = state.memory_used_bytes, state.memory_total_bytes
    memory = percent(used / total) if used is not None and total else UNKNOWN
    heat = state.temperature_celsius
    return (
        meter(state.utilization_ratio, "gpu"),
        percent(state.sm_active_ratio),
        percent(state.tensor_active_ratio),
        percent(state.dram_active_ratio),
        memory + (note(f"of {total / 2**30:.0f} GiB") if total else ""),
        UNKNOWN if heat is None else f"{heat:.0f}",
    )


def devices(snapshot: Snapshot) -> str:
    """Return the table of the devices that are no GPUs."""
    rows = [row for row in snapshot.energy.devices if row.device.component != "gpu"]
    if not rows:
        return ""
    unit = energy_unit(snapshot)
    power, idle = column([row.watts for row in rows]), column([row.idle_watts for row in rows])
    energy = unit.column([row.joules for row in rows])
    cells = []
    for i, row in enumerate(rows):
        device = row.device
        bounds = ""
        if row.low_watts is not None and row.high_watts is not None:
            bounds = note(f"{number(row.low_watts)} to {number(row.high_watts)}")
        known = device.quality
        cells.append(
            (
                f"{name(device.name or device.id)} {_fault(row)}"
                + note(
                    name(device.id) if device.name not in {"", device.id} else "",
                    f"part of {name(device.within)}" if device.within else "",
                ),
                LONG[device.component],
                power[i] + bounds,
                idle[i] + (note(text(row.idle_method)) if row.idle_method else ""),
                energy[i],
                meter(row.utilization_ratio, device.component),
                tag(known, "" if known == "measured" else "warn")
                + note(f"{text(device.source)}, {text(device.method)}"),
            )
        )
    heads = (
        Head("Device"),
        Head("Component", "t"),
        Head("Power<small>W</small>", "power"),
        Head(f"{term('idle-power', 'Idle power')}<small>W</small>", "idle-power"),
        Head(f"Energy<small>{unit.symbol}</small>", f"energy-{unit.symbol}"),
        Head("Utilisation", "busy"),
        Head(term("estimated", "How it is known"), "t full"),
    )
    title = "Other devices" if len(rows) < len(snapshot.energy.devices) else "Devices"
    nested = any(row.device.within for row in rows)
    return card(title, table(heads, cells, "stack"), "some include others: do not add them up" if nested else "")


def _fault(row: DeviceRow) -> str:
    fault = "stuck" if row.stuck else "no reading" if row.up is False else ""
    return term("fault", tag(fault, "bad")) if fault else ""


def sources(snapshot: Snapshot, absent: str) -> str:
    """Return the sources: failures with their fix, and folded away what this machine does not have."""
    every = snapshot.exporter.sources
    failing = [source for source in every if not source.up and source.reason != "not_found"]
    unsaid = [source for source in every if source.up and (source.message or source.fix)]
    missing = [source for source in every if not source.up and source.reason == "not_found"]
    up = "".join([f"<li>{tag(source.name, 'good')}</li>" for source in every if source.up])
    cells = [
        (
            f"{name(source.name)} {tag(source.reason or 'down', 'bad') if not source.up else tag('up', 'good')}",
            f"{text(source.fix)}{note(text(source.message))}",
            clock(source.last_success) if source.last_success else "never",
        )
        for source in (*failing, *unsaid)
    ]
    heads = (Head("Source"), Head("What to do", "t full"), Head("Last success", "t full last"))
    content = f'<ul class="up"><li class="hint">Read:</li>{up}</ul>' if up else ""
    content += table(heads, cells, "stack") if cells else ""
    content += _missing(missing) + absent
    return card("Sources", content) if content else ""


def _missing(missing: Sequence[SourceHealth]) -> str:
    if not missing:
        return ""
    entries = "".join(
        [f"<dt>{name(source.name)}</dt><dd>{text(source.message)}{note(text(source.fix))}</dd>" for source in missing]
    )
    names = ", ".join([name(source.name) for source in missing])
    return details("missing", f'Not on this machine: <span class="hint">{names}</span>', f"<dl>{entries}</dl>")
