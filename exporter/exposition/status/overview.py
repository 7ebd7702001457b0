"""The first cards of the status page: power and energy of the node, where it went, and its components."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from ...records import UnattributedReason
from ...snapshot import Snapshot
from .history import Point
from .markup import EnergyUnit, Layer, bar, name, note, number, percent, spark, tag, term, text

LONG = {"cpu": "CPU", "dram": "Memory", "gpu": "GPU", "other": "Other", "platform": "Platform"}
_CONSERVED = 1e-9
_REASONS: dict[UnattributedReason, str] = {
    "exited": "exited processes",
    "kernel": "the kernel",
    "gap": "gaps between readings",
    "unknown": "unknown",
}


def node_watts(snapshot: Snapshot) -> float | None:
    """Power of the node, None while no component's is known."""
    known = [node.watts for node in snapshot.energy.nodes if node.watts is not None]
    return sum(known) if known else None


def energy_unit(snapshot: Snapshot) -> EnergyUnit:
    """The one unit of energy on the page."""
    return EnergyUnit.of(sum(node.joules for node in snapshot.energy.nodes))


def clock(unix_seconds: float) -> str:
    """Format a time in UTC."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: 96 s · 9 min · 4 h 12 min · 31 d 4 h."""
    minutes = int(seconds // 60)
    if minutes < 2:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 1440 else f"{minutes // 1440} d {minutes // 60 % 24} h"


def span(points: Sequence[Point]) -> str:
    """How long the sparklines cover."""
    return duration(points[-1].at - points[0].at) if points else ""


def overview(snapshot: Snapshot, points: Sequence[Point]) -> str:
    """Return the cards."""
    parts = "" if len(snapshot.energy.nodes) < 2 else _components(snapshot, points)
    return f'<div class="grid hero">{_power(snapshot, points)}{_energy(snapshot)}{_uses(snapshot)}</div>{parts}'


def unmetered(snapshot: Snapshot) -> str:
    """Return what is shown where no meter could be read."""
    fixes = "".join(
        [f"<dt>{name(s.name)}</dt><dd>{text(s.fix)}</dd>" for s in snapshot.exporter.sources if s.fix and not s.up]
    )
    advice = f"<dl>{fixes}</dl>" if fixes else "<p>Virtual machines have no access to the meters.</p>"
    return (
        '<section class="card empty panel"><h2>No energy meter on this machine</h2>'
        "<p>No energy meter could be read, so there is no energy to attribute, and the energy series are absent.</p>"
        f"{advice}</section>"
    )


def _power(snapshot: Snapshot, points: Sequence[Point]) -> str:
    now = node_watts(snapshot)
    value = "–" if now is None else f"{number(now)}<small>W</small>"
    single = snapshot.energy.nodes[0].component if len(snapshot.energy.nodes) == 1 else ""
    totals = [sum(point.nodes.values()) for point in points]
    return (
        f'<section class="card"><h2 class="label">Node power now{f": {LONG[single]}" if single else ""} '
        f'{_quality(snapshot)}</h2><div class="big">{value}</div>'
        f"{_labelled(totals, 'active', points, tall=True)}</section>"
    )


def _quality(snapshot: Snapshot) -> str:
    qualities = {row.device.quality for row in snapshot.energy.devices if row.device.within is None}
    if "estimated" not in qualities:
        return ""
    return term("estimated", tag("estimated" if qualities == {"estimated"} else "partly estimated", "warn"))


def _labelled(values: Sequence[float], kind: str, points: Sequence[Point], *, tall: bool = False) -> str:
    """A sparkline of its own scale, with its maximum and duration below."""
    most = max(values, default=0.0)
    drawn = spark([Layer(kind, values)], most, f"power in the last {span(points)}, at most {number(most)} W", tall)
    return drawn and f'{drawn}<div class="hint">last {span(points)}, at most {number(most)} W</div>'


def _energy(snapshot: Snapshot) -> str:
    unit = energy_unit(snapshot)
    amount = unit.amount(sum(node.joules for node in snapshot.energy.nodes))
    error = snapshot.energy.conservation_error_ratio
    badge = tag("every joule accounted for", "good") if error <= _CONSERVED else tag("joules do not add up", "bad")
    return (
        f'<section class="card"><h2 class="label">Energy counted</h2>'
        f'<div class="big">{amount}<small>{unit.symbol}</small></div><div class="hint">{_since(snapshot)}</div>'
        f'<p class="check">{badge}<span class="hint">{term("error", "relative error")} {error:.2g}</span></p></section>'
    )


def _since(snapshot: Snapshot) -> str:
    since, start = snapshot.exporter.counted_since, snapshot.exporter.start_time
    if since is None:
        return f"since before {clock(start)}: an earlier version wrote the state file, without its start"
    return f"since {clock(since)} ({duration(snapshot.taken_at - since)})"


def _uses(snapshot: Snapshot) -> str:
    energy = snapshot.energy
    modes: defaultdict[str, float] = defaultdict(float)
    for row in energy.containers:
        for (_, mode), joules in zip(row.cells, row.joules, strict=True):
            modes[mode] += joules
    reasons: defaultdict[UnattributedReason, float] = defaultdict(float)
    for _, reason, joules in energy.unattributed:
        reasons[reason] += joules
    node_idle = reasons.pop("idle", 0.0)
    uses = [
        ("active", term("active", "Active work"), modes["active"]),
        ("idle", term("idle", "Idle, held by workloads"), modes["idle"]),
        ("node", term("node-idle", "Idle, the node itself"), node_idle),
        ("lost", term("unattributed", "Not attributed"), sum(reasons.values())),
        ("named", term("unnamed", "Name not yet known"), sum(joules for _, joules in energy.unnamed)),
        ("gone", term("ended", "Ended workloads"), sum(joules for _, joules in energy.retired)),
    ]
    total = sum(joules for *_, joules in uses) or 1.0
    why = [
        f"{_REASONS[reason]} {percent(joules / total)}"
        for reason, joules in sorted(reasons.items(), key=lambda item: -item[1])
        if joules / total >= 0.0005
    ]
    items = "".join(
        [
            f'<li><span class="dot c-{kind}"></span><span>{title}'
            f"{note(*why) if kind == 'lost' else ''}</span><b>{percent(joules / total)}</b></li>"
            for kind, title, joules in uses
            if joules > 0
        ]
    )
    return (
        '<section class="card"><h2 class="label">Where the energy went</h2>'
        f'{bar([(kind, joules / total) for kind, _, joules in uses])}<ul class="key">{items}</ul></section>'
    )


def _components(snapshot: Snapshot, points: Sequence[Point]) -> str:
    unit = energy_unit(snapshot)
    cards = []
    for node in snapshot.energy.nodes:
        value = "–" if node.watts is None else f"{number(node.watts)}<small>W</small>"
        title = term("other", LONG["other"]) if node.component == "other" else LONG[node.component]
        values = [point.nodes.get(node.component, 0.0) for point in points]
        cards.append(
            f'<section class="card"><h2 class="label"><span class="dot c-{node.component}"></span>{title}</h2>'
            f'<div class="mid">{value}</div><div class="hint">{unit.amount(node.joules)} {unit.symbol}</div>'
            f"{_labelled(values, node.component, points)}</section>"
        )
    return f'<div class="grid parts">{"".join(cards)}</div>'
