"""The status page: one self-contained HTML page that refreshes itself, and also works without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from heapq import nlargest

from ... import __version__
from ...records import GpuState, Model, SourceHealth, Workload
from ...snapshot import AccountRow, Snapshot
from .assets import SCRIPT, STYLE, content_security_policy
from .history import TOP, History, Point
from .markup import bar, card, energy, meter, name, number, percent, spark, table, tag, text, watts

_BOLT = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><rect width="24" height="24" rx="6" fill="#12936a"/>'
    '<path d="M13.2 3.5 6.5 13.4h4.6l-.9 7.1 7.3-10.4h-4.9z" fill="#fff"/></svg>'
)
_LONG = {"cpu": "CPU", "dram": "Memory", "gpu": "GPU", "other": "Other", "platform": "Platform"}
_CONSERVED = 1e-9


class Page:
    """Renders the page once per snapshot. For one thread only."""

    def __init__(self, history: History, telemetry_path: str = "/metrics") -> None:
        self.headers = (
            (b"Content-Security-Policy", content_security_policy()),
            (b"Referrer-Policy", b"no-referrer"),
            (b"X-Frame-Options", b"DENY"),
        )
        self._history = history
        self._path = telemetry_path
        self._shown: tuple[Snapshot | None, bytes] | None = None

    def __call__(self, snapshot: Snapshot | None) -> bytes:
        """Return the page for a snapshot; None is before the first sample."""
        if self._shown is None or self._shown[0] is not snapshot:
            self._shown = (snapshot, self._render(snapshot).encode())
        return self._shown[1]

    def _render(self, snapshot: Snapshot | None) -> str:
        every = max(2.0, snapshot.interval_seconds) if snapshot else 2.0
        content = _waiting() if snapshot is None else _content(snapshot, self._history.points())
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>AI Energy Exporter</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<noscript><meta http-equiv="refresh" content="{every:.0f}"></noscript><style>{STYLE}</style></head>'
            f'<body data-every="{every:g}"><header>{_BOLT}<h1>AI Energy Exporter</h1>'
            f'<span class="version">{text(__version__)}</span><nav><a href="{text(self._path)}">Metrics</a>'
            '<a href="/-/healthy">Healthy</a><a href="/-/ready">Ready</a></nav></header>'
            f"<main>{content}</main><script>{SCRIPT}</script></body></html>"
        )


def _waiting() -> str:
    return (
        '<section class="card empty panel"><h2>Waiting for the first sample</h2>'
        "<p>Energy is the difference between two readings; the first sample takes a moment.</p></section>"
    )


def _content(snapshot: Snapshot, points: Sequence[Point]) -> str:
    demo = (
        '<p class="banner" role="note"><b>Demo.</b> Everything on this page is simulated: no meter of this machine '
        "is read.</p>"
    )
    parts = [demo if snapshot.demo else ""]
    if snapshot.energy.nodes:
        parts += [_hero(snapshot, points), _components(snapshot, points)]
    else:
        parts.append(_unmetered(snapshot))
    parts += [
        _workloads(snapshot, points),
        _models(snapshot, points),
        _devices(snapshot),
        _gpus(snapshot.gpu.states),
        _sources(snapshot),
        _footer(snapshot),
    ]
    return "".join(parts)


# --- the node ------------------------------------------------------------------------------------------


def _node_watts(snapshot: Snapshot) -> float | None:
    known = [node.watts for node in snapshot.energy.nodes if node.watts is not None]
    return sum(known) if known else None


def _hero(snapshot: Snapshot, points: Sequence[Point]) -> str:
    now = _node_watts(snapshot)
    value = "–" if now is None else f"{number(now)}<small>W</small>"
    joules, unit = energy(sum(node.joules for node in snapshot.energy.nodes))
    line = spark([sum(point.nodes.values()) for point in points], "active", tall=True)
    qualities = {row.device.quality for row in snapshot.energy.devices if row.device.within is None}
    note = tag("estimated" if qualities == {"estimated"} else "partly estimated", "warn")
    return (
        '<div class="grid hero"><section class="card"><div class="label">Node power now '
        f"{note if 'estimated' in qualities else ''}</div>"
        f'<div class="big">{value}</div>{line}</section>'
        f'<section class="card"><div class="label">Energy counted so far</div>'
        f'<div class="big">{joules}<small>{unit}</small></div>{_accounted(snapshot)}</section>'
        f'<section class="card"><div class="label">Where it went</div>{_uses(snapshot)}</section></div>'
    )


def _accounted(snapshot: Snapshot) -> str:
    error = snapshot.energy.conservation_error_ratio
    badge = tag("every joule accounted for", "good") if error <= _CONSERVED else tag("joules do not add up", "bad")
    return f'<p class="check">{badge}<span class="hint">error <code>{error:.1e}</code></span></p>'


def _uses(snapshot: Snapshot) -> str:
    active = idle = 0.0
    for row in snapshot.energy.containers:
        for (_, mode), joules in zip(row.cells, row.joules, strict=True):
            if mode == "active":
                active += joules
            else:
                idle += joules
    node_idle = sum(joules for _, reason, joules in snapshot.energy.unattributed if reason == "idle")
    unexplained = sum(joules for _, reason, joules in snapshot.energy.unattributed if reason != "idle")
    retired = sum(joules for _, joules in snapshot.energy.retired)
    uses = (
        ("active", "Active work", active),
        ("idle", "Idle, held by workloads", idle),
        ("node", "Idle, the node itself", node_idle),
        ("lost", "Not attributed", unexplained),
        ("gone", "Ended workloads", retired),
    )
    total = sum(joules for _, _, joules in uses) or 1.0
    items = "".join(
        [
            f'<li><span class="dot c-{kind}"></span>{title}<b>{percent(joules / total)}</b></li>'
            for kind, title, joules in uses
        ]
    )
    return bar([(kind, joules / total) for kind, _, joules in uses]) + f'<ul class="key">{items}</ul>'


def _components(snapshot: Snapshot, points: Sequence[Point]) -> str:
    cards = []
    for node in snapshot.energy.nodes:
        joules, unit = energy(node.joules)
        value = "–" if node.watts is None else f"{number(node.watts)}<small>W</small>"
        cards.append(
            f'<section class="card"><div class="label"><span class="dot c-{node.component}"></span>'
            f'{_LONG[node.component]}</div><div class="mid">{value}</div><div class="hint">{joules} {unit}</div>'
            f"{spark([point.nodes.get(node.component, 0.0) for point in points], node.component)}</section>"
        )
    return f'<div class="grid parts">{"".join(cards)}</div>'


def _unmetered(snapshot: Snapshot) -> str:
    fixes = "".join([f"<p>{name(s.name)}: {text(s.fix)}</p>" for s in snapshot.exporter.sources if s.fix])
    advice = fixes or "<p>Virtual machines have no access to the meters; the estimate source is the alternative.</p>"
    return (
        '<section class="card empty panel"><h2>No energy meter on this machine</h2>'
        "<p>No energy meter could be read, so there is no energy to attribute, and the energy series are absent.</p>"
        f"{advice}</section>"
    )


# --- workloads ---------------------------------------------------------------------------------------


def _top(rows: Sequence[AccountRow]) -> list[AccountRow]:
    return nlargest(TOP, rows, key=lambda row: (sum(row.watts), sum(row.joules)))


def _share(part: float, snapshot: Snapshot) -> str:
    total = _node_watts(snapshot)
    return meter(part / total, "active") if total else "–"


def _amount(row: AccountRow) -> str:
    return "{} {}".format(*energy(sum(row.joules)))


def _workloads(snapshot: Snapshot, points: Sequence[Point]) -> str:
    if not snapshot.energy.containers:
        return ""
    rows = []
    for row in _top(snapshot.energy.containers):
        owner = row.owner
        assert isinstance(owner, Workload)
        title, below = (owner.pod, f"{owner.namespace} · {owner.container}") if owner.pod else (owner.container, "")
        model = snapshot.energy.container_models.get(row.serial)
        if model:
            below = " · ".join(filter(None, (below, model.model_name)))
        power = sum(row.watts)
        rows.append(
            (
                name(title) + (f"<small>{name(below)}</small>" if below else ""),
                tag(owner.runtime),
                watts(power),
                _share(power, snapshot),
                _amount(row),
                spark([point.containers.get(row.serial, 0.0) for point in points], "active"),
            )
        )
    heads = (("Workload", "name"), ("", "wide"), ("Power", "n"), ("Share", "n wide"), ("Energy", "n"), ("", "n wide"))
    count = len(snapshot.energy.containers)
    return card("Workloads", table(heads, rows), f"top {len(rows)} of {count} by power" if count > TOP else "by power")


def _models(snapshot: Snapshot, points: Sequence[Point]) -> str:
    if not snapshot.energy.models:
        return ""
    rows = []
    for row in _top(snapshot.energy.models):
        model = row.owner
        assert isinstance(model, Model)
        power = sum(row.watts)
        rows.append(
            (
                name(model.model_name)
                + f"<small>{name(' · '.join(filter(None, (model.namespace, model.phase))))}</small>",
                watts(power),
                _share(power, snapshot),
                _amount(row),
                spark([point.models.get(row.serial, 0.0) for point in points], "dram"),
            )
        )
    heads = (("Model", "name"), ("Power", "n"), ("Share", "n wide"), ("Energy", "n"), ("", "n wide"))
    return card("Models", table(heads, rows))


# --- devices and sources -------------------------------------------------------------------------------


def _devices(snapshot: Snapshot) -> str:
    if not snapshot.energy.devices:
        return ""
    rows = []
    for row in snapshot.energy.devices:
        device = row.device
        bounds = ""
        if row.low_watts is not None and row.high_watts is not None:
            bounds = f"<small>{number(row.low_watts)} to {watts(row.high_watts)}</small>"
        inside = f"<small>part of {name(device.within)}</small>" if device.within else ""
        kind = "good" if device.quality == "measured" else "warn"
        fault = "stuck" if row.stuck else "no reading" if row.up is False else ""
        rows.append(
            (
                f"{name(device.name or device.id)}{inside}",
                _LONG[device.component],
                watts(row.watts) + bounds,
                watts(row.idle_watts)
                + (f"<small>{text(row.idle_method)}</small>" if row.idle_watts is not None else ""),
                meter(row.utilization_ratio, device.component),
                tag(device.quality, kind)
                + (" " + tag(fault, "bad") if fault else "")
                + f"<small>{text(device.source)}, {text(device.method)}</small>",
            )
        )
    heads = (
        ("Device", "name"),
        ("Component", "wide"),
        ("Power", "n"),
        ("Idle", "n wide"),
        ("Utilization", "n wide"),
        ("How it is known", ""),
    )
    return card("Devices", table(heads, rows))


def _gpus(gpus: Sequence[GpuState]) -> str:
    if not gpus:
        return ""
    rows = []
    for gpu in gpus:
        used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
        memory = meter(used / total, "gpu") if used is not None and total else "–"
        size = f"<small>of {total / 2**30:.0f} GiB</small>" if total else ""
        heat = "–" if gpu.temperature_celsius is None else f"{gpu.temperature_celsius:.0f} °C"
        place = f"{gpu.index} / {gpu.gpu_instance}" if gpu.gpu_instance else gpu.index
        rows.append(
            (
                f"GPU {name(place)}<small>{name(gpu.gpu_model)}</small>",
                meter(gpu.utilization_ratio, "gpu"),
                percent(gpu.sm_active_ratio),
                percent(gpu.tensor_active_ratio),
                percent(gpu.dram_active_ratio),
                memory + size,
                watts(gpu.power_limit_watts),
                heat,
            )
        )
    heads = (
        ("GPU", "name"),
        ("Busy", "n"),
        ("SM active", "n wide"),
        ("Tensor active", "n wide"),
        ("DRAM active", "n wide"),
        ("Memory", "n"),
        ("Power limit", "n wide"),
        ("Temperature", "n wide"),
    )
    return card("GPUs", table(heads, rows))


def _sources(snapshot: Snapshot) -> str:
    if not snapshot.exporter.sources:
        return ""
    rows = [(name(source.name), _state(source), _last(source), _advice(source)) for source in snapshot.exporter.sources]
    return card("Sources", table((("Source", ""), ("State", ""), ("Last success", "wide"), ("What to do", "")), rows))


def _state(source: SourceHealth) -> str:
    if source.up:
        return tag("up", "good")
    return tag("not here") if source.reason == "not_found" else tag(source.reason or "down", "bad")


def _last(source: SourceHealth) -> str:
    return _clock(source.last_success) if source.last_success else "never"


def _advice(source: SourceHealth) -> str:
    if not source.message and not source.fix:
        return '<span class="hint">nothing</span>' if source.up else ""
    fix = f"<b>{text(source.fix)}</b>" if source.fix else ""
    return f'<span class="fix">{fix}<small>{text(source.message)}</small></span>'


def _footer(snapshot: Snapshot) -> str:
    cost = 1000 * snapshot.exporter.sample_seconds / snapshot.exporter.samples if snapshot.exporter.samples else 0.0
    return (
        f'<footer><span class="live">Sampled at {_clock(snapshot.taken_at)}</span>'
        '<span class="stale">The exporter does not respond; this page shows its last state.</span> · every '
        f"{snapshot.interval_seconds:g} s · {snapshot.exporter.samples:,} samples, "
        f"{cost:.1f} ms each · {snapshot.exporter.overruns:,} skipped"
        "</footer>"
    )


def _clock(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
