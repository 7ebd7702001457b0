"""A run's result as one line, a JSON object, and a row of a CSV file; pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..records import Component, SourceHealth
from .measuring import Result

COMPONENTS: tuple[Component, ...] = ("cpu", "dram", "gpu")
"""What a command can owe: the rest of a machine belongs to no workload."""

COLUMNS = (
    "timestamp",
    "run_id",
    "name",
    "command",
    "host",
    "duration_seconds",
    "exit_status",
    "joules",
    "cpu_joules",
    "dram_joules",
    "gpu_joules",
    "mean_watts",
    "peak_watts",
    "idle_ratio",
    "cpu_seconds",
    "gpu_seconds",
    "machine_joules",
    "carbon_grams",
    "cost",
    "currency",
    "carbon_intensity_grams_per_kilowatt_hour",
    "pue_ratio",
    "zone",
    "quality",
    "cpu_seconds_method",
    "version",
)
"""Header of the CSV file; an unknown value is an empty field. docs/run.md has CodeCarbon's names for them."""

_METER_SOURCES: Mapping[Component, tuple[str, ...]] = {
    "cpu": ("rapl", "exporter", "estimate", "cgroups", "procfs"),
    "dram": ("rapl",),
    "gpu": ("nvml", "hwmon", "drm"),
}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"))
_METHODS = {
    "cgroup": "CPU time by its own cgroup",
    "subreaper": "CPU time of its descendants (wait4)",
    "children": "CPU time of its children (no orphans)",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What identifies a run. ``ended_at`` is Unix seconds, ``exporter`` the URL whose joules were used, or ""."""

    run_id: str
    name: str
    command: Sequence[str]
    host: str
    ended_at: float
    version: str
    exporter: str = ""


def quality(result: Result) -> str:
    """``measured``, ``estimated``, ``partly estimated``, or ``not measured``: of the components with joules."""
    measured = result.measured_components()
    found = [component for component in COMPONENTS if result.of(component) is not None]
    if not found:
        return "not measured"
    if all(component in measured for component in found):
        return "measured"
    return "estimated" if not measured & set(found) else "partly estimated"


def line(result: Result) -> str:
    """The line for a terminal."""
    total, mean = result.total_joules, result.mean_watts
    parts = []
    if total is None or mean is None:
        parts.append("energy not measured")
    else:
        names = [
            f"{component} {_si(joules, 'J')}"
            for component in COMPONENTS
            if (joules := result.of(component)) is not None
        ]
        watts = f"mean {_si(mean, 'W')}"
        if result.peak_watts is not None:
            watts += f", peak {_si(result.peak_watts, 'W')}"
        parts += [f"{_si(total, 'J')} ({', '.join(names)})", watts]
        if result.idle_ratio is not None:
            parts.append(f"{100 * result.idle_ratio:.0f} % idle")
    parts.append(f"{result.duration_seconds:.2f} s, {result.cpu_seconds:.2f} CPU s")
    if result.gpu_seconds is not None:
        parts[-1] += f", {result.gpu_seconds:.2f} GPU s"
    if result.impact is not None and result.factors.intensity is not None:
        parts.append(f"{_si(result.impact.grams, 'g')} CO2e")
    if result.impact is not None and result.factors.price is not None:
        parts.append(f"{result.impact.cost - result.impact.credit:.6f} {result.factors.currency}")
    parts.append(f"{quality(result)}, {_METHODS[result.method]}")
    return "; ".join(parts)


def remarks(result: Result) -> Iterator[str]:
    """Lines about what was not measured, with reason and fix, and about what the numbers leave out."""
    measured = result.measured_components()
    if result.undivided:
        yield f"cpu is not measured: {result.undivided}"
    for component in ("cpu", "gpu"):
        if component in measured and result.of(component) is not None:
            continue
        have = result.of(component) is not None
        for health in _causes(result, component):
            what = "only estimated" if have else "not measured"
            yield f"{component} is {what}: {health.name}: {health.message}{f'; {health.fix}' if health.fix else ''}"
    if result.living:
        plural = "processes still run" if result.living > 1 else "process still runs"
        yield f"{result.living} {plural}, counted until the end of the command (--wait-all waits for them)"


def as_json(run: Run, result: Result) -> str:
    """All of it. Joules, watts, seconds and grams; null is unknown."""
    factors, impact = result.factors, result.impact
    measured = result.measured_components()
    content = {
        "run_id": run.run_id,
        "name": run.name,
        "command": list(run.command),
        "host": run.host,
        "ended": _time(run.ended_at),
        "duration_seconds": result.duration_seconds,
        "exit_status": result.ending.status,
        "joules": result.total_joules,
        **{f"{component}_joules": result.of(component) for component in COMPONENTS},
        "idle_joules": None
        if result.total_joules is None
        else sum(joules for (_, mode), joules in result.joules.items() if mode == "idle"),
        "idle_ratio": result.idle_ratio,
        "mean_watts": result.mean_watts,
        "peak_watts": result.peak_watts,
        "cpu_seconds": result.cpu_seconds,
        "gpu_seconds": result.gpu_seconds,
        "machine_joules": dict(result.machine_joules),
        "carbon_grams": None if impact is None or factors.intensity is None else impact.grams,
        "cost": None if impact is None or factors.price is None else impact.cost,
        "credit": None if impact is None or factors.price is None else impact.credit,
        "currency": factors.currency or None,
        "carbon_intensity_grams_per_kilowatt_hour": factors.intensity,
        "electricity_price_per_kilowatt_hour": factors.price,
        "pue_ratio": factors.pue,
        "zone": factors.zone or None,
        "quality": {
            component: "measured" if component in measured else "estimated"
            for component in COMPONENTS
            if result.of(component) is not None
        },
        "devices": [
            {
                "device": row.device.id,
                "component": row.device.component,
                "source": row.device.source,
                "quality": row.device.quality,
                "method": row.device.method,
                "idle_watts": row.idle_watts,
                "idle_method": row.idle_method or None,
            }
            for row in result.devices
        ],
        "cpu_seconds_method": result.method,
        "still_running": result.living,
        "exporter": run.exporter or None,
        "not_read": [
            {"source": health.name, "reason": health.reason, "message": health.message, "fix": health.fix}
            for health in result.sources
            if not health.up
        ],
        "undivided": result.undivided or None,
        "version": run.version,
    }
    return json.dumps(content, indent=2) + "\n"


def row(run: Run, result: Result) -> str:
    """One line of the CSV file, in the order of `COLUMNS`."""
    factors, impact = result.factors, result.impact
    values = (
        _time(run.ended_at),
        run.run_id,
        run.name,
        " ".join(run.command),
        run.host,
        result.duration_seconds,
        result.ending.status,
        result.total_joules,
        *(result.of(component) for component in COMPONENTS),
        result.mean_watts,
        result.peak_watts,
        result.idle_ratio,
        result.cpu_seconds,
        result.gpu_seconds,
        sum(result.machine_joules.values()) if result.machine_joules else None,
        None if impact is None or factors.intensity is None else impact.grams,
        None if impact is None or factors.price is None else impact.cost - impact.credit,
        factors.currency,
        factors.intensity,
        factors.pue,
        factors.zone,
        quality(result),
        result.method,
        run.version,
    )
    return _csv_line(["" if value is None else value for value in values])


def header() -> str:
    """The first line of the CSV file."""
    return _csv_line(COLUMNS)


def _csv_line(values: Sequence[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def _causes(result: Result, component: Component) -> Iterator[SourceHealth]:
    """Sources of a component that are down; a GPU that is not there is no problem."""
    for health in result.sources:
        if health.up or health.name not in _METER_SOURCES[component]:
            continue
        if component == "gpu" and health.reason == "not_found":
            continue
        yield health


def _time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")


def _si(value: float, unit: str) -> str:
    size = abs(value)
    factor, prefix = next(((f, p) for f, p in _PREFIXES if size >= f), _PREFIXES[-1] if size else (1.0, ""))
    return f"{value / factor:.3g} {prefix}{unit}"
